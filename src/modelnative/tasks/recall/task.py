"""Memory length: a cue is shown once, distractors follow, then the cue must be typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.sampling import NumberedTask, StageTables, draw_within, require_listable
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import (
    Problems,
    Split,
    State,
    Step,
    TaskSpec,
    in_split,
    mixed,
    require,
    whole_number,
)
from modelnative.tasks.recall.words import RecallWords

LENGTHS = (1, 3, 10, 30, 100, 300, 1000)  # distractors of the stages, up to the option
NAMES = "0123456789abcdefghijklmnopqrstuvwxyz"  # of the symbols
CUES = 1 << 16  # largest number of different cues
SEEDS = 1 << 32  # number of seeds; a seed has at most ten digits and is exact in JSON
STRIDE = 1 << 10  # larger than the longest length, so that no two seeds share a hashed number
COPIES = 6  # draws for each rejected problem; all of them are held out one time in 16,000
LISTED = 1 << 16  # largest number of problems of a stage that is listed
SHOWN = 12  # distractors in the text of a problem


@dataclass
class RecallProblems(Problems):
    """Adds the cue and the distractors.

    Attributes:
        cue: int64 [n], the symbols of the cue as the digits of one number, the most significant first.
        seed: int64 [n], in [0, 2³²), determines the distractors (see `Recall`).
    """

    cue: Tensor
    seed: Tensor


@dataclass
class RecallState(State):
    """A batch of n episodes; its size does not depend on their length.

    Attributes:
        cue: int64 [n], see `RecallProblems`.
        number: int64 [n], 1024 · seed + t while distractor t is shown; t = 0 is the cue.
        time: int64 [n], minus the number of WAITs to come; then the number of symbols typed.
        typed: int64 [n], the symbols typed so far, as the digits of one number.
    """

    cue: Tensor
    number: Tensor
    time: Tensor
    typed: Tensor


class Recall(RecallWords, NumberedTask[RecallProblems, RecallState]):
    """Remember a cue over L distractors, then type it. The task measures how long a memory lasts.

    This is the passive T-maze (Ni et al., 2023) with distractors; bsuite's memory length (Osband et al., 2020) with
    more than one bit. The feedback before the first key is the cue, which is not shown again. Each WAIT shows the next
    distractor: random symbols of the same alphabet, so that the cue must be protected from them. The WAIT after the
    last distractor shows GO; then the cue must be typed.

    | key | before GO | after GO |
    |---|---|---|
    | WAIT | shows the next distractor, or GO | ends the episode without an answer |
    | a symbol | ends the episode without an answer | is typed; the last one ends the episode |
    | CTX, GO, EOS | ends the episode without an answer | ends the episode without an answer |

    So only WAIT passes time, and a policy cannot keep notes in its own actions. The only successful program is L + 1
    times WAIT and then the cue. The context is `CTX` alone and carries no information.

    Distractor t, from 1 to L, of seed s is `mixed`(1024·s + t) mod symbols^width, written with `width` digits in base
    `symbols`, where `mixed` is a signed 64-bit hash and the remainder is not negative. Problems that show the same
    tokens are equal: in a stage that is small enough to be listed, the seed is the smallest one with its distractors.

    Typing a constant cue after the WAITs is right with probability 1 / symbols^width, 12.5% by default. A memoryless
    policy and a policy that does not see the cue reach no more. Repeating one key always fails.

    Args:
        longest: number of distractors of the last stage, 1 to 1000; the stages before it have 1, 3, 10, 30, 100, 300.
        symbols: size of the alphabet, 2 to 36.
        width: number of symbols of the cue and of each distractor; at most 65,536 different cues are allowed.

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
        powers = symbols ** torch.arange(width - 1, -1, -1)
        digits = torch.arange(self.cues)[:, None] // powers % symbols
        go = torch.tensor([[self.go] + [self.eos] * (width - 1)])
        self.display = PerDevice(torch.cat([digits, go]).to)  # the symbols of each number, then GO: [cues + 1, width]
        self.start = PerDevice((-1 - torch.tensor(self.lengths)).to)  # minus the number of WAITs before GO: [stages]
        self._seeds: dict[int, Tensor] = {}
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
        self.listed = StageTables(self.spec.stages, self._listed)

    def options(self) -> dict[str, Any]:
        return {"longest": self.lengths[-1], "symbols": self.symbols, "width": self.width}

    # Episodes

    def begin(self, problems: RecallProblems) -> RecallState:
        zero = torch.zeros_like(problems.stage)
        time = self.start(zero.device).index_select(0, problems.stage)
        return RecallState(zero.bool(), problems.cue, problems.seed * STRIDE, time, zero)

    def step(self, state: RecallState, action: Tensor) -> Step[RecallState]:
        waiting, running = state.time < 0, ~state.done
        waits = waiting & running & (action == self.wait)
        types = ~waiting & running & (action < self.symbols)
        going = waits | types
        time = state.time + going
        typed = torch.where(types, torch.add(action, state.typed, alpha=self.symbols), state.typed)
        finished = types & (time == self.width)
        success = finished & (typed == state.cue)
        done = finished | ~going
        after = RecallState(done, state.cue, state.number + waits, time, typed)
        return Step(after, self.feedback(after), success.float(), done, success, torch.zeros_like(done))

    def feedback(self, state: RecallState) -> Tensor:
        shown = _remainder(mixed(state.number), self.cues)
        shown = torch.where(state.number & (STRIDE - 1) == 0, state.cue, shown)
        shown = shown.masked_fill(state.time >= 0, self.cues)
        return self.display(shown.device).index_select(0, shown)

    def oracle(self, problems: RecallProblems) -> Tensor:
        start = self.start(problems.stage.device).index_select(0, problems.stage)[:, None]
        place = torch.arange(self.spec.horizon, device=start.device) + start
        cue = self.display(start.device).index_select(0, problems.cue).gather(1, place.clamp(0, self.width - 1))
        return torch.where(place < 0, self.wait, torch.where(place < self.width, cue, self.eos))

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> RecallProblems:
        start = self.start(stage.device)

        def draw(stage: Tensor) -> Problems:
            code = torch.randint(self.cues * SEEDS, stage.shape, generator=generator, device=stage.device)
            return Problems(stage, code, _key(start.index_select(0, stage), code))

        code = draw_within(split, stage, draw, COPIES).context
        # The remainder of a division by at most 2¹⁶ of more than 2³² numbers is almost uniform.
        listed = self.listed.pick(stage, split, lambda size: code % size)
        return self.problems(stage, torch.where(listed < 0, code, listed))

    def parse(self, stage: int, text: str) -> RecallProblems:
        words = text.split()
        cue, seed = (*words, "0", "0")[:2]
        known = len(cue) == self.width and set(cue) <= set(NAMES[: self.symbols])
        number = whole_number(seed, SEEDS - 1)
        right = 0 < len(words) <= 2 and known and number >= 0
        allowed = f"a cue, {self.width} of {NAMES[: self.symbols]}, and optionally a seed of the distractors below 2^32"
        require(right, "problem", text, f"{allowed}, such as '{'1' * self.width} 17'")
        code = self._canonical(stage, number) * self.cues + int(cue, self.symbols)
        return self.problems(torch.tensor([stage]), torch.tensor([code]))

    def render(self, problems: RecallProblems, i: int) -> str:
        length = self.lengths[int(problems.stage[i])]
        shown = " ".join(self._shown(int(problems.seed[i]), min(length, SHOWN)) + ["..."] * (length > SHOWN))
        count = "1 distractor" if length == 1 else f"{length} distractors"
        return f"the cue {self._text(int(problems.cue[i]))}, {count}: {shown}, GO; type the cue"

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return {"distractors": ("number",), "typed symbols": ("typed",)}

    def records(self, problems: RecallProblems, state: RecallState) -> list[dict[str, Any]]:
        """See `Task.records`; `distractors` has one text for each WAIT before GO."""
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

    def registers(self, state: RecallState, i: int) -> dict[str, str]:
        time = int(state.time[i])
        display = self.feedback(state[i : i + 1])[0].tolist()
        return {
            "cue": self._text(int(state.cue[i])),
            "to wait": str(max(0, -time)),
            "typed": self._text(int(state.typed[i]))[self.width - max(0, time) :],
            "display": " ".join(self.spec.vocabulary[token] for token in display if token != self.eos),
        }

    def _text(self, number: int) -> str:
        """Write a number with symbols."""
        return "".join(NAMES[number // self.symbols**place % self.symbols] for place in reversed(range(self.width)))

    def _shown(self, seed: int, length: int) -> list[str]:
        """Write the first distractors of a seed with symbols."""
        return [self._text(number) for number in _distractors(torch.tensor([seed]), length, self.cues)[0].tolist()]

    # The set of problems

    def problems(self, stage: Tensor, numbers: Tensor) -> RecallProblems:
        """See `NumberedTask.problems`; the number of a problem is seed · cues + cue."""
        key = _key(self.start(stage.device).index_select(0, stage), numbers)
        context = torch.full_like(stage, self.ctx)[:, None]
        return RecallProblems(stage, context, key, numbers % self.cues, numbers // self.cues)

    def _is_listed(self, stage: int) -> bool:
        return self.cues ** (self.lengths[stage] + 1) <= LISTED

    def _canonical(self, stage: int, seed: int) -> int:
        """The seed that represents all seeds with the same distractors."""
        if not self._is_listed(stage):
            return seed
        return int(self._seeds_of(stage)[_sequence(torch.tensor([seed]), self.lengths[stage], self.cues)])

    def _seeds_of(self, stage: int) -> Tensor:
        """The smallest seed of each sequence of distractors, in the order of the sequences: int64 [cues^L]."""
        if stage not in self._seeds:
            seeds = torch.full((self.cues ** self.lengths[stage],), SEEDS)
            first = 0
            while int(seeds.max()) == SEEDS:  # about m ln m seeds are needed for all m sequences
                block = torch.arange(first, first + 8 * len(seeds))
                seeds.scatter_reduce_(0, _sequence(block, self.lengths[stage], self.cues), block, "amin")
                first += len(block)
            self._seeds[stage] = seeds
        return self._seeds[stage]

    def numbers(self, stage: int, split: Split) -> Tensor:
        """See `NumberedTask.numbers`; the problems are ordered by distractors, then by cues."""
        if not self._is_listed(stage):
            require_listable(self.spec.stages[stage], self.cues * SEEDS, LISTED)
        code = (self._seeds_of(stage)[:, None] * self.cues + torch.arange(self.cues)).flatten()
        return code[in_split(_key(torch.tensor(-1 - self.lengths[stage]), code), split)]

    def _listed(self, stage: int, split: Split) -> Tensor:
        """The numbers of a stage that can be listed; otherwise −1 alone."""
        return self.numbers(stage, split) if self._is_listed(stage) else torch.tensor([-1])


def _key(start: Tensor, code: Tensor) -> Tensor:
    """The key contains the length and not the stage index, so that it does not depend on the option `longest`."""
    return (-1 - start << 48) + code


def _remainder(number: Tensor, divisor: int) -> Tensor:
    """The remainder of a division, not negative; for powers of two by a mask, which is four times as fast."""
    return number % divisor if divisor & (divisor - 1) else number & (divisor - 1)


def _distractors(seed: Tensor, length: int, cues: int) -> Tensor:
    """Return distractors 1 to `length` of seeds, int64 [n], as numbers: int64 [n, length]."""
    return _remainder(mixed(seed[:, None] * STRIDE + torch.arange(1, length + 1, device=seed.device)), cues)


def _sequence(seed: Tensor, length: int, cues: int) -> Tensor:
    """Return the distractors of seeds, int64 [n], as the digits of one number: int64 [n]."""
    return (_distractors(seed, length, cues) * cues ** torch.arange(length - 1, -1, -1)).sum(1)
