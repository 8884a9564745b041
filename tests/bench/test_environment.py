from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from modelnative.bench.environment import OPTIONS, PREPARED, Play, environment_speed, press
from modelnative.tasks import make_task
from modelnative.tasks.arithmetic.task import Arithmetic, ArithmeticProblems, ArithmeticState
from modelnative.tasks.contract.task import AnyTask, Step
from modelnative.tasks.recall.task import Recall, RecallProblems, RecallState


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Watched(Arithmetic):
    """Counts the problems begun, the actions of running episodes, and all rows that it steps."""

    begun = running = rows = 0

    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        self.begun += len(problems)
        return super().begin(problems)

    def step(self, state: ArithmeticState, action: Tensor) -> Step[ArithmeticState]:
        self.rows += len(state)
        self.running += int((~state.done).sum())
        return super().step(state, action)


def test_only_actions_of_running_episodes_are_steps() -> None:
    task = Watched()
    play = Play(task, 500, seeded())
    for _ in range(40):
        before, rows = task.running, task.rows
        steps = play.advance()
        assert steps == task.running - before
        assert (task.rows - rows) % 500 == 0
    # Two keys of 18 end an episode and 12 keys are the most, so a mean episode has Σ (8/9)ᵗ = 6.81 of them.
    waiting = sum(len(held[0]) for held in play.waiting if held is not None)
    finished = task.running / (task.begun - waiting)
    assert 6.4 < finished < 7.2
    assert task.running / task.rows > 0.7


@pytest.mark.parametrize(("horizon", "lengths"), [(12, [6, 6]), (13, [5, 4, 4]), (18, [6, 6, 6])])
def test_segments_add_up_to_the_horizon(horizon: int, lengths: list[int]) -> None:
    play = Play(Arithmetic(horizon=horizon), 8, seeded())
    assert play.lengths == lengths
    for _ in range(30):
        play.advance()
    assert all(held is None or not bool(held[0].done.any()) for held in play.waiting)


class Judged(Recall):
    """Counts verdicts, ended episodes, and those that were begun."""

    begun = ended = right = 0

    def begin(self, problems: RecallProblems) -> RecallState:
        self.begun += len(problems)
        return super().begin(problems)

    def step(self, state: RecallState, action: Tensor) -> Step[RecallState]:
        step = super().step(state, action)
        self.ended += int((step.done & ~state.done).sum())
        self.right += int(step.success.sum())
        return step


def test_the_oracle_s_programs_succeed_and_pay_every_step() -> None:
    task = Judged(longest=10)  # its programs have 3, 5 and 12 keys, played in two pieces of six
    play = Play(task, 300, seeded(), oracle=True)
    steps = sum(play.advance() for _ in range(50))
    waiting = sum(len(held[0]) for held in play.waiting if held is not None)
    assert task.ended == task.right == task.begun - waiting
    assert steps == task.begun // 3 * (3 + 5 + 6) + (task.begun // 3 - waiting) * 6


def test_problems_of_the_oracle_s_programs_are_drawn_each_time_anew() -> None:
    task = Watched()
    play = Play(task, 100, seeded(), oracle=True)
    for _ in range(40):
        play.advance()
    drawn = 100 * play.batches
    assert play.batches > 2 * PREPARED
    assert task.begun == drawn


@pytest.mark.parametrize("name", ["arithmetic", "tutorial"])
def test_the_speed_of_any_task(name: str) -> None:
    speed = environment_speed(make_task(name), 64, 0.05, seeded(), chunks=3)
    low, high = speed.spread
    assert 0 < low <= speed.median <= high
    assert len(speed.rates) == 3
    assert (speed.episodes, speed.compile_seconds, speed.threads) == (64, 0.0, torch.get_num_threads())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize("reward", ["outcome", "milestone"])
def test_compiled_equals_eager(reward: str) -> None:
    task: AnyTask = Arithmetic(reward=reward)
    torch.compiler.reset()
    compiled = torch.compile(press, fullgraph=True, dynamic=False, options=OPTIONS)
    # Operators, memory and digits often enough for overflows; each key now and then.
    weights = torch.tensor([1.0] * 9 + [8, 1, 12, 4, 4, 0.5, 4, 8, 0.5])
    for seed in range(5):
        generator = seeded(seed)
        state = task.begin(task.sample(torch.arange(3000) % 3, generator)).map(torch.clone)
        for _ in range(5):
            actions = torch.multinomial(weights, 4 * 3000, replacement=True, generator=generator).view(4, 3000)
            (after, kept), (same, also) = press(task, state, actions), compiled(task, state, actions)
            assert all(map(torch.equal, after.problem.fields(), same.problem.fields()))
            assert all(torch.equal(getattr(after, f), getattr(same, f)) for f in vars(after) if f != "problem")
            assert all(
                torch.equal(x, y) for one, two in zip(kept, also, strict=True) for x, y in zip(one, two, strict=True)
            )
            state = after
        assert bool((state.value.abs() > 10**6).any())
