"""The contract of every policy, and how one is put together: embeddings, a core, heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from modelnative import native
from modelnative.errors import choose
from modelnative.policies.config import CORES, READERS, CoreName, PolicyConfig
from modelnative.policies.cores import GRU, Memoryless, MinGRU, Transformer
from modelnative.policies.heads import Heads
from modelnative.policies.reader import Reader
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import TaskSpec


@dataclass
class PolicyState(Batch):
    """What a policy carries from token to token in n episodes; replace `memory` to probe or to lesion.

    Attributes:
        memory: float [n, ...], the core's.
        context: int64 [n, C], read once.
        stage: int64 [n].
        keys: float [n, C, …], what it pointed out in the context while reading; of no size where it only sums.
    """

    memory: Tensor
    context: Tensor
    stage: Tensor
    keys: Tensor


@dataclass
class Thought:
    """What a policy says before some tokens; the leading dimensions are those of the tokens asked about.

    Attributes:
        log_probs: float [..., V] of the next token.
        value: float [...], the expected return.
        hidden: float [..., width], the core's output.
        copied: float [..., C], the probability that the next token is copied from each context position.
    """

    log_probs: Tensor
    value: Tensor
    hidden: Tensor
    copied: Tensor

    def split(self, parts: int) -> list[Thought]:
        """So many equal parts of the first dimension."""
        columns = (self.log_probs, self.value, self.hidden, self.copied)
        return [Thought(*own) for own in zip(*(x.tensor_split(parts) for x in columns), strict=True)]


class Policy(nn.Module):
    """One network that reads a problem and writes tokens.

    The input at t is the sum of the embeddings of the previous token, of every place of the feedback to it that is not
    blank, and of the stage. The context is read once, in `begin`.

    Args:
        spec: the task's.
        core: see `CORES`.
        config: its shape.

    Raises:
        UserError: there is no such core or reader.
    """

    packs = True  # rows can be taken out of a batch
    places: Tensor
    positions: Tensor

    def __init__(self, spec: TaskSpec, core: CoreName | str = "gru", config: PolicyConfig | None = None) -> None:
        super().__init__()
        config = config or PolicyConfig()
        self.spec = spec
        self.stage_aware = config.stage_aware
        width, vocabulary = config.width, len(spec.vocabulary)
        # One table for all that is summed: tokens, then stages, then the tokens at each place of the feedback.
        places = vocabulary + len(spec.stages) + vocabulary * torch.arange(spec.feedback_width)
        self.input = nn.Embedding(vocabulary + len(spec.stages) + vocabulary * max(1, spec.feedback_width), width)
        choose("policy.reader", config.reader, READERS)
        self.reads = config.reader == "gru"
        self.context: Reader | nn.Embedding
        if self.reads:
            self.context = Reader(vocabulary, width, spec.end)
        else:
            self.context = nn.Embedding(spec.context_length * vocabulary, width)
            nn.init.normal_(self.context.weight, std=1 / math.sqrt(width))
        nn.init.normal_(self.input.weight, std=1 / math.sqrt(width))
        self.blank = vocabulary + len(spec.stages) + spec.end  # a row that nothing else needs
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("positions", vocabulary * torch.arange(spec.context_length), persistent=False)
        self.core = _make_core(spec, core, config)
        self.heads = Heads(width, vocabulary, spec.context_length, spec.end, config.copy_head, self.reads)

    def begin(self, context: Tensor, stage: Tensor) -> PolicyState:
        """Read the problems: context int64 [n, C], stage int64 [n]."""
        read, keys = None, self.input.weight.new_empty(len(context), 0)
        if isinstance(self.context, Reader):
            read, summary = self.context(context)
            keys = self.heads.keys(read) if self.heads.points else keys
        else:
            rows = context + self.positions
            read = self.context(rows) if self.core.attends else None
            total = embedding_bag(rows, self.context.weight, mode="sum") if read is None else read.sum(1)
            summary = total / math.sqrt(rows.shape[1])
        if self.stage_aware:
            summary = summary + self.input.weight.index_select(0, stage + len(self.spec.vocabulary))
        return PolicyState(self.core.begin(read, summary), context, stage, keys)

    def step(self, token: Tensor, feedback: Tensor, state: PolicyState) -> tuple[Thought, PolicyState]:
        """Think once: the previous token int64 [n] and the feedback to it int64 [n, F]."""
        return self.think(token, feedback, state, [len(token)])

    def unroll(self, tokens: Tensor, feedback: Tensor, state: PolicyState) -> tuple[Thought, PolicyState]:
        """Think T times over given tokens int64 [T, n] and feedback int64 [T, n, F], in one pass."""
        steps, n = tokens.shape
        thought, state = self.think(tokens.flatten(), feedback.flatten(0, 1), state, [n] * steps)
        parts = (thought.log_probs, thought.value, thought.hidden, thought.copied)
        return Thought(*(part.unflatten(0, (steps, n)) for part in parts)), state

    def think(
        self, token: Tensor, feedback: Tensor, state: PolicyState, sizes: Sequence[int], heed: Tensor | None = None
    ) -> tuple[Thought, PolicyState]:
        """Think over packed tokens, as a core has them: what `step` and `unroll` are made of.

        Args:
            token: int64 [N], the previous tokens, packed.
            feedback: int64 [N, F], the feedback to them.
            state: of n = sizes[0] episodes, before the first of them.
            sizes: rows of each step; their sum is N.
            heed: int64 [M], at which of the N a thought is wanted; None for all.

        Returns:
            The M thoughts; and the state after the last step, of `sizes[-1]` episodes.
        """
        hidden, episode, after = self._recur(token, feedback, state, sizes)
        if heed is not None:
            hidden, episode = hidden.index_select(0, heed), heed if episode is None else episode.index_select(0, heed)
        context, keys = state.context, state.keys
        if episode is not None:
            context, keys = context.index_select(0, episode), keys.index_select(0, episode)
        log_probs, value, copied = self.heads(hidden, context, keys)
        return Thought(log_probs, value, hidden, copied), after

    def weigh(
        self,
        token: Tensor,
        feedback: Tensor,
        state: PolicyState,
        sizes: Sequence[int],
        heed: Tensor | None = None,
        table: Tensor | None = None,
        where: Tensor | None = None,
    ) -> tuple[native.Choices, PolicyState]:
        """As `think`, up to what the native kernels do: they choose actions from it, and judge it. Where `weighs`.

        `table` is what `table()` gives, for those who think often without learning in between; `where`, int64 [N], says
        which rows of `token` and `feedback` are meant.
        """
        hidden, episode, after = self._recur(token, feedback, state, sizes, table, where)
        if heed is not None:
            episode = heed if episode is None else episode.index_select(0, heed)
        return self.heads.weigh(hidden, state.context, heed, episode), after

    @property
    def weighs(self) -> bool:
        """Whether there are native kernels for this policy."""
        return not self.reads and native.fits(self.heads.out.in_features, self.input.weight)

    def table(self) -> Tensor:
        """The rows that inputs are sums of, as the core takes them."""
        return self.core.project(self.input.weight, len(self.spec.vocabulary))

    def _recur(
        self,
        token: Tensor,
        feedback: Tensor,
        state: PolicyState,
        sizes: Sequence[int],
        table: Tensor | None = None,
        where: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, PolicyState]:
        """Hidden states float [N, width], whose they are int64 [N] (None for one step's rows in order), the state."""
        episode = None
        if len(sizes) > 1:
            places = torch.arange(sizes[0], device=token.device)
            episode = torch.cat([places[:size] for size in sizes])
        table = self.table() if table is None else table
        if isinstance(self.core, GRU) and native.fits(self.core.width, table, state.memory):
            inputs = self.inputs(token, feedback, state.stage, where)
            hidden, memory = self.core.sums(inputs, table, state.memory, sizes)
        else:
            if where is not None:
                token, feedback = token.index_select(0, where), feedback.index_select(0, where)
            stage = state.stage if episode is None else state.stage.index_select(0, episode)
            x = embedding_bag(self.rows(token, feedback, stage), table, mode="sum", padding_idx=self.blank)
            hidden, memory = self.core(x, state.memory, sizes)
        return hidden, episode, PolicyState(memory, *(x[: sizes[-1]] for x in (state.context, state.stage, state.keys)))

    def inputs(self, token: Tensor, feedback: Tensor, stage: Tensor, where: Tensor | None = None) -> native.Inputs:
        """What `rows` says, for the native kernels."""
        spec, own = self.spec, stage if self.stage_aware else None
        return native.Inputs(token, feedback, own, len(spec.vocabulary), len(spec.stages), spec.end, where)

    def rows(self, token: Tensor, feedback: Tensor, stage: Tensor) -> Tensor:
        """Which rows of the input table each of N inputs is the sum of: int64 [N, K]; `blank` counts as zero."""
        rows = [token[:, None]]
        if self.stage_aware:
            rows.append(stage[:, None] + len(self.spec.vocabulary))
        if self.spec.feedback_width:
            rows.append(torch.where(feedback == self.spec.end, self.blank, feedback + self.places))
        return torch.cat(rows, 1)


def _make_core(spec: TaskSpec, core: str, config: PolicyConfig) -> GRU | MinGRU | Memoryless | Transformer:
    choose("core", core, CORES)
    if core in ("gru", "tutorial-gru"):
        return GRU(config.width, config.layers or 1)
    if core == "mingru":
        return MinGRU(config.width, config.layers or 2)
    if core == "memoryless":
        return Memoryless(config.width, config.layers or 2)
    return Transformer(config.width, config.layers or 2, config.heads, spec.context_length, spec.horizon)
