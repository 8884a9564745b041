from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modelnative.native import operators
from modelnative.policies.config import PolicyConfig
from modelnative.policies.policy import TokenPolicy
from modelnative.speed.training import flops, forward_flops, matmul_rates, training_rates
from modelnative.tasks import make_task
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe
from modelnative.training.trainer import Trainer

TINY = {
    "task": "worlds:Small",
    "episodes": 16,
    "threads": 1,
    "policy": {"width": 8},
    "loss": {"minibatches": 4},
    "evaluate_every": 2,
}


def in_place(bias: list[int], left: list[int], right: list[int], **_: object) -> int:
    """FLOP of the in-place baddbmm, which torch's counter does not know."""
    return 2 * left[0] * left[1] * left[2] * right[2]


IN_PLACE = {torch.ops.aten.baddbmm_: in_place}


def test_the_matrix_product() -> None:
    rates = matmul_rates(8, 0.0, chunks=3)  # so short that each chunk has one product
    assert len(rates) == 3
    assert min(rates) > 0


def test_rollout_and_update_make_up_the_training() -> None:
    trainer = Trainer(make_task("worlds:Small"), with_fields(recipe(), TINY))
    rates = training_rates(trainer, 0.0)
    assert trainer.updates == 4, "one is not counted, and three are the minimum"
    assert [len(part) for part in rates.values()] == [3, 3, 3]
    for rollout, update, training in zip(*rates.values(), strict=True):
        assert 0 < training <= 1 / (1 / rollout + 1 / update) * (1 + 1e-6), "metrics take time, too"


@pytest.mark.parametrize("fields", [{}, {"width": 32}, {"layers": 3}, {"copy_head": False}, {"stage_aware": False}])
def test_the_formula_counts_what_torch_computes(fields: dict[str, int | bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "enabled", lambda: False)  # torch does not count native kernels
    task, config = make_task("arithmetic"), PolicyConfig(**fields)  # type: ignore[arg-type]
    policy = TokenPolicy(task.spec, config)

    def counted(n: int) -> int:
        problems = task.sample(torch.zeros(n, dtype=torch.int64), torch.Generator().manual_seed(0))
        state = policy.initial_state(problems)
        token = torch.full((1, n), task.spec.start)
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter, torch.no_grad():
            policy(token, task.feedback(task.begin(problems))[None], state)
        return counter.get_total_flops()

    # The difference excludes the table of inputs, which is computed once for all episodes.
    assert counted(30) - counted(20) == 10 * (forward_flops(task.spec, "gru", config) or 0)


def test_other_cores_are_not_counted() -> None:
    spec = make_task("arithmetic").spec
    assert forward_flops(spec, "mingru", PolicyConfig()) is None
    assert forward_flops(spec, "transformer", PolicyConfig()) is None


def test_a_step_is_played_once_and_learned_in_every_epoch() -> None:
    assert flops(100, 1) == {"rollout": 100, "update": 300, "training": 400}
    assert flops(100, 3)["training"] == 1000
