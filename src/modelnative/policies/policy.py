"""The policy that is shipped: embeddings, a core, heads."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.errors import choose
from modelnative.policies.config import READERS, PolicyConfig
from modelnative.policies.contract import Policy, PolicyOutput, select_rows
from modelnative.policies.core import Core, InputRows, sum_rows
from modelnative.policies.cores.gru import GRU, GRULayer
from modelnative.policies.heads import Heads
from modelnative.policies.reader import Reader
from modelnative.tasks.contract.task import Problems, TaskSpec

METHODS = frozenset({"forward", "forward_rollout", "initial_state", "input_table", "read"})
NO_ACTION = -30.0  # the initial bias of the logit of a token that is no action


@dataclass
class TokenState:
    """What `TokenPolicy` carries from token to token in n episodes. Replace `core` to probe or to lesion.

    Attributes:
        core: the core's state, the batch first.
        context, stage: int64 [n, C] and [n], of the problems.
        keys: float [n, C, K], what the copy head compares its query with; K = 0 if it has none.
        table: float [R, ...], what inputs are sums of, shared by all rows; of the parameters at the episodes' start.
    """

    core: Any
    context: Tensor
    stage: Tensor
    keys: Tensor
    table: Tensor

    def select_rows(self, rows: Tensor) -> TokenState:
        """Some of the episodes, int64 [m]."""
        core, context, stage, keys = select_rows((self.core, self.context, self.stage, self.keys), rows)
        return TokenState(core, context, stage, keys, self.table)


class TokenPolicy(Policy):
    """One network that reads a problem and writes tokens.

    The input at t is the sum of the embeddings of the previous token, of every place of its feedback that is not blank,
    and of the stage. The context is read once, in `initial_state`.

    Args:
        spec: the task's.
        config: the shape of the network.
        core: the class of what carries information from token to token.

    Raises:
        UserError: there is no such reader.
    """

    positions: Tensor

    def __init__(self, spec: TaskSpec, config: PolicyConfig | None = None, core: type[Core] = GRU) -> None:
        super().__init__()
        config = config or PolicyConfig()
        choose("policy.reader", config.reader, READERS)
        self.spec = spec
        self.stage_aware = config.stage_aware
        width, vocabulary = config.width, len(spec.vocabulary)
        # One table for all that is summed: tokens, then stages, then the tokens at each place of the feedback.
        self.first_place = vocabulary + len(spec.stages)
        self.input = nn.Embedding(self.first_place + vocabulary * max(1, spec.feedback_width), width)
        self.context: Reader | nn.Embedding
        if config.reader == "gru":
            self.context = Reader(vocabulary, width, spec.end)
        else:
            self.context = nn.Embedding(spec.context_length * vocabulary, width)
            nn.init.normal_(self.context.weight, std=1 / math.sqrt(width))
        nn.init.normal_(self.input.weight, std=1 / math.sqrt(width))
        self.register_buffer("positions", vocabulary * torch.arange(spec.context_length), persistent=False)
        self.core = core.build(spec, config)
        self.parallel = core.parallel
        query = config.reader == "gru"
        self.heads = Heads(width, vocabulary, spec.context_length, spec.end, config.copy_head, query)
        with torch.no_grad():  # a token that is no action keeps a probability that no gradient comes from
            self.heads.out.bias[spec.action_count : vocabulary] = NO_ACTION

    def initial_state(self, problems: Problems) -> TokenState:
        """Read the problems."""
        context, stage = problems.context, problems.stage
        keys = self.input.weight.new_empty(*context.shape, 0)
        read = None
        if isinstance(self.context, Reader):
            read, summary = self.context(context)
            keys = self.heads.keys(read) if self.heads.query else keys
        else:
            rows = context + self.positions
            read = self.context(rows) if self.core.reads_context else None
            total = sum_rows(rows, self.context.weight) if read is None else read.sum(1)
            summary = total / math.sqrt(rows.shape[1])
        if self.stage_aware:
            summary = summary + self.input.weight.index_select(0, stage + len(self.spec.vocabulary))
        table = self.core.input_table(self.input.weight, always=len(self.spec.vocabulary))
        return TokenState(self.core.initial_state(summary, read), context, stage, keys, table)

    def one_gru(self) -> tuple[list[Tensor], list[int]] | None:
        """Parameters and sizes, if this is the plain network with a GRU of one layer and nothing changed, else None.

        In the order of `parameters()`; then the rows of `input`, width, vocabulary, context length, first row of the
        feedback, padding token, places of the feedback, and whether there is an embedding of the stage and a copy head.
        """
        core, heads, spec = self.core, self.heads, self.spec
        context: Any = self.context
        if type(self) is not TokenPolicy or type(core) is not GRU or type(heads) is not Heads or heads.query:
            return None
        layer, out = core.layer(0), heads.out
        parts = {self.input: nn.Embedding, context: nn.Embedding, layer: GRULayer, out: nn.Linear}
        if len(core.layers) != 1 or any(type(part) is not kind for part, kind in parts.items()):
            return None
        for part in (self, core, heads, *parts):  # each as its class has it
            if part._forward_hooks or part._forward_pre_hooks or not METHODS.isdisjoint(vars(part)):
                return None
        recurrent = (layer.weight, layer.recurrent, layer.bias, layer.inner)
        copies = out.out_features > len(spec.vocabulary) + 1
        sizes = (len(spec.vocabulary), spec.context_length, self.first_place, spec.end, spec.feedback_width)
        numbers = [*self.input.weight.shape, *sizes, int(self.stage_aware), int(copies)]
        return [self.input.weight, context.weight, *recurrent, out.weight, out.bias], numbers

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return {"context": ("context", "stage", "keys"), "hidden state": ("core",)}

    def forward(self, tokens: Tensor, feedback: Tensor, state: TokenState) -> PolicyOutput:
        hidden, after = self._read(tokens, feedback, state)
        log_probs, value, copied = self.heads(hidden.flatten(0, 1), state.context, state.keys)
        steps = tokens.shape
        logits, copied = log_probs.view(*steps, -1), copied.view(*steps, copied.shape[1])
        return PolicyOutput(logits, value.view(steps), replace(state, core=after), hidden, copied)

    def forward_rollout(
        self, problems: Problems, tokens: Tensor, feedback: Tensor, lengths: Tensor | None, selected: Tensor | None
    ) -> PolicyOutput:
        state = self.initial_state(problems)
        hidden = self._read(tokens, feedback, state, lengths)[0].flatten(0, 1)
        log_probs, value, copied = self.heads(hidden, state.context, state.keys, selected)
        return PolicyOutput(log_probs, value, copied=copied)

    def _read(
        self, tokens: Tensor, feedback: Tensor, state: TokenState, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Hidden states float [T, n, width], and the core's state after the last."""
        vocabulary, end = len(self.spec.vocabulary), self.spec.end
        stage = state.stage + vocabulary if self.stage_aware else None
        shown = feedback if self.spec.feedback_width else None
        rows = InputRows(tokens, stage, shown, self.first_place, vocabulary, end)
        return self.core.read(state.table, rows, state.core, lengths)
