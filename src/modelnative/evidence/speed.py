"""How fast a task is alone: random actions, sampling, beginning and the replacement of ended episodes included."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.batch import Batch
from modelnative.tasks.task import AnyTask, State

# Scalar loops: lookups and masks of 64-bit numbers, which tasks are made of, are slower in the vector code.
OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"cpp.simdlen": 1}
SEGMENT = 6  # actions between two looks at which episodes have ended


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


class RandomPlay:
    """Uniformly random actions in batches of exactly `n` running episodes, for ever.

    A batch plays a few actions; then its survivors wait until there are n of the same age. So no work goes into
    episodes that ended long ago, and every batch has the same shape, which is what `torch.compile` wants.

    Args:
        task: any; its stages are drawn alike.
        n: episodes in a batch.
        generator: draws problems and actions; on its device everything happens.
        compiled: run the actions through `torch.compile`; needs a C++ compiler.
    """

    def __init__(self, task: AnyTask, n: int, generator: torch.Generator, compiled: bool = False) -> None:
        self.task, self.n, self.generator = task, n, generator
        self.stage = torch.arange(n, device=generator.device) % len(task.spec.stages)
        pieces = -(-task.spec.horizon // SEGMENT)
        self.lengths = [len(part) for part in torch.arange(task.spec.horizon).tensor_split(pieces)]
        self.waiting: list[State | None] = [None] * pieces
        self.press = torch.compile(press, fullgraph=True, dynamic=False, options=OPTIONS) if compiled else press

    def advance(self) -> int:
        """Play one segment of one batch; the number of its steps."""
        age = max((k for k, state in enumerate(self.waiting) if state is not None and len(state) >= self.n), default=0)
        held = self.waiting[age]
        if held is None:
            # A state may hold one tensor of zeros for several fields, and would be compiled apart from later ones.
            state = self.task.begin(self.task.sample(self.stage, self.generator)).map(torch.clone)
        else:
            state, self.waiting[age] = held[: self.n], held[self.n :]
        shape, device = (self.lengths[age], self.n), self.generator.device
        actions = torch.randint(len(self.task.spec.vocabulary), shape, generator=self.generator, device=device)
        state, kept = self.press(self.task, state, actions)
        if age + 1 < len(self.lengths):
            survivors = state[~state.done]
            held = self.waiting[age + 1]
            self.waiting[age + 1] = survivors if held is None else Batch.cat([held, survivors])
        over = sum(int(done.sum()) for *_, done in kept[:-1])
        return self.n * len(kept) - over


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
    task: AnyTask, n: int, seconds: float, generator: torch.Generator, compiled: bool = False, chunks: int = 10
) -> EnvironmentSpeed:
    """Measure `RandomPlay`.

    Args:
        task: any.
        n: episodes in a batch.
        seconds: to measure, in all; warming up and compiling come on top.
        generator: draws problems and actions.
        compiled: run the actions through `torch.compile`; needs a C++ compiler.
        chunks: parts of that time, each with a rate of its own.
    """
    torch.compiler.reset()  # or the compiled code of former sizes counts towards a limit
    play = RandomPlay(task, n, generator, compiled)
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
