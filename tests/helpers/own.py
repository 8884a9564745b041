"""What a user might write: a policy, a core, an algorithm and curricula of their own, named `own:LSTM` and so on."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelnative.policies.config import PolicyConfig
from modelnative.policies.contract import PolicyOutput
from modelnative.policies.core import Core
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import Problems, TaskSpec
from modelnative.training.algorithm import Algorithm, discounted_returns
from modelnative.training.curriculum import Curriculum
from modelnative.training.rollout import Rollout

State = tuple[Tensor, Tensor]


class LSTM(nn.Module):
    """A policy that knows nothing of this package but the contract. State: (h, c), float [n, width] each."""

    def __init__(self, spec: TaskSpec, config: PolicyConfig) -> None:
        super().__init__()
        width, vocabulary = config.width, len(spec.vocabulary)
        self.context = nn.Embedding(spec.context_length * vocabulary, width)
        self.places = torch.arange(spec.context_length) * vocabulary
        self.token = nn.Embedding(vocabulary, width)
        self.feedback = nn.ModuleList(nn.Embedding(vocabulary, width) for _ in range(spec.feedback_width))
        self.lstm = nn.LSTM(width, width)
        self.actor, self.critic = nn.Linear(width, vocabulary), nn.Linear(width, 1)

    def initial_state(self, problems: Problems) -> State:
        h = self.context(problems.context + self.places).sum(1)
        return h, torch.zeros_like(h)

    def forward(self, tokens: Tensor, feedback: Tensor, state: State) -> PolicyOutput:
        x = self.token(tokens)
        for place, embedding in enumerate(self.feedback):
            x = x + embedding(feedback[..., place])
        hidden, (h, c) = self.lstm(x, (state[0][None], state[1][None]))
        return PolicyOutput(self.actor(hidden), self.critic(hidden)[..., 0], (h[0], c[0]))


class Average(Core):
    """The mean of the inputs so far. State: their sum and their number, as a dict."""

    recipe: ClassVar[dict[str, Any]] = {"optimizer": {"learning_rate": 0.0123}}

    def __init__(self, width: int, layers: int = 1) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def initial_state(self, summary: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        return {"sum": summary, "count": torch.ones_like(summary[:, :1])}

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        sums = state["sum"] + x.cumsum(0)
        counts = state["count"] + torch.arange(1, len(x) + 1, device=x.device)[:, None, None]
        return self.mix(sums / counts).tanh(), {"sum": sums[-1], "count": counts[-1]}


class Plain(Algorithm):
    """The return of the whole episode as the advantage of each of its tokens."""

    recipe: ClassVar[dict[str, Any]] = {"loss": {"value_weight": 0.0}}
    learning_rate_factor: ClassVar[float] = 0.25

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        returns = discounted_returns(rollout.reward, 1.0)
        return returns[:1].expand_as(returns), returns


class Last(Curriculum):
    """The last stage alone."""

    recipe: ClassVar[dict[str, Any]] = {"episodes": 77}

    def weights(self, progress: float) -> Tensor:
        return (torch.arange(len(self.lengths)) == len(self.lengths) - 1).float()


class WithoutOracle(Arithmetic):
    """A task that has no oracle."""

    @property
    def has_oracle(self) -> bool:
        return False

    def oracle(self, problems: Any) -> Tensor:
        raise AssertionError("there is no oracle")
