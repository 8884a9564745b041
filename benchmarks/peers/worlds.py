"""What every peer plays: the arithmetic task with auto-reset, batched or one episode at a time, under one encoding.

An observation is 17 tokens: the stage, the context, the previous token, the display. `PLACES` says how many values each
may have. `Reader` adds up an embedding for each place, which is a linear layer on their one-hots, only faster.

The horizon is reported as an end, not as a time limit: it is part of the task, the return beyond it is 0, and a peer
need not compute the value of a state that has no future.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.native.calculator import DIGITS
from modelnative.tasks.arithmetic.problems import ADD, ANS, CTX, EOS, MUL, RCL, STO, SUB
from modelnative.tasks.arithmetic.task import COUNTS, Arithmetic
from modelnative.tasks.calculator import LIMIT

HIDDEN = 64
ACTIONS = 18
HORIZON = 12
PLACES = (3, *[ACTIONS] * (6 + 1 + DIGITS + 1))
BLANK = (EOS,) * (DIGITS + 1)
STOCK = 16  # batches of problems that the batched world draws at a time; each problem is played once


class Reader(nn.Module):
    """Observations int64 [..., 17] to the sum of an embedding for each place: float [..., width]."""

    offsets: Tensor

    def __init__(self, width: int = HIDDEN) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(sum(PLACES), width, mode="sum")
        nn.init.normal_(self.table.weight, std=len(PLACES) ** -0.5)  # the sum then has unit variance
        self.register_buffer("offsets", torch.tensor([0, *PLACES[:-1]]).cumsum(0), persistent=False)

    def forward(self, observation: Tensor) -> Tensor:
        places = (observation + self.offsets).flatten(0, -2)
        return self.table(places).view(*observation.shape[:-1], -1)


class Stages:
    """Which stages the next problems are drawn from.

    Args:
        schedule: `uniform` draws all three alike; `threshold` is the library's curriculum of that name: a stage opens
            when the one before succeeds in more than `threshold` of a block of episodes, and open ones are drawn by
            what they still fail.
        threshold: of success.
        block: finished episodes of a stage that make one measurement.
    """

    def __init__(self, schedule: str = "uniform", threshold: float = 0.9, block: int = 500) -> None:
        self.uniform = schedule == "uniform"
        self.threshold, self.block = threshold, block
        self.opened = len(COUNTS) if self.uniform else 1
        self.success = [0.0] * len(COUNTS)
        self.episodes, self.wins = [0] * len(COUNTS), [0] * len(COUNTS)

    def weights(self) -> list[float]:
        """Relative frequency of each stage."""
        if self.uniform:
            return [1.0] * len(COUNTS)
        return [max(1 - rate, 0.02) * (stage < self.opened) for stage, rate in enumerate(self.success)]

    def observe(self, stage: int, episodes: int, wins: int) -> None:
        """Some episodes of a stage have ended."""
        self.episodes[stage] += episodes
        self.wins[stage] += wins
        if self.episodes[stage] >= self.block:
            self.success[stage] = self.wins[stage] / self.episodes[stage]
            self.episodes[stage] = self.wins[stage] = 0
            if stage == self.opened - 1 < len(COUNTS) - 1 and self.success[stage] > self.threshold:
                self.opened += 1


class TensorWorld:
    """n episodes of the tensor task side by side; one that ends is followed by a new problem in the same step.

    Args:
        n: how many.
        stages: where problems are drawn from.
        seed: of the problems.
    """

    def __init__(self, n: int, stages: Stages, seed: int) -> None:
        self.n, self.stages = n, stages
        self.task = Arithmetic(horizon=HORIZON)
        self.generator = torch.Generator().manual_seed(seed)
        self.taken = 0
        self.reset()

    def reset(self) -> Tensor:
        """New problems everywhere; the first observations, int64 [n, 17]."""
        self._restock()
        self.problems = self._problems(self.n)
        self.state = self.task.begin(self.problems)
        self.age = torch.zeros(self.n, dtype=torch.int64)
        self.observation = observe(self.problems, torch.full((self.n,), CTX), self.task.feedback(self.state))
        return self.observation

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Press a key (int64 [n]) in every episode.

        Returns:
            The observation int64 [n, 17] (of the next episode where one ended), reward float [n], ended bool [n].
        """
        before, step = self.problems, self.task.step(self.state, action)
        self.age += 1
        ended = step.done | (self.age >= HORIZON)
        rows = ended.nonzero()[:, 0]
        state, feedback = step.state, step.feedback
        if len(rows):
            fresh = self._problems(len(rows))
            self.problems, state = before.put(rows, fresh), state.put(rows, self.task.begin(fresh))
            feedback = feedback.masked_fill(ended[:, None], EOS)
            action = action.masked_fill(ended, CTX)
            self.age.masked_fill_(ended, 0)
            if not self.stages.uniform:
                stage, won = before.stage[rows], step.success[rows]
                episodes = torch.bincount(stage, minlength=len(COUNTS)).tolist()
                wins = torch.bincount(stage[won], minlength=len(COUNTS)).tolist()
                for index, counts in enumerate(zip(episodes, wins, strict=True)):
                    self.stages.observe(index, *counts)
        self.state = state
        self.observation = observe(self.problems, action, feedback)
        return self.observation, step.reward, ended

    def _problems(self, count: int) -> Any:
        if self.taken + count > len(self.stock):
            self._restock()
        self.taken += count
        return self.stock[self.taken - count : self.taken]

    def _restock(self) -> None:
        weights = torch.tensor(self.stages.weights())
        stage = torch.multinomial(weights, STOCK * self.n, replacement=True, generator=self.generator)
        self.stock, self.taken = self.task.sample(stage, self.generator), 0


def observe(problems: Any, token: Tensor, feedback: Tensor) -> Tensor:
    """The observation int64 [n, 17] of some problems after a token int64 [n] and the feedback to it int64 [n, 9]."""
    return torch.cat([problems.stage[:, None], problems.context, token[:, None], feedback], 1)


class PlainWorld:
    """One episode of the same task in plain Python, as an environment is usually written: no tensors, no batch.

    Args:
        stages: where problems are drawn from.
        seed: of the problems.
    """

    def __init__(self, stages: Stages, seed: int) -> None:
        self.stages = stages
        self.random = random.Random(seed)
        self.numbers = [training_numbers(stage) for stage in range(len(COUNTS))]
        self.reset()

    def reset(self) -> list[int]:
        """A new training problem; its first observation, 17 tokens."""
        stage = self.random.choices(range(len(COUNTS)), self.stages.weights())[0]
        return self.begin(stage, self.random.choice(self.numbers[stage]))

    def begin(self, stage: int, number: int) -> list[int]:
        """A given problem, the digits of `number` being its operands."""
        count = COUNTS[stage]
        operands = [int(digit) for digit in f"{number:0{count}d}"]
        a, b, c, d, e = operands + [0] * (5 - count)
        self.stage, self.target = stage, a * b + c - (0, d, d * e)[stage]
        self.head = [stage, *operands, CTX, *[EOS] * (5 - count)]
        self.entry: int | None = None
        self.accumulator: int | None = None
        self.memory: int | None = None
        self.value: int | None = None
        self.pending = self.age = 0
        return [*self.head, CTX, *BLANK]

    def step(self, key: int) -> tuple[list[int], float, bool]:
        """Press a key: the observation, the reward, and whether the episode has ended (and must be reset)."""
        self.age += 1
        ended, success = self.age >= HORIZON, False
        if key < CTX or (key == RCL and self.memory is not None):
            self._type(key if key < CTX else self.memory)
        elif MUL <= key <= SUB or key == STO:
            if self.value is not None:
                self.accumulator, self.entry = self.value, None
                self.pending = 0 if key == STO else key
                self.memory = self.value if key == STO else self.memory
        elif key in (ANS, EOS):
            ended, success = True, key == ANS and self.value == self.target
        if ended and not self.stages.uniform:
            self.stages.observe(self.stage, 1, success)
        return [*self.head, key, *display(self.value)], float(success), ended

    def _type(self, typed: Any) -> None:
        result = typed
        if self.pending == MUL:
            result = self.accumulator * typed
        elif self.pending == ADD:
            result = self.accumulator + typed
        elif self.pending == SUB:
            result = self.accumulator - typed
        if abs(result) < LIMIT:
            self.entry, self.value = typed, result


@lru_cache(maxsize=1 << 16)
def display(value: int | None) -> tuple[int, ...]:
    """The calculator's display: a sign and eight digits, blank when empty."""
    if value is None:
        return BLANK
    digits = [EOS if digit == " " else int(digit) for digit in f"{abs(value):{DIGITS}d}"]
    return (SUB if value < 0 else EOS, *digits)


@lru_cache(maxsize=len(COUNTS))
def training_numbers(stage: int) -> list[int]:
    """The numbers of a stage's training problems; one list for all the worlds of a process."""
    return Arithmetic().numbers(stage, "train").tolist()


class Peer(ABC):
    """One training of one library, driven update by update.

    Attributes:
        parameters: numbers that are trained.
    """

    parameters: int

    @abstractmethod
    def update(self) -> int:
        """Play and learn once; how many steps of running episodes that were."""

    @abstractmethod
    def begin(self, n: int) -> Any:
        """The memory before the first token of n episodes."""

    @abstractmethod
    def act(self, observation: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """The greedy action int64 [n] for observations int64 [n, 17], and the next memory; no gradients."""


@torch.no_grad()
def verify(peer: Peer, chunk: int = 1 << 13) -> dict[str, dict[str, float]]:
    """Greedy success of each split and stage on every one of its problems: all 111,000 are played."""
    task = Arithmetic(horizon=HORIZON)
    rates: dict[str, dict[str, float]] = {}
    for split in ("train", "heldout"):
        for stage, name in enumerate(task.spec.stages):
            right = 0
            for problems in task.enumerate(stage, split, chunk):
                state, memory = task.begin(problems), peer.begin(len(problems))
                observation = observe(problems, torch.full_like(problems.stage, CTX), task.feedback(state))
                for _ in range(HORIZON):
                    action, memory = peer.act(observation, memory)
                    step = task.step(state, action)
                    state = step.state
                    right += int(step.success.sum())
                    observation = observe(problems, action, step.feedback)
            rates.setdefault(split, {})[name] = right / task.count(stage, split)
    return rates
