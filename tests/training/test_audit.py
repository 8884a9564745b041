"""Audits: healthy updates give no alarm, each planted fault gives the one that names it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor
from worlds import Small

import modelnative as mn
from modelnative.policies.registry import CORES
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio.live import LiveView
from modelnative.studio.report import write_report
from modelnative.training.audit import CHECKS
from modelnative.training.auditor import audit_due, audit_update, audited_whole
from modelnative.training.registry import ALGORITHMS
from modelnative.training.rollout import Rollout
from modelnative.training.trainer import Trainer
from modelnative.training.update_state import UpdateState

TINY = {"episodes": 64, "updates": 3, "policy": {"width": 16}, "loss": {"num_generations": 4, "minibatches": 2}}
Spoil = Callable[[UpdateState], UpdateState]


def trainer(changes: dict[str, Any] | None = None, **names: str) -> Trainer:
    return Trainer(Small(), mn.with_fields(mn.with_fields(mn.recipe(**names), TINY), changes or {}))


def with_rollout(**change: Callable[[Rollout], Tensor]) -> Spoil:
    """An update whose rollout has other columns."""

    def spoil(state: UpdateState) -> UpdateState:
        columns = {name: function(state.rollout) for name, function in change.items()}
        return dataclasses.replace(state, rollout=dataclasses.replace(state.rollout, **columns))

    return spoil


def with_advantages(function: Callable[[Tensor], Tensor]) -> Spoil:
    def spoil(state: UpdateState) -> UpdateState:
        advantage = function(state.columns.advantage.view_as(state.rollout.reward)).flatten()
        return dataclasses.replace(state, columns=dataclasses.replace(state.columns, advantage=advantage))

    return spoil


def half_won(rollout: Rollout) -> Tensor:
    return torch.arange(len(rollout.success)) % 2 == 0


SPOILT: dict[str, tuple[str, str, Spoil]] = {
    "noise": ("ppo", "log_prob_gap_mean", with_rollout(behavior_log_prob=lambda r: r.behavior_log_prob + 0.05)),
    "one token": (
        "ppo",
        "log_prob_gap_max",
        with_rollout(behavior_log_prob=lambda r: r.behavior_log_prob.index_fill(1, torch.tensor([0]), -0.5)),
    ),
    "temperature": ("ppo", "log_prob_gap_mean", with_rollout(behavior_log_prob=lambda r: r.behavior_log_prob / 1.3)),
    "old weights": (
        "ppo",
        "effective_sample_size",
        with_rollout(behavior_log_prob=lambda r: r.behavior_log_prob.flip(1)),
    ),
    "mask too late": ("ppo", "last_actions_left_out", with_rollout(loss_mask=lambda r: r.loss_mask.roll(-1, 0))),
    "mask too long": (
        "ppo",
        "tokens_after_the_end",
        with_rollout(loss_mask=lambda r: r.loss_mask | ~r.running),
    ),
    "problems": ("grpo", "group_mean", with_advantages(lambda a: a.view(len(a), -1, 4).transpose(1, 2).flatten(1))),
    "length": ("grpo", "weight_by_length", with_advantages(lambda a: a * torch.linspace(0.5, 1.5, a.shape[1]))),
    "tokens": ("ppo", "replayed_differently", with_rollout(action=lambda r: (r.action + 1) % 11)),
    "reward": ("ppo", "replayed_differently", with_rollout(reward=lambda r: r.reward + 0.5)),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("core", CORES)
def test_healthy_updates_give_no_alarm(algorithm: str, core: str) -> None:
    trained = trainer(algorithm=algorithm, core=core)
    for _ in range(2):
        trained.update()
        assert trained.alarms == []


@pytest.mark.parametrize("fault", SPOILT)
def test_a_planted_fault_is_named_at_the_first_update(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, check, spoil = SPOILT[fault]
    trained = trainer({"curriculum": "uniform", "loss": {"scale_rewards": False}}, algorithm=algorithm)
    if algorithm == "grpo":  # returns that differ within every group
        played = trained.play

        def play(*arguments: Any) -> Rollout:
            rollout = played(*arguments)
            last = rollout.running & ~torch.cat([rollout.running[1:], torch.zeros_like(rollout.running[:1])])
            return dataclasses.replace(rollout, reward=last * half_won(rollout).float(), success=half_won(rollout))

        monkeypatch.setattr(trained, "play", play)
    prepare = trained.prepare
    monkeypatch.setattr(trained, "prepare", lambda *arguments: spoil(prepare(*arguments)))
    with torch.no_grad():
        state = trained.prepare(*trained.collect(), 0.0)
    alarms = [alarm.check for alarm in audit_update(trained, state).alarms]
    assert check in alarms
    healthy = prepare(*trained.collect(), 0.0)
    assert check not in [alarm.check for alarm in audit_update(trained, healthy).alarms]


def test_a_policy_that_looks_at_the_rest_of_the_batch_is_named() -> None:
    trained = trainer()

    class Leaking(type(trained.policy)):  # type: ignore[misc]
        def initial_state(self, problems: mn.Problems) -> Any:
            state = super().initial_state(problems)
            return state.map(lambda x: x + 10 * x.mean(0, keepdim=True)) if hasattr(state, "map") else state

        def forward_rollout(self, problems: mn.Problems, *arguments: Any) -> Any:
            shift = problems.context.float().mean() / 10
            output = super().forward_rollout(problems, *arguments)
            return dataclasses.replace(output, logits=output.logits * (1 + shift))

    trained.policy.__class__ = Leaking
    trained.update()
    assert "row_alone" in [alarm.check for alarm in trained.alarms]


def test_advantages_of_the_wrong_sign_are_named() -> None:
    won = torch.arange(64) % 2 == 0
    ones = torch.ones(64, 3)
    good = torch.where(won, 1.0, -1.0)
    given = {"old_log_probs": -ones, "new_log_probs": -ones, "mask": ones.bool(), "returns": won.float()}
    assert mn.audit(**given, advantages=good).alarms == []
    assert [alarm.check for alarm in mn.audit(**given, advantages=-good).alarms] == ["verdict_correlation"]


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 10**6))
def test_numbers_of_a_correct_batch_give_no_alarm(groups: int, length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = 4 * groups
    ends = torch.randint(1, length + 1, (n, 1), generator=generator)
    running = torch.arange(length) < ends
    log_probs = -torch.rand(n, length, generator=generator)
    returns = torch.randint(0, 2, (n,), generator=generator).float()
    group = torch.arange(n) // 4
    advantages = returns - returns.view(-1, 4).mean(1).repeat_interleave(4)
    found = mn.audit(
        old_log_probs=log_probs,
        new_log_probs=log_probs + 1e-6,
        mask=running,
        running=running,
        advantages=advantages,
        returns=returns,
        problems=group // 2,
        groups=group,
    )
    assert found.alarms == []
    assert {"log_prob_gap_mean", "tokens_after_the_end"} <= set(found.readings)


def test_a_number_that_is_not_one_is_an_alarm() -> None:
    ones = torch.ones(2, 3)
    found = mn.audit(old_log_probs=-ones, new_log_probs=ones * torch.nan, mask=ones.bool())
    assert {alarm.check for alarm in found.alarms} == {
        "log_prob_gap_mean",
        "log_prob_gap_max",
        "effective_sample_size",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new_log_probs": torch.zeros(2, 4)}, "new_log_probs: shape [2, 4] is not allowed; expected [2, 3], as mask"),
        ({"returns": torch.zeros(5)}, "returns: 5 episodes are not allowed; expected 2, as mask"),
        ({"mask": torch.zeros(2, 3, dtype=torch.bool)}, "mask: no token is in the loss"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: dict[str, Tensor], message: str) -> None:
    ones = torch.ones(2, 3)
    given = {"old_log_probs": -ones, "new_log_probs": -ones, "mask": ones.bool(), "advantages": ones, **change}
    with pytest.raises(mn.UserError) as refused:
        mn.audit(**given)
    assert str(refused.value) == message


def test_updates_that_are_audited() -> None:
    assert [update for update in range(1, 42) if audit_due(update)] == [1, 2, 10, 20, 30, 40]
    assert [update for update in range(1, 302) if audited_whole(update)] == [1, 2, 10, 100, 200, 300]


def test_an_audit_that_is_not_whole_reads_masks_and_groups() -> None:
    trained = trainer(algorithm="grpo")
    with torch.no_grad():
        state = trained.prepare(*trained.collect(), 0.0)
    few, whole = (audit_update(trained, state, whole=whole).readings for whole in (False, True))
    assert {"tokens_after_the_end", "last_actions_left_out"} <= set(few)
    assert set(few) < set(whole)
    assert {"log_prob_gap_mean", "effective_sample_size", "row_alone"} <= set(whole)
    assert {"gradient_of_parts", "replayed_differently", "problem_unread"} <= set(whole)


@pytest.mark.parametrize("core", ["gru", "transformer"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_first_gradient_of_every_tenth_update_reads_the_log_probabilities(core: str, noise: float) -> None:
    trained = trainer(core=core)
    trained.updates = 19
    prepare, seen = trained.prepare, list[tuple[float, float]]()

    def noisy(rollout: Rollout, *arguments: Any) -> UpdateState:
        behavior = rollout.behavior_log_prob + noise * torch.randn(rollout.action.shape)
        return prepare(dataclasses.replace(rollout, behavior_log_prob=behavior), *arguments)

    def applied(state: UpdateState, gradients: list[Tensor], terms: Tensor) -> None:
        own = state.columns.loss_mask & ~state.columns.explored
        seen.append((float(terms[-1]), int(own.sum())))
        apply_gradients(state, gradients, terms)

    apply_gradients = trained.apply_gradients
    trained.prepare, trained.apply_gradients = noisy, applied  # type: ignore[method-assign,assignment]
    trained.update()
    assert sum(count for count, _ in seen) == seen[0][1], "the minibatches have all of its tokens"
    assert [alarm.check for alarm in trained.alarms] == (["log_prob_gap_mean"] if noise else [])
    if noise:
        assert trained.alarms[0].value == pytest.approx(noise * 0.8, rel=0.3)  # the mean of |normal| is 0.798
        assert trained.alarms[0].tokens == seen[0][0]


def test_a_score_that_pays_for_failure_is_named() -> None:
    """The published tutorial's score, by itself; a reward for milestones is no such score."""
    for task, options, sick in (("tutorial", {}, True), ("arithmetic", {"reward": "milestone"}, False)):
        config = mn.with_fields(mn.recipe(task), {"task": task, "options": options, "episodes": 256})
        trained = Trainer(mn.make(task, **options), config)
        for _ in range(10):
            trained.update()
        assert ("paid_without_success" in [alarm.check for alarm in trained.alarms]) == sick


def test_auditing_changes_no_number() -> None:
    audited, silent = trainer(), trainer({"alarms": "off"})
    for _ in range(2):
        one, other = audited.update(), silent.update()
        assert dataclasses.replace(one, timing=None) == dataclasses.replace(other, timing=None)
    for a, b in zip(audited.parameters, silent.parameters, strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update stores log-probabilities that are wrong by 0.05."""
    prepare = Trainer.prepare

    def wrong(self: Trainer, rollout: Rollout, *arguments: Any) -> UpdateState:
        return prepare(
            self, dataclasses.replace(rollout, behavior_log_prob=rollout.behavior_log_prob - 0.05), *arguments
        )

    monkeypatch.setattr(Trainer, "prepare", wrong)


@pytest.mark.usefixtures("spoilt")
def test_alarms_are_written_and_said_once(tmp_path: Path) -> None:
    config = mn.with_fields(mn.recipe("worlds:Small"), TINY)
    said = io.StringIO()
    view = LiveView(Console(file=said, width=1000))
    events = list(Training.start(tmp_path / "run", config, callbacks=[view]).events())
    alarmed = [event for event in events if isinstance(event, mn.Alarmed)]
    assert {(event.update, event.alarm.check) for event in alarmed} >= {
        (1, "log_prob_gap_mean"),
        (2, "log_prob_gap_mean"),
    }
    run = Run.open(tmp_path / "run")
    assert [line["update"] for line in run.alarms()] == [event.update for event in alarmed]
    assert CHECKS["log_prob_gap_mean"].remedy in run.alarms()[0]["text"]
    assert said.getvalue().count(CHECKS["log_prob_gap_mean"].fault) == 1
    assert write_report(run).read_text().count(CHECKS["log_prob_gap_mean"].fault) == 1
    run.forget_after(1)
    assert {line["update"] for line in run.alarms()} == {1}


@pytest.mark.usefixtures("spoilt")
def test_an_alarm_can_end_the_training(tmp_path: Path) -> None:
    config = mn.with_fields(mn.recipe("worlds:Small"), {**TINY, "alarms": "stop"})
    with pytest.raises(mn.UserError, match="alarm at update 1: the log-probabilities that were stored"):
        list(Training.start(tmp_path / "run", config).events())
    assert Run.open(tmp_path / "run").checkpoints()[-1].stem == "000001", "nothing is lost"
