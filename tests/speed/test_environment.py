from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from modelnative.speed.environment import COMPILE_OPTIONS, ORACLE_BATCHES, EpisodeLoop, environment_speed, play_segment
from modelnative.tasks import make_task
from modelnative.tasks.arithmetic.problems import ArithmeticProblems
from modelnative.tasks.arithmetic.task import Arithmetic, ArithmeticState
from modelnative.tasks.calculator import EMPTY
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Step
from modelnative.tasks.recall.task import Recall, RecallProblems, RecallState


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensors(batch: Batch) -> list[Tensor]:
    """All tensors of a batch and of the batches in it."""
    return [x for field in batch.fields() for x in (tensors(field) if isinstance(field, Batch) else [field])]


class Counting(Arithmetic):
    """Counts started problems, actions of running episodes, and all rows of `step`."""

    started = running = stepped = 0

    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        self.started += len(problems)
        return super().begin(problems)

    def step(self, state: ArithmeticState, action: Tensor) -> Step[ArithmeticState]:
        self.stepped += len(state)
        self.running += int((~state.done).sum())
        return super().step(state, action)


def test_only_actions_of_running_episodes_are_steps() -> None:
    task = Counting()
    loop = EpisodeLoop(task, 500, seeded())
    for _ in range(40):
        before, rows = task.running, task.stepped
        steps = loop.advance()
        assert steps == task.running - before
        assert (task.stepped - rows) % 500 == 0
    # 2 of 18 keys end an episode, which has at most 12 keys, so its expected length is Σ (8/9)ᵗ = 6.81.
    waiting = sum(len(group[0]) for group in loop.waiting if group is not None)
    finished = task.running / (task.started - waiting)
    assert 6.4 < finished < 7.2
    assert task.running / task.stepped > 0.7


@pytest.mark.parametrize(("horizon", "lengths"), [(12, [6, 6]), (13, [5, 4, 4]), (18, [6, 6, 6])])
def test_segments_add_up_to_the_horizon(horizon: int, lengths: list[int]) -> None:
    loop = EpisodeLoop(Arithmetic(horizon=horizon), 8, seeded())
    assert loop.lengths == lengths
    for _ in range(30):
        loop.advance()
    assert all(group is None or not bool(group[0].done.any()) for group in loop.waiting)


class CountingRecall(Recall):
    """Counts started, finished and successful episodes."""

    started = ended = right = 0

    def begin(self, problems: RecallProblems) -> RecallState:
        self.started += len(problems)
        return super().begin(problems)

    def step(self, state: RecallState, action: Tensor) -> Step[RecallState]:
        step = super().step(state, action)
        self.ended += int((step.done & ~state.done).sum())
        self.right += int(step.success.sum())
        return step


def test_oracle_programs_succeed_and_count_every_step() -> None:
    task = CountingRecall(longest=10)  # its programs have 3, 5 and 12 keys, played in two pieces of six
    loop = EpisodeLoop(task, 300, seeded(), oracle=True)
    steps = sum(loop.advance() for _ in range(50))
    waiting = sum(len(group[0]) for group in loop.waiting if group is not None)
    assert task.ended == task.right == task.started - waiting
    assert steps == task.started // 3 * (3 + 5 + 6) + (task.started // 3 - waiting) * 6


def test_problems_of_oracle_programs_are_sampled_again() -> None:
    task = Counting()
    loop = EpisodeLoop(task, 100, seeded(), oracle=True)
    for _ in range(40):
        loop.advance()
    drawn = 100 * loop.batches
    assert loop.batches > 2 * ORACLE_BATCHES
    assert task.started == drawn


@pytest.mark.parametrize("name", ["arithmetic", "tutorial"])
def test_environment_speed(name: str) -> None:
    speed = environment_speed(make_task(name), 64, 0.05, seeded(), chunks=3)
    low, high = speed.range
    assert 0 < low <= speed.median <= high
    assert len(speed.rates) == 3
    assert (speed.processes, speed.compile_seconds, speed.threads) == (1, 0.0, torch.get_num_threads())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize("reward", ["outcome", "milestone"])
def test_compiled_equals_eager(reward: str) -> None:
    task: AnyTask = Arithmetic(reward=reward)
    torch.compiler.reset()
    compiled = torch.compile(play_segment, fullgraph=True, dynamic=False, options=COMPILE_OPTIONS)
    # Frequent operators, memory keys and digits cause overflows; every key occurs.
    weights = torch.tensor([1.0] * 9 + [8, 1, 12, 4, 4, 0.5, 4, 8, 0.5])
    for seed in range(5):
        generator = seeded(seed)
        state = task.begin(task.sample(torch.arange(3000) % 3, generator)).map(torch.clone)
        for _ in range(5):
            actions = torch.multinomial(weights, 4 * 3000, replacement=True, generator=generator).view(4, 3000)
            (after, kept), (same, also) = play_segment(task, state, actions), compiled(task, state, actions)
            assert all(map(torch.equal, tensors(after), tensors(same)))
            assert all(
                torch.equal(x, y) for one, two in zip(kept, also, strict=True) for x, y in zip(one, two, strict=True)
            )
            state = after
        value = state.calculator.value
        assert bool(((value.abs() > 10**6) & (value != EMPTY)).any())
