"""The contract of every policy, and how one is put together: embeddings, a core, heads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelnative.errors import choose
from modelnative.policies.config import CORES, CoreName, PolicyConfig
from modelnative.policies.cores import GRU, MinGRU, Transformer
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
    """What a policy says before each token, over T steps of n episodes (without T from `step`).

    Attributes:
        log_probs: float [T, n, V] of the next token.
        value: float [T, n], the expected return.
        hidden: float [T, n, width], the core's output.
        copied: float [T, n, C], the probability that the next token is copied from each context position.
    """

    log_probs: Tensor
    value: Tensor
    hidden: Tensor
    copied: Tensor


class Policy(nn.Module):
    """One network that reads a problem and writes tokens.

    The input at t is the sum of the embeddings of the previous token, of every place of the feedback to it, and of
    the stage. The context is read once, in `begin`.

    Args:
        spec: the task's.
        core: see `CORES`.
        config: its shape.

    Raises:
        UserError: there is no such core.
    """

    places: Tensor
    positions: Tensor

    def __init__(self, spec: TaskSpec, core: CoreName | str = "gru", config: PolicyConfig | None = None) -> None:
        super().__init__()
        config = config or PolicyConfig()
        self.spec = spec
        width, vocabulary = config.width, len(spec.vocabulary)
        self.token = nn.Embedding(vocabulary, width)
        self.shown = nn.EmbeddingBag(max(1, spec.feedback_width) * vocabulary, width, mode="sum")
        self.stage = nn.Embedding(len(spec.stages), width) if config.stage_aware else None
        self.context = nn.Embedding(spec.context_length * vocabulary, width)
        for table in (self.token, self.shown, self.stage, self.context):
            if table is not None:
                nn.init.normal_(table.weight, std=1 / math.sqrt(width))
        self.register_buffer("places", vocabulary * torch.arange(spec.feedback_width), persistent=False)
        self.register_buffer("positions", vocabulary * torch.arange(spec.context_length), persistent=False)
        self.core = _make_core(spec, core, config)
        self.heads = Heads(width, vocabulary, spec.context_length, spec.end, config.copy)

    def begin(self, context: Tensor, stage: Tensor) -> PolicyState:
        """Read the problems: context int64 [n, C], stage int64 [n]."""
        read = self.context(context + self.positions)
        summary = read.sum(1) / math.sqrt(read.shape[1])
        if self.stage is not None:
            summary = summary + self.stage(stage)
        return PolicyState(self.core.begin(read, summary), context, stage)

    def step(self, token: Tensor, feedback: Tensor, state: PolicyState) -> tuple[Thought, PolicyState]:
        """Think once: the previous token int64 [n] and the feedback to it int64 [n, F]."""
        thought, state = self.unroll(token[None], feedback[None], state)
        return Thought(thought.log_probs[0], thought.value[0], thought.hidden[0], thought.copied[0]), state

    def unroll(self, tokens: Tensor, feedback: Tensor, state: PolicyState) -> tuple[Thought, PolicyState]:
        """Think T times over given tokens int64 [T, n] and feedback int64 [T, n, F], in one pass."""
        x = self.token(tokens)
        if self.spec.feedback_width:
            x = x + self.shown((feedback + self.places).flatten(0, 1)).view_as(x)
        if self.stage is not None:
            x = x + self.stage(state.stage)
        hidden, memory = self.core(x, state.memory)
        log_probs, value, copied = self.heads(hidden, state.context)
        return Thought(log_probs, value, hidden, copied), PolicyState(memory, state.context, state.stage)


def _make_core(spec: TaskSpec, core: str, config: PolicyConfig) -> GRU | MinGRU | Transformer:
    choose("core", core, CORES)
    if core in ("gru", "tutorial-gru"):
        return GRU(config.width, config.layers or 1)
    if core == "mingru":
        return MinGRU(config.width, config.layers or 2)
    return Transformer(config.width, config.layers or 2, config.heads, spec.context_length, spec.horizon)
