"""The GRU core."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from modelnative.native import operator
from modelnative.policies.core import Core, InputRows, squash


@operator("gru")
def gru(
    inputs: Tensor,
    rows: InputRows | None,
    initial: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor | None = None,
) -> Tensor:
    """Hidden states of gated recurrent units (Cho et al., 2014, in the form of `torch.nn.GRU`).

    Args:
        inputs: float [R, 3H], a table; the input to reset gate, update gate and candidate of each token is a sum of its
            rows. Without `rows`, float [T, n, 3H]: these inputs themselves. All biases but `bias` are in them.
        rows: which rows of `inputs` to add up.
        initial: float [n, H], the hidden state before the first token.
        weight: float [3H, H], of the hidden state.
        bias: float [H], added to the candidate's recurrent part, inside the reset gate.
        lengths: int64 [n], the tokens of each sequence; T for all by default. Fastest when the longest come first.

    Returns:
        float [T, n, H]; 0 after the end of a sequence.
    """
    if rows is not None:
        inputs = rows.sum(inputs)
    width, h = initial.shape[1], initial
    hidden = []
    for t, x in enumerate(inputs):
        x_gates, x_candidate = x.split([2 * width, width], 1)
        h_gates, h_candidate = (h @ weight.t()).split([2 * width, width], 1)
        reset, update = (x_gates + h_gates).sigmoid().chunk(2, 1)
        candidate = (x_candidate + reset * (h_candidate + bias)).tanh()
        h = candidate + update * (h - candidate)
        if lengths is not None:
            h = torch.where(t < lengths[:, None], h, 0.0)
        hidden.append(h)
    return torch.stack(hidden)


class GRULayer(nn.Module):
    """The parameters of one layer, its gates in the order reset, update, candidate as in `torch.nn.GRU`.

    Args:
        inputs: size of an input.
        width: size H of the hidden state; by default as large.

    Attributes:
        weight, recurrent: float [3H, inputs] and [3H, H], of the input and of the hidden state.
        bias: float [3H].
        inner: float [H], the bias of the candidate's recurrent part.
    """

    def __init__(self, inputs: int, width: int | None = None) -> None:
        super().__init__()
        width = width or inputs
        cell = nn.GRUCell(inputs, width)
        for gate in cell.weight_hh.data.chunk(3):
            nn.init.orthogonal_(gate)
        self.weight, self.recurrent, self.bias = cell.weight_ih, cell.weight_hh, cell.bias_ih
        self.inner = nn.Parameter(cell.bias_hh.data[-width:].clone())


class GRU(Core):
    """Layers of gated recurrent units. State: float [n, layers, width]."""

    recipe: ClassVar[dict[str, Any]] = {"optimizer": {"learning_rate": 3e-3}}
    parallel: ClassVar[bool] = True

    def __init__(self, width: int, layers: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GRULayer(width) for _ in range(layers))

    def initial_state(self, summary: Tensor, context: Tensor | None) -> Tensor:
        return squash(summary)[:, None].expand(-1, len(self.layers), -1)

    def input_table(self, embeddings: Tensor, always: int) -> Tensor:
        """The embeddings times the first layer's input weight: float [R, 3 width]."""
        first = self.layer(0)
        table = embeddings @ first.weight.t()
        return torch.cat([table[:always] + first.bias, table[always:]])

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        first = self.layer(0)
        return self.read(x @ first.weight.t() + first.bias, None, state, None)

    def read(
        self, table: Tensor, rows: InputRows | None, state: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inputs, hidden, last = table, table, []
        for i in range(len(self.layers)):
            layer = self.layer(i)
            if i:
                inputs, rows = hidden @ layer.weight.t() + layer.bias, None
            hidden = gru(inputs, rows, state[:, i], layer.recurrent, layer.inner, lengths)
            last.append(hidden[-1])
        return hidden, torch.stack(last, 1)

    def layer(self, index: int) -> GRULayer:
        """A layer, typed."""
        return cast(GRULayer, self.layers[index])
