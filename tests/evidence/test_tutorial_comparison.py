from __future__ import annotations

import itertools

import pytest
import torch

from modelnative.errors import UserError
from modelnative.evidence.tutorial_comparison import BEST_BY_SCORE, PROBLEMS, compare_tutorial, play_fixed
from modelnative.tasks.tutorial.task import CHOSEN, PROGRAMS, Tutorial

KEYS = ("MUL", "ADD", "SUB", "STO", "RCL")  # the others have no effect


@pytest.fixture(scope="module")
def every_program() -> tuple[list[list[str]], torch.Tensor, torch.Tensor]:
    """All programs that end with ANS; for each stage their mean score and success on a sample: [3, programs]."""
    programs = [[*keys, "ANS"] for length in range(CHOSEN) for keys in itertools.product(KEYS, repeat=length)]
    task = Tutorial()
    padded = torch.tensor([task.spec.token_ids(p + ["EOS"] * (CHOSEN - len(p))) for p in programs])
    n = 96
    scores, successes = [], []
    for stage in range(3):
        problems = task.sample(torch.full((n,), stage), torch.Generator().manual_seed(0), "all")
        state = task.begin(problems[torch.arange(n).repeat(len(programs))])
        keys = padded.repeat_interleave(n, 0)
        score, success = torch.zeros(len(keys)), torch.zeros(len(keys))
        for t in range(CHOSEN):
            step = task.step(state, keys[:, t])
            state = step.state
            score += step.reward
            success += step.success
        scores.append(score.view(-1, n).mean(1))
        successes.append(success.view(-1, n).mean(1))
    return programs, torch.stack(scores), torch.stack(successes)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_fixed_programs_are_the_best_of_all(
    stage: int, every_program: tuple[list[list[str]], torch.Tensor, torch.Tensor]
) -> None:
    programs, scores, successes = every_program
    task = Tutorial()
    assert len(programs) == sum(5**k for k in range(CHOSEN))
    for means, named, value in ((scores, BEST_BY_SCORE, "score"), (successes, PROGRAMS, "success")):
        best = getattr(play_fixed(task, stage, named[stage]), value)
        for i in means[stage].topk(12).indices.tolist():  # the best on the sample, on all problems
            assert getattr(play_fixed(task, stage, " ".join(programs[i])), value) <= best + 1e-9, programs[i]


def test_the_values_of_the_best_fixed_programs() -> None:
    task = Tutorial()
    assert play_fixed(task, 2, PROGRAMS[2]).success == pytest.approx(0.271)
    assert play_fixed(task, 0, PROGRAMS[0]).success == 1.0
    assert play_fixed(task, 0, BEST_BY_SCORE[0]).success == pytest.approx(0.1), "only where c is 0"
    assert play_fixed(task, 0, BEST_BY_SCORE[0]).score == pytest.approx(1.06)


def test_the_comparison() -> None:
    both = compare_tutorial(seed=1, updates=3)
    published, corrected = both.recipes
    assert (published.config.updates, published.config.episodes) == (60, 128)
    assert (published.config.optimizer.learning_rate, published.config.loss.entropy_weight) == (3e-4, 0.01)
    assert (corrected.config.updates, corrected.config.optimizer.learning_rate) == (3, 3e-3)
    for trained in both.recipes:
        assert len(trained.score) == len(trained.success) == 3
        assert all(0 <= value <= 1.3 for value in trained.score)
        assert all(0 <= value <= 1 for value in trained.success)
    assert both.problems == PROBLEMS >= 2000
    threads = torch.get_num_threads()
    assert compare_tutorial(seed=1, updates=3).recipes[1].score == corrected.score
    assert torch.get_num_threads() == threads


def test_bad_fields() -> None:
    with pytest.raises(UserError, match="updates: 0 is not allowed"):
        compare_tutorial(updates=0)
    with pytest.raises(UserError, match="seed: -1 is not allowed"):
        compare_tutorial(seed=-1)
