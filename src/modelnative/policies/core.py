"""What a core is to `TokenPolicy`: the part that carries information from one token to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from modelnative.policies.config import PolicyConfig
from modelnative.tasks.contract.task import TaskSpec


@dataclass
class InputRows:
    """Which rows of a table the inputs of T tokens of n episodes are the sums of.

    Attributes:
        tokens: int64 [T, n], one row of the table each.
        stage: int64 [n], one more row for all tokens of an episode; None for no such row.
        feedback: int64 [T, n, F]; place f adds the row `first_place + f * vocabulary + token`, unless the token is
            `blank`. None where there is no feedback.
        first_place, vocabulary, blank: as above.
    """

    tokens: Tensor
    stage: Tensor | None = None
    feedback: Tensor | None = None
    first_place: int = 0
    vocabulary: int = 0
    blank: int = 0

    def sum(self, table: Tensor) -> Tensor:
        """The sums of rows of a table: float [R, width] -> float [T, n, width]."""
        rows, padding = [self.tokens[..., None]], None
        if self.stage is not None:
            rows.append(self.stage.expand_as(self.tokens)[..., None])
        if self.feedback is not None:
            padding = self.first_place + self.blank  # a row that nothing else needs
            places = torch.arange(self.feedback.shape[2], device=self.feedback.device) * self.vocabulary
            places += self.first_place
            rows.append(torch.where(self.feedback == self.blank, padding, self.feedback + places))
        return sum_rows(torch.cat(rows, 2).flatten(0, 1), table, padding).unflatten(0, self.tokens.shape)


class Core(nn.Module):
    """The base class of cores. A core turns embeddings and a state into hidden states and the next state.

    The state is a tensor or a structure of tensors with the n episodes first, as in `Policy`. Row i of a result depends
    on row i of the arguments alone.

    Attributes:
        recipe: fields of `TrainConfig` that train this core well, as nested dictionaries; see `recipe`.
        parallel: as of `Policy`.
        default_layers: how many layers it has unless the configuration says otherwise.
        reads_context: whether `initial_state` is given the embeddings of the context, and not their sum alone.
    """

    recipe: ClassVar[dict[str, Any]] = {}
    parallel: ClassVar[bool] = False
    default_layers: ClassVar[int] = 1
    reads_context: ClassVar[bool] = False

    @classmethod
    def build(cls, spec: TaskSpec, config: PolicyConfig) -> Self:
        """A core for a task; by default `cls(width, layers)`."""
        return cls(config.width, config.layers or cls.default_layers)

    def initial_state(self, summary: Tensor, context: Tensor | None) -> Any:
        """The state before the first token.

        Args:
            summary: float [n, width], the sum of the context's embeddings, scaled, and of the stage's.
            context: float [n, C, width], the embeddings of the context; None unless `reads_context`.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Hidden states, float [T, n, width], of inputs x, float [T, n, width]; and the state after the last."""
        raise NotImplementedError

    def input_table(self, embeddings: Tensor, always: int) -> Tensor:
        """The table that inputs are sums of; by default the embeddings, float [R, width], themselves.

        A core whose first operation is linear can apply it here, to the table, instead of to every token. Every input
        has exactly one of the first `always` rows, so a bias may be added to these.
        """
        return embeddings

    def read(self, table: Tensor, rows: InputRows, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """As `forward`, of inputs that are sums of rows of a table.

        Args:
            table: float [R, ...], from `input_table`.
            rows: of T tokens of n episodes.
            lengths: int64 [n], the tokens of each sequence, where a core can save work by it; the state is then not
                returned. None: all have T.
        """
        return self(rows.sum(table), state)

    def attention(self, x: Tensor, state: Any) -> Tensor | None:
        """What inputs x, float [T, n, width], attend to; see `Policy.attention`. By default None: to nothing."""
        return None


def sum_rows(rows: Tensor, table: Tensor, padding: int | None = None) -> Tensor:
    """Sums of rows of a table: int64 [n, K], float [R, width] -> float [n, width]. The row `padding` counts as zero."""
    if torch.compiler.is_compiling():  # a program that was traced with `embedding_bag` would keep its n
        found = table[rows]
        return (found if padding is None else found * (rows != padding)[..., None]).sum(1)
    return embedding_bag(rows, table, mode="sum", padding_idx=padding)


def squash(summary: Tensor) -> Tensor:
    """tanh, computed as 2 sigmoid(2x) - 1, which is four times as fast on a CPU."""
    return 2 * (2 * summary).sigmoid() - 1
