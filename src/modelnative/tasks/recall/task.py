"""Memory length: a cue is shown once, distractors follow, then the cue is to be typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.sampling import numbers_within
from modelnative.tasks.contract.task import Problems, Split, State, Step, Task, TaskSpec, in_split, mixed, require

LENGTHS = (1, 3, 10, 30, 100, 300, 1000)  # distractors of the stages, as far as the option goes
NAMES = "0123456789abcdefghijklmnopqrstuvwxyz"  # of the symbols
CUES = 1 << 16  # the most different cues
SEEDS = 1 << 32  # a seed is exact in every reader of JSON, and typed in ten digits
STRIDE = 1 << 10  # more than the longest length, so that no two seeds share a hashed number
LISTED = 1 << 16  # a stage with no more problems than this is listed
SHOWN = 12  # distractors that a person is shown


@dataclass
class RecallProblems(Problems):
    """Adds what is shown.

    Attributes:
        cue: int64 [n], its symbols read as the digits of one number, the first one counting most.
        seed: int64 [n], in [0, 2³²); the distractors come from it, see `Recall`.
    """

    cue: Tensor
    seed: Tensor


@dataclass
class Recalling(State):
    """An episode under way: a few numbers, however long it is.

    Attributes:
        cue: int64 [n], as in `RecallProblems`.
        number: int64 [n], 1024 · seed + t while distractor t is shown; its lower ten bits are t, 0 for the cue.
        time: int64 [n], minus the WAITs to come; then the symbols typed.
        typed: int64 [n], the symbols of the answer so far, read as one number.
    """

    cue: Tensor
    number: Tensor
    time: Tensor
    typed: Tensor


class Recall(Task[RecallProblems, Recalling]):
    """Remember a cue over L distractors, then type it: how long a memory lasts.

    This is the passive T-maze (Ni et al., 2023) with distractors; bsuite's memory length (Osband et al., 2020) has one
    bit. The feedback before the first key is the cue, which is never shown again. Every WAIT shows the next distractor:
    random symbols of the same alphabet, so that the cue must be kept from what follows. The WAIT after the last
    distractor shows GO; then the cue is to be typed.

    | key | before GO | after GO |
    |---|---|---|
    | WAIT | shows the next distractor, or GO | ends the episode without an answer |
    | a symbol | ends the episode without an answer | is typed; the last one ends the episode with the verdict |
    | CTX, GO, EOS | ends the episode without an answer | the same |

    So time passes by WAIT alone, and nobody can leave notes in what is typed. The one program that succeeds, and so the
    shortest, is L + 1 times WAIT and then the cue. The context is `CTX` and tells nothing.

    Distractor t, from 1 to L, of seed s is `mixed`(1024·s + t) mod symbols^width, written in `width` digits to the base
    `symbols`. `mixed` gives a signed number of 64 bits, and the rest of the division is not negative. What is shown
    makes the problem: where a stage is short enough to be listed, the seed is the smallest one with its distractors.

    Who always types the same cue after the WAITs is right one time in symbols^width, 12.5% by default. An agent without
    memory, and one that does not see the cue, can do no better. Always the same key is never right.

    Args:
        longest: distractors of the last stage, 1 to 1000; those before it have 1, 3, 10, 30, 100, 300.
        symbols: in the alphabet, 2 to 36.
        width: symbols of the cue and of each distractor; there may be 65,536 different cues at most.

    Example:
        >>> task = Recall(longest=3)
        >>> problem = task.parse(1, "5 17")
        >>> task.render(problem, 0)
        'the cue 5, 3 distractors: 6 6 1, GO; type the cue'
        >>> " ".join(task.spec.vocabulary[t] for t in task.oracle(problem)[0])
        'WAIT WAIT WAIT WAIT 5'
    """

    def __init__(self, longest: int = 100, symbols: int = 8, width: int = 1) -> None:
        require(1 <= longest <= LENGTHS[-1], "longest", longest, f"a length from 1 to {LENGTHS[-1]}")
        require(2 <= symbols <= len(NAMES), "symbols", symbols, f"a number from 2 to {len(NAMES)}")
        most = max(w for w in range(1, 17) if symbols**w <= CUES)
        require(1 <= width <= most, "width", width, f"a number from 1 to {most}, with {symbols} symbols")
        self.symbols = symbols
        self.width = width
        self.cues = symbols**width
        self.lengths = (*(length for length in LENGTHS if length < longest), longest)
        self.ctx, self.wait, self.go, self.eos = range(symbols, symbols + 4)
        self._tables: dict[torch.device, Tables] = {}
        self._seeds: dict[int, Tensor] = {}
        self._lists: dict[tuple[Split, torch.device], Lists] = {}
        self.spec = TaskSpec(
            name="recall",
            vocabulary=(*NAMES[:symbols], "CTX", "WAIT", "GO", "EOS"),
            stages=tuple(f"L{length}" for length in self.lengths),
            context_length=1,
            feedback_width=width,
            horizon=longest + 1 + width,
            start=self.ctx,
            end=self.eos,
        )

    def options(self) -> dict[str, Any]:
        return {"longest": self.lengths[-1], "symbols": self.symbols, "width": self.width}

    # Episodes

    def begin(self, problems: RecallProblems) -> Recalling:
        zero = torch.zeros_like(problems.stage)
        time = self.tables(zero.device).start.index_select(0, problems.stage)
        return Recalling(zero.bool(), problems.cue, problems.seed * STRIDE, time, zero)

    def step(self, state: Recalling, action: Tensor) -> Step[Recalling]:
        waiting, running = state.time < 0, ~state.done
        waits = waiting & running & (action == self.wait)
        types = ~waiting & running & (action < self.symbols)
        going = waits | types
        time = state.time + going
        typed = torch.where(types, torch.add(action, state.typed, alpha=self.symbols), state.typed)
        finished = types & (time == self.width)
        success = finished & (typed == state.cue)
        done = finished | ~going
        after = Recalling(done, state.cue, state.number + waits, time, typed)
        return Step(after, self.feedback(after), success.float(), done, success, torch.zeros_like(done))

    def feedback(self, state: Recalling) -> Tensor:
        shown = _rest(mixed(state.number), self.cues)
        shown = torch.where(state.number & (STRIDE - 1) == 0, state.cue, shown)
        shown = shown.masked_fill(state.time >= 0, self.cues)
        return self.tables(shown.device).display.index_select(0, shown)

    def oracle(self, problems: RecallProblems) -> Tensor:
        tables = self.tables(problems.stage.device)
        start = tables.start.index_select(0, problems.stage)[:, None]
        place = torch.arange(self.spec.horizon, device=start.device) + start
        cue = tables.display.index_select(0, problems.cue).gather(1, place.clamp(0, self.width - 1))
        return torch.where(place < 0, self.wait, torch.where(place < self.width, cue, self.eos))

    def tables(self, device: torch.device) -> Tables:
        """What is looked up, on `device`."""
        if device not in self._tables:
            powers = self.symbols ** torch.arange(self.width - 1, -1, -1)
            digits = torch.arange(self.cues)[:, None] // powers % self.symbols
            go = torch.tensor([[self.go] + [self.eos] * (self.width - 1)])
            self._tables[device] = Tables(
                torch.cat([digits, go]).to(device), -1 - torch.tensor(self.lengths, device=device)
            )
        return self._tables[device]

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> RecallProblems:
        tables, lists = self.tables(stage.device), self._listed(split, stage.device)

        def draw(stage: Tensor) -> Tensor:
            return torch.randint(self.cues * SEEDS, stage.shape, generator=generator, device=stage.device)

        def key(stage: Tensor, code: Tensor) -> Tensor:
            return _key(tables.start.index_select(0, stage), code)

        code = numbers_within(split, stage, draw, key)
        if lists.empty is not None and bool(torch.isin(stage, lists.empty).any()):
            raise UserError(f"split: {split!r} has no problem of a stage; it needs more than {self.symbols} symbols")
        if lists.codes is not None:
            size = lists.size.index_select(0, stage)
            # What a division by at most 2¹⁶ leaves of some 2³² numbers or more: no place is favoured noticeably.
            place = code % size.clamp_min(1) + lists.first.index_select(0, stage)
            code = torch.where(size > 0, lists.codes.index_select(0, place), code)
        return self._problems(stage, code)

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[RecallProblems]:
        for code in self._all(stage, split).split(chunk):
            yield self._problems(torch.full_like(code, stage), code)

    def count(self, stage: int, split: Split = "all") -> int:
        return len(self._all(stage, split))

    def parse(self, stage: int, text: str) -> RecallProblems:
        words = text.split()
        cue, seed = (*words, "0", "0")[:2]
        known = len(cue) == self.width and set(cue) <= set(NAMES[: self.symbols])
        if not (0 < len(words) <= 2 and known and seed.isascii() and seed.isdigit() and int(seed) < SEEDS):
            raise UserError(
                f"problem: {text!r} is not allowed; expected a cue, {self.width} of {NAMES[: self.symbols]}, "
                f"and, if you like, a seed of the distractors below 2^32, such as '{'1' * self.width} 17'"
            )
        code = self._canonical(stage, int(seed)) * self.cues + int(cue, self.symbols)
        return self._problems(torch.tensor([stage]), torch.tensor([code]))

    def render(self, problems: RecallProblems, i: int) -> str:
        length = self.lengths[int(problems.stage[i])]
        row = _distractors(problems.seed[i : i + 1], min(length, SHOWN), self.cues)[0]
        shown = " ".join([self._text(number) for number in row.tolist()] + ["..."] * (length > SHOWN))
        count = "1 distractor" if length == 1 else f"{length} distractors"
        return f"the cue {self._text(int(problems.cue[i]))}, {count}: {shown}, GO; type the cue"

    def records(self, problems: RecallProblems, state: Recalling) -> list[dict[str, Any]]:
        """As in `Task`: `cue`, `seed`, and what comes of the seed, `distractors`, one text for each WAIT before GO."""
        answered = state.time == self.width
        columns = (problems.stage, problems.cue, problems.seed, state.typed, answered)
        return [
            {
                "problem": f"{self._text(cue)} {seed}",
                "cue": self._text(cue),
                "seed": seed,
                "distractors": self._shown(seed, self.lengths[stage]),
                "answer": self._text(typed) if given else None,
                "target": self._text(cue),
            }
            for stage, cue, seed, typed, given in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def registers(self, state: Recalling, i: int) -> dict[str, str]:
        time = int(state.time[i])
        display = self.feedback(state[i : i + 1])[0].tolist()
        return {
            "cue": self._text(int(state.cue[i])),
            "to wait": str(max(0, -time)),
            "typed": self._text(int(state.typed[i]))[self.width - max(0, time) :],
            "display": " ".join(self.spec.vocabulary[token] for token in display if token != self.eos),
        }

    def _text(self, number: int) -> str:
        """A number as symbols."""
        return "".join(NAMES[number // self.symbols**place % self.symbols] for place in reversed(range(self.width)))

    def _shown(self, seed: int, length: int) -> list[str]:
        """All distractors as symbols."""
        return [self._text(number) for number in _distractors(torch.tensor([seed]), length, self.cues)[0].tolist()]

    # Which problems there are

    def _problems(self, stage: Tensor, code: Tensor) -> RecallProblems:
        """Problems from stages and codes, int64 [n]; a code is seed · cues + cue."""
        key = _key(self.tables(stage.device).start.index_select(0, stage), code)
        return RecallProblems(
            stage, torch.full_like(stage, self.ctx)[:, None], key, code % self.cues, code // self.cues
        )

    def _is_listed(self, stage: int) -> bool:
        return self.cues ** (self.lengths[stage] + 1) <= LISTED

    def _canonical(self, stage: int, seed: int) -> int:
        """The seed that stands for all those that give the same distractors."""
        if not self._is_listed(stage):
            return seed
        return int(self._seeds_of(stage)[_sequence(torch.tensor([seed]), self.lengths[stage], self.cues)])

    def _seeds_of(self, stage: int) -> Tensor:
        """The smallest seed of every sequence of distractors, in the order of the sequences: int64 [cues^L]."""
        if stage not in self._seeds:
            seeds = torch.full((self.cues ** self.lengths[stage],), SEEDS)
            first = 0
            while int(seeds.max()) == SEEDS:  # all m sequences have appeared after about m ln m seeds
                block = torch.arange(first, first + 8 * len(seeds))
                seeds.scatter_reduce_(0, _sequence(block, self.lengths[stage], self.cues), block, "amin")
                first += len(block)
            self._seeds[stage] = seeds
        return self._seeds[stage]

    def _all(self, stage: int, split: Split) -> Tensor:
        """The codes of a listed stage and split: int64, in the order of distractors, then of cues."""
        if not self._is_listed(stage):
            name = self.spec.stages[stage]
            raise UserError(f"stage: {name!r} is too many to list: {self.cues} cues with {SEEDS:,} seeds")
        code = (self._seeds_of(stage)[:, None] * self.cues + torch.arange(self.cues)).flatten()
        return code[in_split(_key(torch.tensor(-1 - self.lengths[stage]), code), split)]

    def _listed(self, split: Split, device: torch.device) -> Lists:
        """The problems of the listed stages, on `device`."""
        if (split, device) not in self._lists:
            parts = [self._all(s, split) for s in range(len(self.lengths)) if self._is_listed(s)]
            none = [s for s, part in enumerate(parts) if not len(part)]  # the listed stages are the first ones
            size = torch.tensor([len(part) for part in parts] + [0] * (len(self.lengths) - len(parts)))
            self._lists[split, device] = Lists(
                codes=torch.cat(parts).to(device) if parts else None,
                size=size.to(device),
                first=((size.cumsum(0) - size) * (size > 0)).to(device),
                empty=torch.tensor(none, device=device) if none else None,
            )
        return self._lists[split, device]


@dataclass
class Tables:
    """What is looked up.

    Attributes:
        display: int64 [cues + 1, width], the symbols of every number, then GO.
        start: int64 [stages], minus the WAITs before GO.
    """

    display: Tensor
    start: Tensor


@dataclass
class Lists:
    """The listed stages' problems of a split.

    Attributes:
        codes: int64, stage after stage; None if no stage is listed.
        size, first: int64 [stages], how many codes a stage has, 0 where it is not listed, and where they begin.
        empty: int64, listed stages without any problem in the split; None if there are none.
    """

    codes: Tensor | None
    size: Tensor
    first: Tensor
    empty: Tensor | None


def _key(start: Tensor, code: Tensor) -> Tensor:
    """Made of the length, not of the stage's index: a problem has the same key whatever the longest stage is."""
    return (-1 - start << 48) + code


def _rest(number: Tensor, divisor: int) -> Tensor:
    """What a division leaves, never negative; without dividing where that is possible, which takes a quarter of it."""
    return number % divisor if divisor & (divisor - 1) else number & (divisor - 1)


def _distractors(seed: Tensor, length: int, cues: int) -> Tensor:
    """Distractors 1 to `length` of seeds, int64 [n], as numbers: int64 [n, length]."""
    return _rest(mixed(seed[:, None] * STRIDE + torch.arange(1, length + 1, device=seed.device)), cues)


def _sequence(seed: Tensor, length: int, cues: int) -> Tensor:
    """The distractors of seeds, int64 [n], read as the digits of one number: int64 [n]."""
    return (_distractors(seed, length, cues) * cues ** torch.arange(length - 1, -1, -1)).sum(1)
