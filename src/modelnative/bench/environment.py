"""How fast a task is alone: sampling, beginning and the replacement of ended episodes included.

Its keys are drawn by chance, or typed as the oracle would: there are tasks whose episodes chance ends at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, State

# Scalar loops: lookups and masks of 64-bit numbers, which tasks are made of, are slower in the vector code.
OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"cpp.simdlen": 1}
SEGMENT = 6  # actions between two looks at which episodes have ended
PREPARED = 8  # batches whose programs the oracle has written before anything is timed


@dataclass(frozen=True)
class EnvironmentSpeed:
    """Actions of running episodes in a second; an action after the end of an episode is work, but no step.

    Attributes:
        rates: steps a second of each timed chunk.
        episodes: in a batch.
        threads: that torch may use.
        compile_seconds: what `torch.compile` took before the first chunk; 0 when eager.
    """

    rates: tuple[float, ...]
    episodes: int
    threads: int
    compile_seconds: float

    @property
    def median(self) -> float:
        """Steps a second of the median chunk."""
        return statistics.median(self.rates)

    @property
    def spread(self) -> tuple[float, float]:
        """Steps a second of the slowest and of the fastest chunk."""
        return min(self.rates), max(self.rates)


class Play:
    """Batches of exactly `n` running episodes, for ever, with uniformly random actions or the oracle's programs.

    A batch plays a few actions; then its survivors wait until there are n of the same age. So no work goes into
    episodes that ended long ago, and every batch has the same shape, which is what `torch.compile` wants.

    The oracle writes its programs beforehand, for a few batches of problems. Those are drawn again by the same seed
    each time, so that drawing is measured as ever, and the oracle is not.

    Args:
        task: any; its stages are drawn alike.
        n: episodes in a batch.
        generator: draws problems and actions; on its device everything happens.
        compiled: run the actions through `torch.compile`; needs a C++ compiler.
        oracle: play the oracle's programs.
    """

    def __init__(
        self, task: AnyTask, n: int, generator: torch.Generator, compiled: bool = False, oracle: bool = False
    ) -> None:
        self.task, self.n, self.generator = task, n, generator
        self.stage = torch.arange(n, device=generator.device) % len(task.spec.stages)
        pieces = -(-task.spec.horizon // SEGMENT)
        self.lengths = [len(part) for part in torch.arange(task.spec.horizon).tensor_split(pieces)]
        # Of each age: the episodes, and which of the programs each of them plays.
        self.waiting: list[tuple[State, Tensor] | None] = [None] * pieces
        self.press = torch.compile(press, fullgraph=True, dynamic=False, options=OPTIONS) if compiled else press
        self.batches = 0
        self.programs = None
        if oracle:
            written = [task.oracle(self._problems(seed)) for seed in range(PREPARED)]
            self.programs = torch.cat(written).t().contiguous().split(self.lengths)

    def advance(self) -> int:
        """Play one segment of one batch; the number of its steps."""
        age = max((k for k, held in enumerate(self.waiting) if held is not None and len(held[1]) >= self.n), default=0)
        held = self.waiting[age]
        if held is None:
            state, row = self._begin()
        else:
            (state, row), self.waiting[age] = _cut(held, slice(self.n)), _cut(held, slice(self.n, None))
        state, kept = self.press(self.task, state, self._actions(age, row))
        if age + 1 < len(self.lengths):
            running = (~state.done).nonzero()[:, 0]
            state, row, held = state[running], row.index_select(0, running), self.waiting[age + 1]
            if held is not None:
                state, row = Batch.cat([held[0], state]), torch.cat([held[1], row])
            self.waiting[age + 1] = state, row
        over = sum(int(done.sum()) for *_, done in kept[:-1])
        return self.n * len(kept) - over

    def _begin(self) -> tuple[State, Tensor]:
        """New episodes, and their programs: int64 [n], their places in `programs`; or nothing, [n, 0]."""
        device = self.generator.device
        if self.programs is None:
            problems = self.task.sample(self.stage, self.generator)
            row = torch.empty(self.n, 0, dtype=torch.int64, device=device)
        else:
            batch = self.batches % PREPARED
            problems = self._problems(batch)
            row = torch.arange(batch * self.n, (batch + 1) * self.n, device=device)
        self.batches += 1
        # A state may hold one tensor of zeros for several fields, and would be compiled apart from later ones.
        return self.task.begin(problems).map(torch.clone), row

    def _problems(self, seed: int) -> Problems:
        problems: Problems = self.task.sample(self.stage, self.generator.manual_seed(seed))
        return problems

    def _actions(self, age: int, row: Tensor) -> Tensor:
        """int64 [t, n]."""
        if self.programs is not None:
            return self.programs[age].index_select(1, row)
        shape, device = (self.lengths[age], self.n), self.generator.device
        return torch.randint(len(self.task.spec.vocabulary), shape, generator=self.generator, device=device)


def _cut(held: tuple[State, Tensor], part: slice) -> tuple[State, Tensor]:
    return held[0][part], held[1][part]


def press(task: AnyTask, state: State, actions: Tensor) -> tuple[State, list[tuple[Tensor, ...]]]:
    """The state after `actions`, int64 [t, n], and what a trainer would keep of each.

    That is feedback, reward, success, invalid and done.
    """
    kept: list[tuple[Tensor, ...]] = []
    for action in actions.unbind():
        step = task.step(state, action)
        state = step.state
        kept.append((step.feedback, step.reward, step.success, step.invalid, step.done))
    return state, kept


def environment_speed(
    task: AnyTask,
    n: int,
    seconds: float,
    generator: torch.Generator,
    compiled: bool = False,
    chunks: int = 10,
    oracle: bool = False,
) -> EnvironmentSpeed:
    """Measure `Play`.

    Args:
        task: any.
        n: episodes in a batch.
        seconds: to measure, in all; warming up and compiling come on top.
        generator: draws problems and actions.
        compiled: run the actions through `torch.compile`; needs a C++ compiler.
        chunks: parts of that time, each with a rate of its own.
        oracle: play the oracle's programs, and not random actions.
    """
    torch.compiler.reset()  # or the compiled code of former sizes counts towards a limit
    play = Play(task, n, generator, compiled, oracle)
    start = time.perf_counter()
    for _ in range(8 * len(play.lengths)):
        play.advance()
    warm = time.perf_counter() - start
    rates = []
    for _ in range(chunks):
        start, steps = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds / chunks:
            steps += play.advance()
        rates.append(steps / elapsed)
    return EnvironmentSpeed(tuple(rates), n, torch.get_num_threads(), warm if compiled else 0.0)
