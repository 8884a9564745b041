"""The contract of every policy, and how one is put together: embeddings, a core, heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from modelnative.errors import choose
from modelnative.policies.config import CORES, CoreName, PolicyConfig
from modelnative.policies.cores import GRU, Memoryless, MinGRU, Transformer
from modelnative.policies.heads import Heads
from modelnative.tasks.batch import Batch
from modelnative.tasks.task import TaskSpec


@dataclass
class PolicyState(Batch):
    """What a policy carries from token to token in n episodes; replace `memory` to probe or to lesion.

    Attributes:
        memory: float [n, ...], the core's.
        context: int64 [n, C], read once.
        stage: int64 [n].
    """

    memory: Tensor
    context: Tensor
    stage: Tensor


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


class Policy(nn.Module):
    """One network that reads a problem and writes tokens.

    The input at t is the sum of the embeddings of the previous token, of every place of the feedback to it that is not
    blank, and of the stage. The context is read once, in `begin`.

    Args:
        spec: the task's.
        core: see `CORES`.
        config: its shape.

    Raises:
        UserError: there is no such core.
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
        self.context = nn.Embedding(spec.context_length * vocabulary, width)
        for table in (self.input, self.context):
            nn.init.normal_(table.weight, std=1 / math.sqrt(width))
        self.blank = vocabulary + len(spec.stages) + spec.end  # a row that nothing else needs
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("positions", vocabulary * torch.arange(spec.context_length), persistent=False)
        self.core = _make_core(spec, core, config)
        self.heads = Heads(width, vocabulary, spec.context_length, spec.end, config.copy)

    def begin(self, context: Tensor, stage: Tensor) -> PolicyState:
        """Read the problems: context int64 [n, C], stage int64 [n]."""
        read = self.context(context + self.positions)
        summary = read.sum(1) / math.sqrt(read.shape[1])
        if self.stage_aware:
            summary = summary + self.input(stage + len(self.spec.vocabulary))
        return PolicyState(self.core.begin(read, summary), context, stage)

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
        stage, context = state.stage, state.context
        episode = torch.arange(len(stage), device=stage.device)
        if len(sizes) > 1:
            episode = torch.cat([episode[:size] for size in sizes])
            stage = stage.index_select(0, episode)
        table = self.core.project(self.input.weight, len(self.spec.vocabulary))
        x = embedding_bag(self.rows(token, feedback, stage), table, mode="sum", padding_idx=self.blank)
        hidden, memory = self.core(x, state.memory, sizes)
        if heed is not None:
            hidden, episode = hidden.index_select(0, heed), episode.index_select(0, heed)
        if len(sizes) > 1 or heed is not None:
            context = context.index_select(0, episode)
        log_probs, value, copied = self.heads(hidden, context)
        after = PolicyState(memory, state.context[: sizes[-1]], state.stage[: sizes[-1]])
        return Thought(log_probs, value, hidden, copied), after

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
