"""Short sequences of keys that lead the tools to new conditions, and procedures that begin with one.

Only that a condition is new is asked of it, not that it is good (novelty search, Lehman and Stanley, 2011; returning to
where something new was seen and going on from there, Ecoffet et al., 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.task import Problems
from modelnative.training.discovery.edits import Editor
from modelnative.training.discovery.procedures import PAD, Machines, distinct, first_of_each, lengths

LOOKED_AT = 8  # problems on which conditions are told apart
BREADTH = 20_000  # sequences of one length that are looked at, the likeliest ones
BATCHES = 64  # of procedures that begin with a macro of one length
WINNERS = 1024  # sequences of one length that solve some problem by themselves


@dataclass
class Level:
    """The sequences of one length that lead to conditions which no shorter one leads to.

    Attributes:
        macros: int64 [m, horizon], each a procedure of that length.
        log_weights: float [m], their log-probability as new symbols, the best 0.
        winners: int64 [w, horizon], sequences of that length that solve enough of the problems.
    """

    macros: Tensor
    log_weights: Tensor
    winners: Tensor

    @classmethod
    def without_macro(cls, horizon: int) -> Level:
        """One macro of no symbols."""
        empty = torch.full((1, horizon), PAD)
        return cls(empty, torch.zeros(1), empty[:0])


def explore(machines: Machines, editor: Editor, problems: Problems, some: bool = False) -> Iterator[Level]:
    """Sequences of one symbol, of two, and so on, until none leads to a new condition; breadth first.

    Args:
        machines: play the sequences.
        editor: knows the symbols.
        problems: of one stage.
        some: whether what solves any of the problems is a winner, and whether all that was shown on the way belongs to
            a condition. What solves some problems only may need results that one more key does not show.
    """
    looked_at, known = problems[:LOOKED_AT], editor.known
    problems, least = (problems, 1) if some else (looked_at, len(looked_at) // 2 + 1)
    last, seen = torch.full((1, editor.horizon), PAD), torch.empty(0, dtype=torch.int64)
    for length in range(1, editor.horizon + 1):
        macros = last.repeat_interleave(len(known), 0)
        macros[:, length - 1] = known.repeat(len(last))
        weights = editor.weights[macros[:, :length]].log().sum(1)
        rows = weights.argsort(descending=True, stable=True)[:BREADTH]
        macros, weights = macros[rows], weights[rows]
        condition, over = machines.conditions(macros, looked_at, history=some)
        success, idle = machines.play(macros, problems)
        solved = success.sum(1)
        best = solved.argsort(descending=True, stable=True)[:WINNERS]
        winners = macros[best[solved[best] >= least]]
        new = (~over & ~idle[:, length - 1] & ~torch.isin(condition, seen)).nonzero()[:, 0]
        new = new[first_of_each(condition[new])]
        if not len(new):
            if len(winners):
                yield Level(macros[:0], weights[:0], winners)
            return
        seen, last = torch.cat([seen, condition[new]]), macros[new]
        yield Level(last, weights[new] - weights[new].max(), winners)


def with_macro(editor: Editor, level: Level, known: Tensor, batch: int) -> Iterator[Tensor]:
    """Each macro of a level, followed by each neighbor of each known procedure (int64 [k, horizon]).

    The likeliest pairs come first, at most `batch` at a time.
    """
    if not len(known):
        return
    neighbors, weights = (torch.cat(parts) for parts in zip(*map(editor.neighbors, known), strict=True))
    macro_length, length = lengths(level.macros), lengths(neighbors)
    room = macro_length[:, None] + length <= editor.horizon
    total = torch.where(room, level.log_weights[:, None] + weights, -torch.inf).flatten()
    order = total.topk(min(int(room.sum()), BATCHES * batch)).indices
    for rows in order.split(batch):
        macro, neighbor = rows // len(neighbors), rows % len(neighbors)
        none = torch.zeros_like(rows)
        yield distinct(editor.spliced(neighbors[neighbor], none, none, level.macros[macro], macro_length[macro]))
