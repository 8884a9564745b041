"""TRL: environments and rewards, which need no TRL, and audits of the tensors of a real `GRPOTrainer`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import bill
import pytest
import torch
from safetensors.torch import load_file

import modelnative as mn
from modelnative.bridges.trl import TRLTask
from modelnative.bridges.trl_audit import sampled_tokens
from modelnative.errors import UserError
from modelnative.tasks import TASKS

BATCH = Path(__file__).parent / "data" / "trl_batch.safetensors"


def public(environment: object) -> list[str]:
    """The methods that TRL takes for tools."""
    methods = inspect.getmembers(type(environment), predicate=inspect.isfunction)
    return [name for name, _ in methods if name not in ("reset", "get_reward") and not name.startswith("_")]


@pytest.mark.parametrize("name", TASKS)
def test_rollouts_of_a_row_share_the_problem_and_the_oracle_is_rewarded(name: str) -> None:
    task = TRLTask(name, count=3, seed=5)
    environments = [task.environment_factory() for _ in range(2)]
    for row in task.rows:
        for environment in environments:
            environment.reset(**row)
        first, second = (environment._episode for environment in environments)
        assert first.opening == second.opening == row["prompt"][1]["content"]
        assert sorted(public(environments[0])) == sorted(call.name for call in first.calls)
        for call, arguments in first.plan():
            assert isinstance(getattr(environments[0], call)(**arguments), str)
        logged: dict[str, float] = {}
        rewards = task.reward_funcs[0](environments=environments, log_metric=logged.__setitem__)
        assert rewards == [first.score, 0.0]
        assert logged["episode/success"] == float(first.success) / 2


def test_methods_have_what_a_schema_is_made_of() -> None:
    environment: Any = TRLTask(bill.make(solve=True), count=1).environment_factory()
    signature = inspect.signature(environment.price)
    assert list(signature.parameters) == ["item"]
    assert "Literal['pen', 'book', 'lamp', 'mug', 'bag']" in str(signature)
    assert environment.price.__doc__ == "The price of an item.\n\nArgs:\n    item: what is sold"
    environment.reset(**TRLTask(bill.make(solve=True), count=1).rows[0])
    assert environment.price().startswith("Refused: price: the argument 'item' is missing")
    assert environment.price(thing=3).startswith("Refused: price: unknown argument 'thing'")


def test_rows_that_are_not_ours_are_refused() -> None:
    environment = TRLTask("hops", count=1).environment_factory()
    with pytest.raises(UserError, match="stage: the row of the dataset lacks it"):
        environment.reset(prompt=[])
    with pytest.raises(UserError, match="count: 0 is not allowed"):
        TRLTask("hops", count=0)


def test_sampled_tokens_are_found_over_the_turns() -> None:
    turns = [
        ([[1, 2], [1, 2], [1, 2]], [[7, 8], [9], [7, 8]]),
        ([[1, 2, 7, 8, 50], [1, 2, 7, 8, 51, 52]], [[3], [4, 5]]),
        ([[1, 2, 7, 8, 51, 52, 4, 5, 60]], [[6]]),
    ]
    completion = torch.tensor([[7, 8, 50, 3, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0, 0, 0], [7, 8, 51, 52, 4, 5, 60, 6]])
    sampled, different = sampled_tokens(turns, completion)
    assert sampled.int().tolist() == [[1, 1, 0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 1, 0, 1]]
    assert different == 0
    completion[2, 4] = 99  # as if the text had been tokenized again
    assert sampled_tokens(turns, completion)[1] == 1


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    """A batch of a real `GRPOTrainer`: recorded by `benchmarks/tiny_llm.py --steps 20 --tensors FILE`."""
    return load_file(BATCH)


def checks(batch: dict[str, torch.Tensor], **changes: torch.Tensor) -> set[str]:
    return {alarm.check for alarm in mn.audit(**{**batch, **changes}).alarms}  # type: ignore[arg-type]


def test_a_healthy_batch_raises_no_alarm(batch: dict[str, torch.Tensor]) -> None:
    assert len(mn.audit(**batch).readings) == 8  # type: ignore[arg-type]
    assert checks(batch) == set()


def test_planted_faults_are_found(batch: dict[str, torch.Tensor]) -> None:
    mask, running, advantages = batch["mask"].bool(), batch["running"].bool(), batch["advantages"]
    assert bool((running.int().diff(dim=1) > 0).any())  # some episodes have a tool's answer between two turns
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
    everything = torch.arange(mask.shape[1]) <= last[:, None]  # as if the tool's answers were learned, too
    assert "tokens_after_the_end" in checks(batch, mask=everything)
    shifted = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    assert {"tokens_after_the_end"} <= checks(batch, mask=shifted)
    assert "last_actions_left_out" in checks(batch, mask=torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1))
    assert {"log_prob_gap_mean", "log_prob_gap_max", "effective_sample_size"} <= checks(
        batch, new_log_probs=batch["new_log_probs"] / 1.3
    )
    assert "group_mean" in checks(batch, problems=batch["problems"].roll(3))
    assert "verdict_correlation" in checks(batch, advantages=-advantages)
    by_length = advantages[:, None] / mask.sum(1, keepdim=True).expand_as(mask)
    assert "weight_by_length" in checks(batch, advantages=by_length)
