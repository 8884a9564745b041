"""Seeds that train side by side are those that train alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training.config import ALGORITHMS, CURRICULA, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.team import update_together
from modelnative.training.trainer import Metrics, Trainer

SMALL = {
    "episodes": 32,
    "updates": 9,
    "policy": {"width": 16},
    "loss": {"num_generations": 4, "minibatches": 2},
    "evaluate_every": 2,
}


def trainers(algorithm: str, curriculum: str, hint_weight: float = 0.0) -> list[Trainer]:
    config = with_fields(recipe(algorithm=algorithm, curriculum=curriculum), SMALL)
    config = with_fields(config, {"loss": {"hint_weight": hint_weight}})
    return [Trainer(Arithmetic(), dataclasses.replace(config, seed=seed)) for seed in range(3)]


def close(left: Metrics, right: Metrics) -> None:
    for field in dataclasses.fields(Metrics):
        one, two = getattr(left, field.name), getattr(right, field.name)
        if isinstance(one, float):
            assert math.isclose(one, two, rel_tol=1e-3, abs_tol=1e-4), field.name
        elif field.name != "timing":
            assert one == two, field.name


RECIPES = [
    *((algorithm, "hints", 0.0) for algorithm in ALGORITHMS),
    *(("ppo", curriculum, 0.0) for curriculum in CURRICULA if curriculum != "hints"),
    ("ppo", "hints", 0.5),
]


@pytest.mark.parametrize(("algorithm", "curriculum", "hint_weight"), RECIPES)
def test_each_seed_is_what_it_would_be_alone(algorithm: str, curriculum: str, hint_weight: float) -> None:
    alone, together = (trainers(algorithm, curriculum, hint_weight) for _ in range(2))
    practice = alone[0].task.sample(torch.full((3,), 2), torch.Generator().manual_seed(7))
    alone[1].practice = together[1].practice = practice
    for _ in range(2):
        for left, right in zip(update_together(together), [trainer.update() for trainer in alone], strict=True):
            close(left, right)
    for left, right in zip(together, alone, strict=True):
        for ours, theirs in zip(left.policy.parameters(), right.policy.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)
    weights = [trainer.policy.input.weight for trainer in together]
    assert not torch.allclose(weights[0], weights[1], atol=1e-2)


def test_a_team_of_one_is_a_trainer() -> None:
    alone, together = trainers("ppo", "hints")[0], trainers("ppo", "hints")[0]
    close(update_together([together])[0], alone.update())
