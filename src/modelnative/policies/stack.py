"""Several networks of one shape, each on its own episodes, as one computation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding, embedding_bag

from modelnative import native
from modelnative.errors import UserError
from modelnative.policies.cores import GRU
from modelnative.policies.policy import Policy, PolicyState, Thought
from modelnative.policies.recurrence import gru, gru_of


class Stack:
    """What `Policy` is to one network this is to S of them.

    A batch is S blocks of the same number of rows, one after the other; each network sees its own block. Small
    matrices of several networks fill the cores, and the machine's attention is paid for once.

    Args:
        policies: S of them, with a gru and of one shape. Their weights are copied.

    Attributes:
        weights: float [S, ...], by the names of the policies' parameters; leaves of the graph.

    Raises:
        UserError: their core is not a gru.
    """

    packs = False  # finished rows cannot be taken out, as the blocks would no longer be of one length

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.one, self.size = policies[0], len(policies)
        if not isinstance(self.one.core, GRU):
            raise UserError("core: only networks with a gru can be trained as one batch; expected gru")
        if self.one.reads:
            raise UserError("policy.reader: only networks that sum can be trained as one batch; expected sum")
        self.core = self.one.core
        parameters = [dict(policy.named_parameters()) for policy in policies]
        self.weights = {
            name: torch.stack([of[name].detach() for of in parameters]).requires_grad_() for name in parameters[0]
        }

    def begin(self, context: Tensor, stage: Tensor) -> PolicyState:
        """As `Policy.begin`: context int64 [S * n, C], stage int64 [S * n]."""
        read = self._look_up("context.weight", context + self.one.positions)
        summary = read.sum(1) / math.sqrt(read.shape[1])
        if self.one.stage_aware:
            summary = summary + self._look_up("input.weight", stage + len(self.one.spec.vocabulary))
        return PolicyState(self.core.begin(read, summary), context, stage, summary[:, :0])

    def think(
        self, token: Tensor, feedback: Tensor, state: PolicyState, sizes: Sequence[int], heed: Tensor | None = None
    ) -> tuple[Thought, PolicyState]:
        """As `Policy.think`; each block is packed, `sizes` are those of all blocks together.

        `heed` is int64 [S, M]: at which of the tokens of its block each network is asked.
        """
        networks, weights = self.size, self.weights
        own, episode = self._places(sizes, token.device)
        stage, context = (x.unflatten(0, (networks, -1)) for x in (state.stage, state.context))
        rows = self.one.rows(token, feedback, stage[:, episode].flatten())
        table = self.table()
        place = self._block(len(rows), table.shape[1], rows.device)[:, None]
        rows = torch.where(rows == self.one.blank, self.one.blank, rows + place)
        x = embedding_bag(rows, table.flatten(0, 1), mode="sum", padding_idx=self.one.blank)
        hidden, after = x.unflatten(0, (networks, -1)), []
        for i, h0 in enumerate(state.memory.unbind(1)):
            layer = self._layer(i)
            if i:
                hidden = torch.baddbmm(layer["bias"][:, None], hidden, layer["weight"].transpose(1, 2))
            h0 = h0.unflatten(0, (networks, -1))
            hidden = gru(hidden, h0, layer["recurrent"], layer["inner"], own)
            after.append(hidden[:, hidden.shape[1] - own[-1] :].flatten(0, 1))
        whose = episode.expand(networks, -1)
        if heed is not None:
            hidden = hidden.gather(1, heed[..., None].expand(-1, -1, hidden.shape[2]))
            whose = whose.gather(1, heed)
        read = context.gather(1, whose[..., None].expand(-1, -1, context.shape[2])).flatten(0, 1)
        out = torch.baddbmm(weights["heads.out.bias"][:, None], hidden, weights["heads.out.weight"].transpose(1, 2))
        log_probs, value, copied = self.one.heads.read(out.flatten(0, 1), read)
        return Thought(log_probs, value, hidden.flatten(0, 1), copied), self._after(after, state, own[-1])

    def weigh(
        self,
        token: Tensor,
        feedback: Tensor,
        state: PolicyState,
        sizes: Sequence[int],
        heed: Tensor | None = None,
        table: Tensor | None = None,
    ) -> tuple[list[native.Choices], PolicyState]:
        """As `Policy.weigh`, the choices of each network; the arguments are those of `think`."""
        own, episode = self._places(sizes, token.device)
        after: list[list[Tensor]] = [[] for _ in self.core.layers]
        columns = (token, feedback, state.memory, state.context, state.stage)
        blocks = [x.unflatten(0, (self.size, -1)).unbind(0) for x in columns]
        layers = [{name: x.unbind(0) for name, x in self._layer(i).items()} for i in range(len(after))]
        heads = zip(self.weights["heads.out.weight"].unbind(0), self.weights["heads.out.bias"].unbind(0), strict=True)
        tables = (self.table() if table is None else table).unbind(0)
        said = []
        for s, (rows, shown, memory, context, stage) in enumerate(zip(*blocks, strict=True)):
            inputs = self.one.inputs(rows, shown, stage)
            hidden = tables[s]
            for i, layer in enumerate(layers):
                h0, weight, inner = memory[:, i], layer["recurrent"][s], layer["inner"][s]
                if i:
                    gates = torch.addmm(layer["bias"][s], hidden, layer["weight"][s].t())
                    hidden = gru(gates[None], h0[None], weight[None], inner[None], own)[0]
                else:
                    hidden = gru_of(inputs, tables[s], h0, weight, inner, own)
                after[i].append(hidden[len(hidden) - own[-1] :])
            asked = None if heed is None else heed[s]
            whose = episode if asked is None else episode.index_select(0, asked)
            weight, bias = next(heads)
            reads = None if len(sizes) == 1 and asked is None else whose
            ends = (len(self.one.spec.vocabulary), self.one.spec.end)
            said.append(native.Choices(hidden, weight, bias, context, asked, reads, *ends))
        return said, self._after([torch.cat(layer) for layer in after], state, own[-1])

    @property
    def weighs(self) -> bool:
        """As of `Policy`."""
        return self.one.weighs

    def table(self) -> Tensor:
        """As of `Policy`: float [S, R, 3 width]."""
        layer, ever = self._layer(0), len(self.one.spec.vocabulary)
        table = self.weights["input.weight"] @ layer["weight"].transpose(1, 2)
        return torch.cat([table[:, :ever] + layer["bias"][:, None], table[:, ever:]], 1)

    def gradients(self, loss: Tensor) -> list[list[Tensor]]:
        """The gradient of every parameter of every policy, of a loss that is a sum over the policies."""
        gradients = torch.autograd.grad(loss, list(self.weights.values()), materialize_grads=True)
        return [list(own) for own in zip(*(gradient.unbind(0) for gradient in gradients), strict=True)]

    def _places(self, sizes: Sequence[int], device: torch.device) -> tuple[list[int], Tensor]:
        """The sizes of one block; and whose each of its tokens is, int64 [N]."""
        own = [size // self.size for size in sizes]
        return own, torch.cat([torch.arange(size, device=device) for size in own])

    def _layer(self, i: int) -> dict[str, Tensor]:
        return {name: self.weights[f"core.layers.{i}.{name}"] for name in ("weight", "bias", "recurrent", "inner")}

    def _after(self, memory: list[Tensor], state: PolicyState, left: int) -> PolicyState:
        episodes = len(state.stage) // self.size
        rest = (x.unflatten(0, (self.size, episodes)) for x in (state.context, state.stage, state.keys))
        return PolicyState(torch.stack(memory, 1), *(x[:, :left].flatten(0, 1) for x in rest))

    def _look_up(self, name: str, rows: Tensor) -> Tensor:
        table = self.weights[name]
        place = self._block(len(rows), table.shape[1], rows.device).view(-1, *[1] * (rows.dim() - 1))
        return embedding(rows + place, table.flatten(0, 1))

    def _block(self, n: int, rows: int, device: torch.device) -> Tensor:
        """Where each of n inputs finds its own network's table of so many rows: int64 [n]."""
        return (torch.arange(self.size, device=device) * rows).repeat_interleave(n // self.size)
