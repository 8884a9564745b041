"""Programs of solved problems, edited at random while they are played on other problems."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.discovery.procedures import PAD, Episodes, Symbols, lengths

EDITS = 1.5  # of a program, on average
# Shares of the kinds of edits: put new symbols in; put one in the place of another; leave one or two out; go on with a
# piece of another procedure; go on with new symbols to the end.
KINDS = torch.tensor([0.3, 0.2, 0.15, 0.15, 0.2])
INSERT, REPLACE, DELETE, SPLICE, FINISH = range(5)
LONGEST = 3  # new symbols that are put in at once


@dataclass
class Played:
    """Episodes that succeeded.

    Attributes:
        rows: int64 [k], of the problems.
        procedures, programs: int64 [k, horizon], the symbols and the actions that had an effect.
        steps: actions of all episodes.
    """

    rows: Tensor
    procedures: Tensor
    programs: Tensor
    steps: int


@torch.no_grad()
def play_varied(
    task: AnyTask, parents: Tensor, problems: Problems, weights: Tensor, generator: torch.Generator
) -> Played:
    """Play an edited procedure on each problem.

    A symbol without effect is not written, and a new one in its place is drawn again: so new symbols follow the grammar
    of the tools without knowing it.

    Args:
        task: answers.
        parents: int64 [n, horizon]; the procedure of the row before is the one that pieces are taken from. A row
            without symbols: new symbols only.
        problems: n of them.
        weights: float [Symbols.count], how new symbols are drawn.
        generator: all chance comes from it.
    """
    n, horizon = parents.shape
    episodes = Episodes(task, problems, False)
    both = torch.full((n, 2, horizon + 1), PAD)
    both[:, 0, :horizon], both[:, 1, :horizon] = parents, parents.roll(1, 0)
    source, length = both.flatten(1), lengths(parents)
    other = length.roll(1)
    rate = EDITS / length.clamp_min(1)
    pointer, fresh, count, steps = (torch.zeros(n, dtype=torch.int64) for _ in range(4))
    procedures = torch.full((n, horizon + 1), PAD)
    programs = torch.full((n, horizon + 1), task.spec.end)
    success = torch.zeros(n, dtype=torch.bool)
    for _ in range(2 * horizon):
        running = ~episodes.state.done & (count < horizon)
        if not bool(running.any()):
            break
        chance, amount, place = torch.rand(3, n, generator=generator)
        kind = torch.multinomial(KINDS, n, replacement=True, generator=generator)
        edited = (fresh == 0) & (chance < rate)
        insert, replace, delete = (edited & (kind == each) for each in (INSERT, REPLACE, DELETE))
        splice, finish = (edited & (kind == each) for each in (SPLICE, FINISH))
        pointer = pointer + replace.long() + delete * (1 + (amount < 0.3).long())
        pointer = torch.where(splice, horizon + 1 + (place * other).long(), pointer).clamp_max(2 * horizon + 1)
        fresh = torch.where(insert, 1 + (amount * LONGEST).long(), fresh + replace.long())
        follows = source.gather(1, pointer[:, None])[:, 0]
        fresh = torch.where(finish | ((fresh == 0) & (follows == PAD)), 2 * horizon, fresh)
        drawn = torch.multinomial(weights, n, replacement=True, generator=generator)
        is_fresh = fresh > 0
        symbol = torch.where(is_fresh, drawn, follows)
        token = episodes.written(symbol)
        step = episodes.press(token)
        effective = running & ~step.invalid
        at = torch.where(effective, count, horizon)[:, None]
        procedures.scatter_(1, at, symbol[:, None])
        programs.scatter_(1, at, token[:, None])
        count, steps = count + effective.long(), steps + running.long()
        success |= running & step.success
        pointer = pointer + (~is_fresh).long()
        fresh = fresh - (is_fresh & effective).long()
    rows = success.nonzero()[:, 0]
    return Played(rows, procedures[rows, :horizon], programs[rows, :horizon], int(steps.sum()))


def lift(task: AnyTask, programs: Tensor, context: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Programs as procedures: what stands in the problem is copied, from any of the places that have the token.

    Args:
        task: its symbols.
        programs: int64 [n, horizon], padded with `end`.
        context: int64 [n, C].
        weights: float [Symbols.count]; places whose weight is 0 are not copied from.
        generator: chooses among the places.
    """
    symbols = Symbols(task.spec)
    same = (programs[:, :, None] == context[:, None, :]) & (weights[symbols.tokens : symbols.shown] > 0)
    place = (torch.rand(same.shape, generator=generator) * same).argmax(2) + symbols.tokens
    return torch.where(programs == task.spec.end, PAD, torch.where(same.any(2), place, programs))
