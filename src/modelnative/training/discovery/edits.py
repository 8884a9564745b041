"""Random procedures, and random and systematic changes of known ones."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.discovery.procedures import PAD, Symbols, distinct, lengths

DATA = 0.1  # share of tokens that stand in problems among new symbols; keys and copies have half of the rest each
# Shares of the kinds of edits: replace one symbol, insert one, insert two, delete one or two, put in a piece of another
# procedure, repeat a piece of its own.
KINDS = torch.tensor([0.40, 0.15, 0.20, 0.10, 0.08, 0.07])
REPLACE, INSERT, INSERT_TWO, DELETE, SPLICE, REPEAT = range(6)
PIECE = 5  # the longest piece of another procedure
REDRAWN = 0.3  # share of the symbols of such a piece that are drawn anew


def symbol_weights(task: AnyTask, problems: Problems, copy_feedback: bool) -> Tensor:
    """How new symbols are drawn: float [Symbols.count], with sum 1.

    Tokens that stand in problems are data; the others are keys. A place of the context whose token is always the same
    is not copied.
    """
    spec, symbols, context = task.spec, Symbols(task.spec), problems.context
    data = torch.zeros(symbols.tokens, dtype=torch.bool)
    data[context.flatten()] = True
    data[task.feedback(task.begin(problems)).flatten()] = True
    never = torch.tensor([spec.start, spec.end])
    data[never] = True
    varies = (context != context[:1]).any(0) & (context != spec.end).any(0)
    shown = torch.full((symbols.count - symbols.shown,), copy_feedback)
    copies = torch.cat([varies, shown]).float()
    written = torch.where(data, DATA / data.sum(), (1 - DATA) / 2 / (~data).sum().clamp_min(1))
    written[never] = 0.0
    weights = torch.cat([written, (1 - DATA) / 2 * copies / copies.sum().clamp_min(1)])
    return weights / weights.sum()


class Editor:
    """Makes new procedures.

    Args:
        weights: float [Symbols.count], how new symbols are drawn.
        horizon: the most symbols of a procedure.
        generator: all chance comes from it.
    """

    def __init__(self, weights: Tensor, horizon: int, generator: torch.Generator) -> None:
        self.weights, self.horizon, self.generator = weights, horizon, generator
        self.known = (weights > 0).nonzero()[:, 0]
        self.time = torch.arange(horizon)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator)

    def new_symbols(self, n: int) -> Tensor:
        """int64 [n, horizon]."""
        drawn = torch.multinomial(self.weights, n * self.horizon, replacement=True, generator=self.generator)
        return drawn.view(n, self.horizon)

    def random(self, n: int) -> Tensor:
        """n procedures of at most half the horizon."""
        length = 1 + (self.uniform(n, 1) * (self.horizon // 2)).long()
        return torch.where(self.time < length, self.new_symbols(n), PAD)

    def edited(self, parents: Tensor, donors: Tensor, again: tuple[float, ...] = ()) -> Tensor:
        """Each parent with a random edit; a share `again[0]` of them with a second, `again[1]` with a third.

        Args:
            parents: int64 [n, horizon].
            donors: int64 [m, horizon], whose pieces may be put in.
        """
        children = self._edited(parents, donors)
        chance = self.uniform(len(children))
        for share in again:
            rows = (chance < share).nonzero()[:, 0]
            children[rows] = self._edited(children[rows], donors)
        return children

    def _edited(self, parents: Tensor, donors: Tensor) -> Tensor:
        n, length = len(parents), lengths(parents)
        kind = torch.multinomial(KINDS, n, replacement=True, generator=self.generator)
        splice, repeat = kind == SPLICE, kind == REPEAT
        # What is cut out, and where.
        one_or_two = 1 + (self.uniform(n) < 0.5).long()
        replaced = torch.where(self.uniform(n) < 0.3, (self.uniform(n) * PIECE).long(), 0)
        cut = _choose([kind == REPLACE, kind == DELETE, splice], [torch.ones_like(length), one_or_two, replaced])
        place = (self.uniform(n) * (length + 1 - (cut > 0).long().minimum(length))).long()
        cut = cut.minimum(length - place)
        # What is put in: new symbols, a piece of a donor, or a piece of its own where it ends.
        donor = donors[torch.randint(len(donors), (n,), generator=self.generator)]
        source = torch.where(repeat[:, None], parents, donor)
        left = lengths(source)
        begin = (self.uniform(n) * left).long()
        piece = 1 + (self.uniform(n) * torch.where(splice, PIECE, left - begin)).long()
        size = _choose(
            [(kind == REPLACE) | (kind == INSERT), kind == INSERT_TWO, splice | repeat],
            [torch.ones_like(length), torch.full_like(length, 2), piece.minimum(left - begin)],
        )
        place = torch.where(repeat, begin + size, place)
        padded = torch.cat([source, source.new_full((n, 1), PAD)], 1)
        taken = padded.gather(1, (begin[:, None] + self.time).clamp_max(self.horizon))
        kept = repeat[:, None] | (splice[:, None] & (self.uniform(n, self.horizon) > REDRAWN))
        return self.spliced(parents, place, cut, torch.where(kept, taken, self.new_symbols(n)), size)

    def spliced(self, parents: Tensor, place: Tensor, cut: Tensor, pieces: Tensor, size: Tensor) -> Tensor:
        """parent[:place] + piece[:size] + parent[place + cut:], as far as the horizon; all but the last [n]."""
        place, cut, size = place[:, None], cut[:, None], size[:, None]
        padded = torch.cat([parents, parents.new_full((len(parents), 1), PAD)], 1)
        source = torch.where(self.time < place, self.time, self.time - size + cut).clamp(0, self.horizon)
        piece = pieces.gather(1, (self.time - place).clamp(0, self.horizon - 1))
        return torch.where((self.time >= place) & (self.time < place + size), piece, padded.gather(1, source))

    def neighbors(self, procedure: Tensor) -> tuple[Tensor, Tensor]:
        """A procedure (int64 [horizon]) and all that one edit makes of it, with log-weights, the best of each kind 0.

        One symbol is replaced, inserted or deleted, or a piece is said twice.
        """
        n = int(lengths(procedure[None]))
        known, log_weights = self.known, self.weights[self.known].log()
        log_weights = log_weights - log_weights.max()
        made, weights = [procedure[None]], [torch.zeros(1)]

        def add(places: Tensor, cut: int, pieces: Tensor, size: Tensor, weight: Tensor) -> None:
            fits = n - cut + size <= self.horizon
            base = procedure.expand(len(places), -1)
            made.append(self.spliced(base, places, torch.full_like(places, cut), pieces, size)[fits])
            weights.append(weight[fits])

        for cut, places in ((1, n), (0, n + 1)):
            where = torch.arange(places).repeat_interleave(len(known))
            pieces = known.repeat(places)[:, None].expand(-1, self.horizon)
            add(where, cut, pieces, torch.ones_like(where), log_weights.repeat(places))
        where = torch.arange(n)
        add(where, 1, procedure.expand(n, -1), torch.zeros_like(where), torch.zeros(n))
        first, last = torch.combinations(torch.arange(n + 1), 2).unbind(1)
        shifted = procedure[(first[:, None] + self.time).clamp_max(self.horizon - 1)]
        add(last, 0, shifted, last - first, torch.zeros(len(first)))
        return torch.cat(made), torch.cat(weights)

    def shortened(self, procedure: Tensor) -> Tensor:
        """A procedure (int64 [horizon]) without one to six symbols in a row, all ways, the longest cuts first."""
        n = int(lengths(procedure[None]))
        where = torch.arange(n)
        none = torch.zeros_like(where)
        base = procedure.expand(n, -1)
        cuts = [self.spliced(base, where, (n - where).clamp_max(size), base, none) for size in range(6, 0, -1)]
        return distinct(torch.cat(cuts))


def _choose(conditions: list[Tensor], values: list[Tensor]) -> Tensor:
    """The value of the condition that holds, 0 where none does: each int64 [n]."""
    return sum((c * v for c, v in zip(conditions, values, strict=True)), torch.zeros_like(values[0]))
