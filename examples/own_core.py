"""Your own core: an LSTM. Embeddings, copy head and value come from `TokenPolicy`.

modelnative train --policy own_core:LSTM
"""

import torch
from torch import Tensor, nn

import modelnative as mn


class LSTMCore(mn.Core):
    """One LSTM layer (Hochreiter and Schmidhuber, 1997). State: hidden and cell, float [n, width] each."""

    recipe = {"optimizer": {"learning_rate": 5e-3}}

    def __init__(self, width: int, layers: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers)
        self.start = nn.Linear(width, 2 * width * layers)

    def initial_state(self, summary: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """From the sum of the context's embeddings, float [n, width]; the batch comes first."""
        return self.start(summary).tanh().unflatten(1, (-1, 2, self.lstm.hidden_size)).unbind(2)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Hidden states of inputs x, float [T, n, width], and the state after the last."""
        hidden, cell = (part.transpose(0, 1).contiguous() for part in state)
        x, after = self.lstm(x, (hidden, cell))
        return x, tuple(part.transpose(0, 1) for part in after)


class LSTM(mn.TokenPolicy):
    """A policy around it, made as the command line makes policies: from the task's spec and the configuration."""

    recipe = LSTMCore.recipe

    def __init__(self, spec: mn.TaskSpec, config: mn.PolicyConfig) -> None:
        super().__init__(spec, config, core=LSTMCore)


if __name__ == "__main__":
    task = mn.make("arithmetic")
    config = mn.recipe(task, core="own_core:LSTM")
    torch.manual_seed(0)  # of the network's first weights
    trainer = mn.Trainer(task, config, policy=LSTM(task.spec, config.policy))
    for metrics in trainer:
        if metrics.update % 20 == 0:
            print(metrics.update, metrics.stages, metrics.greedy)
        if metrics.update >= 60 or torch.tensor(metrics.greedy or [0.0]).min() == 1:
            break
