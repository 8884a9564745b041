"""The speed of a task without a policy, including sampling problems and replacing finished episodes.

Actions are random or the oracle's: random actions end the episodes of some tasks at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from modelnative.speed.throughput import Throughput
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, State

# Scalar loops: lookups and masks of 64-bit integers, which tasks consist of, are slower in vector code.
COMPILE_OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"cpp.simdlen": 1}
SEGMENT = 6  # actions between two removals of finished episodes
ORACLE_BATCHES = 8  # batches whose oracle programs are computed before the measurement


class EpisodeLoop:
    """An endless loop over batches of exactly `n` running episodes, with random actions or the oracle's programs.

    A batch plays one segment of actions. Its unfinished episodes then wait until there are n of the same age. So every
    batch has the same shape, which `torch.compile` needs, and little work goes into finished episodes.

    The oracle's programs are computed in advance for a few batches of problems. These problems are sampled again with
    the same seeds, so that sampling is measured and the oracle is not.

    Args:
        task: any task; its stages are sampled uniformly.
        n: episodes in a batch.
        generator: samples problems and actions; its device is used for everything.
        compiled: run the actions through `torch.compile`; needs a C++ compiler.
        oracle: play the oracle's programs.

    Raises:
        UserError: `oracle` is set, and the task has no oracle.
    """

    def __init__(
        self, task: AnyTask, n: int, generator: torch.Generator, compiled: bool = False, oracle: bool = False
    ) -> None:
        self.task, self.n, self.generator = task, n, generator
        self.stage = torch.arange(n, device=generator.device) % len(task.spec.stages)
        pieces = -(-task.spec.horizon // SEGMENT)
        self.lengths = [len(part) for part in torch.arange(task.spec.horizon).tensor_split(pieces)]
        # For each age: the waiting episodes, and the index of each one's program.
        self.waiting: list[tuple[State, Tensor] | None] = [None] * pieces
        self.play_segment = play_segment
        if compiled:
            self.play_segment = torch.compile(play_segment, fullgraph=True, dynamic=False, options=COMPILE_OPTIONS)
        self.batches = 0
        self.programs = None
        if oracle:
            programs = [task.oracle(self._problems(seed)) for seed in range(ORACLE_BATCHES)]
            self.programs = torch.cat(programs).t().contiguous().split(self.lengths)

    def advance(self) -> int:
        """Play one segment of one batch; returns its number of steps."""
        full = (age for age, group in enumerate(self.waiting) if group is not None and len(group[1]) >= self.n)
        age = max(full, default=0)
        group = self.waiting[age]
        if group is None:
            state, row = self._begin()
        else:
            state, row = _rows(group, slice(self.n))
            self.waiting[age] = _rows(group, slice(self.n, None))
        state, kept = self.play_segment(self.task, state, self._actions(age, row))
        if age + 1 < len(self.lengths):
            running = (~state.done).nonzero()[:, 0]
            state, row, group = state[running], row.index_select(0, running), self.waiting[age + 1]
            if group is not None:
                state, row = Batch.cat([group[0], state]), torch.cat([group[1], row])
            self.waiting[age + 1] = state, row
        finished = sum(int(done.sum()) for *_, done in kept[:-1])
        return self.n * len(kept) - finished

    def _begin(self) -> tuple[State, Tensor]:
        """New episodes, and the indices of their programs: int64 [n], or [n, 0] for random actions."""
        device = self.generator.device
        if self.programs is None:
            problems = self.task.sample(self.stage, self.generator)
            row = torch.empty(self.n, 0, dtype=torch.int64, device=device)
        else:
            batch = self.batches % ORACLE_BATCHES
            problems = self._problems(batch)
            row = torch.arange(batch * self.n, (batch + 1) * self.n, device=device)
        self.batches += 1
        # A new state may use one tensor for several fields, which would cause a second compilation.
        return self.task.begin(problems).map(torch.clone), row

    def _problems(self, seed: int) -> Problems:
        return self.task.sample(self.stage, self.generator.manual_seed(seed))

    def _actions(self, age: int, row: Tensor) -> Tensor:
        """int64 [t, n]."""
        if self.programs is not None:
            return self.programs[age].index_select(1, row)
        shape, device = (self.lengths[age], self.n), self.generator.device
        return torch.randint(len(self.task.spec.vocabulary), shape, generator=self.generator, device=device)


def _rows(group: tuple[State, Tensor], part: slice) -> tuple[State, Tensor]:
    return group[0][part], group[1][part]


def play_segment(task: AnyTask, state: State, actions: Tensor) -> tuple[State, list[tuple[Tensor, ...]]]:
    """The state after `actions`, int64 [t, n], and what a trainer would keep of each action.

    This is feedback, reward, success, invalid and done.
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
) -> Throughput:
    """Steps per second of `EpisodeLoop` in this process.

    A step is an action of a running episode; actions after the end of an episode do not count.

    Args:
        task: any task.
        n: episodes in a batch.
        seconds: total time of the measurement, without warm-up and compilation.
        generator: samples problems and actions.
        compiled: run the actions through `torch.compile`; needs a C++ compiler.
        chunks: number of parts of that time, each with its own rate.
        oracle: play the oracle's programs instead of random actions.
    """
    torch.compiler.reset()  # otherwise compiled code of other sizes counts towards torch's limit
    loop = EpisodeLoop(task, n, generator, compiled, oracle)
    start = time.perf_counter()
    for _ in range(8 * len(loop.lengths)):
        loop.advance()
    warm = time.perf_counter() - start
    rates = []
    for _ in range(chunks):
        start, steps = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds / chunks:
            steps += loop.advance()
        rates.append(steps / elapsed)
    name = "environment, compiled" if compiled else "environment"
    return Throughput(name, "steps/s", 1, torch.get_num_threads(), tuple(rates), warm if compiled else 0.0)
