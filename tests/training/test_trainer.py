from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from modelnative import native
from modelnative.errors import UserError
from modelnative.policies.registry import CORES
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import AnyTask, in_split, program_length
from modelnative.tasks.countdown.task import Countdown
from modelnative.tasks.expressions.task import Expressions
from modelnative.tasks.tutorial.task import Tutorial
from modelnative.training.checkpoint import restore, state_of
from modelnative.training.config import with_fields
from modelnative.training.curriculum import Draw, program_lengths
from modelnative.training.events import Started
from modelnative.training.metrics import Metrics, stage_success
from modelnative.training.recipes import recipe as make_recipe
from modelnative.training.registry import ALGORITHMS, CURRICULA
from modelnative.training.rollout import Rollout
from modelnative.training.trainer import Trainer

SMALL = {"episodes": 32, "updates": 6, "policy": {"width": 16}, "loss": {"num_generations": 4, "minibatches": 2}}


def trainer(task: AnyTask | None = None, *, changes: dict[str, Any] | None = None, **names: str) -> Trainer:
    config = with_fields(with_fields(make_recipe(**names), SMALL), changes or {})
    return Trainer(task or Arithmetic(), config)


def collect(trained: Trainer) -> tuple[Draw, Rollout]:
    draw, problems, plan = trained.draw()
    return draw, trained.play(problems, plan)


def digest(trained: Trainer) -> str:
    """Of everything that a training is."""
    tensors, counters = state_of(trained)
    sums = hashlib.sha256(repr(sorted(counters.items())).encode())
    for name in sorted(tensors):
        sums.update(name.encode() + tensors[name].detach().numpy().tobytes())
    return sums.hexdigest()


def reproducible(metrics: Metrics) -> str:
    return repr(dataclasses.replace(metrics, timing=None))


# Everything runs


@pytest.mark.parametrize(("algorithm", "curriculum"), list(itertools.product(ALGORITHMS, CURRICULA)))
def test_every_algorithm_runs_under_every_curriculum(algorithm: str, curriculum: str) -> None:
    trained = trainer(algorithm=algorithm, curriculum=curriculum)
    for _ in range(2):
        check_metrics(trained.update(), trained)


@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("core", CORES)
def test_every_core_runs_under_every_curriculum_on_the_tutorial(core: str, curriculum: str) -> None:
    trained = trainer(Tutorial(), core=core, curriculum=curriculum)
    for _ in range(2):
        check_metrics(trained.update(), trained)


@pytest.mark.parametrize("options", [{"reward": "milestone"}, {"reward": "potential"}, {"feedback": "none"}], ids=str)
@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "reinforce"])
def test_every_option_of_the_task_runs(options: dict[str, Any], algorithm: str) -> None:
    trained = trainer(Arithmetic(**options), algorithm=algorithm)
    for _ in range(2):
        check_metrics(trained.update(), trained)


def test_one_episode_an_update_is_enough() -> None:
    """Where statistics over tokens have nothing to count."""
    trained = trainer(changes={"episodes": 1, "loss": {"minibatches": 1}})
    for _ in range(3):
        check_metrics(trained.update(), trained)


def test_a_config_that_is_not_sensible_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.num_generations: 5 is not allowed; expected a divisor"):
        trainer(algorithm="grpo", changes={"loss": {"num_generations": 5}})


def check_metrics(metrics: Metrics, trained: Trainer) -> None:
    config, spec = trained.config, trained.task.spec
    for field in dataclasses.fields(metrics):
        value = getattr(metrics, field.name)
        if isinstance(value, float):
            assert math.isfinite(value), field.name
    assert metrics.update == trained.updates
    assert metrics.episodes == metrics.update * config.episodes
    assert metrics.episodes <= metrics.steps <= metrics.episodes * spec.horizon
    assert len(metrics.success) == len(metrics.stages) == len(spec.stages)
    assert all(rate is None or 0 <= rate <= 1 for rate in metrics.success)
    if metrics.greedy is not None:
        assert len(metrics.greedy) == len(spec.stages)
        assert all(0 <= rate <= 1 for rate in metrics.greedy)
    assert 0 <= metrics.entropy <= math.log(len(spec.vocabulary)) + 1e-4
    assert metrics.approximate_kl >= -1e-6
    assert 0 <= metrics.clip_fraction <= 1
    assert metrics.explained_variance <= 1
    assert metrics.gradient_norm > 0
    assert 0 <= metrics.invalid <= spec.horizon
    assert metrics.value_loss >= 0
    assert 0 < metrics.learning_rate <= config.optimizer.learning_rate
    timing = metrics.timing
    assert timing.seconds > 0
    assert timing.rollout_share > 0
    assert timing.update_share > 0
    assert timing.rollout_share + timing.update_share <= 1 + 1e-9
    assert timing.steps_per_second * timing.seconds <= config.episodes * spec.horizon * (1 + 1e-9)
    assert all(bool(p.isfinite().all()) for p in trained.policy.parameters())


# Randomness


@pytest.mark.parametrize(("core", "algorithm"), [*((core, "ppo") for core in CORES), ("gru", "grpo")])
def test_the_seed_decides_everything(core: str, algorithm: str) -> None:
    """Whatever torch's global generator did before; and it is left as it was."""
    torch.manual_seed(11)
    one = trainer(core=core, algorithm=algorithm)
    torch.manual_seed(22)
    before = torch.get_rng_state()
    two = trainer(core=core, algorithm=algorithm)
    for _ in range(3):
        assert reproducible(one.update()) == reproducible(two.update())
    assert torch.equal(torch.get_rng_state(), before)
    assert digest(one) == digest(two)
    other = trainer(core=core, algorithm=algorithm, changes={"seed": 1})
    assert digest(other) != digest(trainer(core=core, algorithm=algorithm)), "the seed draws the weights"
    for _ in range(3):
        other.update()
    assert digest(other) != digest(one)


def test_the_seed_draws_problems_and_actions_too() -> None:
    """The same weights under another seed live another life."""
    one, two = trainer(), trainer(changes={"seed": 1})
    two.policy.load_state_dict(one.policy.state_dict())
    one.update()
    two.update()
    assert not torch.equal(one.policy.input.weight, two.policy.input.weight)


def test_updates_differ() -> None:
    trained = trainer(curriculum="uniform")
    keys = []
    for _ in range(3):
        trained.generator.manual_seed(0)
        trained.update()
        keys.append(tuple(collect(trained)[1].problems.key.tolist()))
    assert len(set(keys)) == 3


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_restoring_its_state_continues_to_the_bit(curriculum: str) -> None:
    straight, halted = trainer(curriculum=curriculum), trainer(curriculum=curriculum)
    for _ in range(4):
        last = straight.update()
    for _ in range(2):
        halted.update()
    tensors, counters = state_of(halted)
    resumed = trainer(curriculum=curriculum)
    restore(resumed, {name: value.clone() for name, value in tensors.items()}, dict(counters))
    assert digest(resumed) == digest(halted)
    resumed.update()
    assert reproducible(resumed.update()) == reproducible(last)
    assert digest(resumed) == digest(straight)


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_what_went_wrong_is_practiced(curriculum: str) -> None:
    """Each wrong problem about once an update, in at most a quarter of the episodes, without a hint and not counted."""
    task = Arithmetic()
    wrong = task.sample(torch.full((3,), 2), torch.Generator().manual_seed(7), "train")
    trained = trainer(task, curriculum=curriculum)
    trained.practice = wrong
    draw, rollout = collect(trained)
    assert bool(torch.isin(rollout.problems.key[-3:], wrong.key).all())
    assert bool(rollout.loss_mask[0, -3:].all())
    assert bool((draw.explore[-3:] > 0).all()), "what explores is not counted as success"
    trained.practice = wrong[torch.zeros(100, dtype=torch.int64)]
    _, rollout = collect(trained)
    assert int((rollout.problems.key == wrong.key[0]).sum()) >= 8
    assert not bool(torch.isin(rollout.problems.key[:24], wrong.key).all())
    copy = trainer(task, curriculum=curriculum)
    restore(copy, *state_of(trained))
    assert copy.practice is not None
    assert torch.equal(copy.practice.key, trained.practice.key)
    copy.update()
    trained.update()
    assert digest(copy) == digest(trained)


def test_a_state_that_lacks_something_is_refused() -> None:
    trained = trainer()
    trained.update()
    tensors, counters = state_of(trained)
    for name in ("policy.input.weight", "curriculum.success", "optimizer.input.weight.exp_avg"):
        with pytest.raises((KeyError, RuntimeError)):
            restore(trainer(), {k: v for k, v in tensors.items() if k != name}, counters)


def test_a_continuation_without_kernels_says_so() -> None:
    """What computed is in the checkpoint, because the kernels differ from the plain definitions in rounding."""
    trained = trainer()
    tensors, counters = state_of(trained)
    assert counters["computed_by"] == [native.backend()]
    notes: list[list[str]] = []
    for earlier in (["native"], ["torch"], ["native", "torch"]):
        resumed = trainer()
        restore(resumed, tensors, {**counters, "computed_by": earlier})
        assert state_of(resumed)[1]["computed_by"] == list(dict.fromkeys([*earlier, native.backend()]))
        notes.append(Started(None, 0, (), 0, trainer=resumed).notes)
        assert any("differ in rounding" in note for note in notes[-1]) == ([native.backend()] != earlier)
    restore(trainer(), tensors, {name: value for name, value in counters.items() if name != "computed_by"})


# What is played and learned


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_problems_come_from_the_train_split_only(algorithm: str) -> None:
    trained = trainer(algorithm=algorithm, curriculum="uniform", changes={"episodes": 512})
    keys = torch.cat([collect(trained)[1].problems.key for _ in range(4)])
    assert bool(in_split(keys, "train").all())
    everything = trainer(algorithm=algorithm, curriculum="uniform", changes={"episodes": 512, "split": "all"})
    keys = torch.cat([collect(everything)[1].problems.key for _ in range(4)])
    assert 0.1 < in_split(keys, "heldout").float().mean() < 0.3


def test_only_the_first_stages_are_trained_on() -> None:
    trained = trainer(changes={"stages": 2, "evaluate_every": 1})
    for _ in range(3):
        assert set(trained.draw()[1].stage.tolist()) <= {0, 1}
        metrics = trained.update()
    assert metrics.success[2] is None
    assert metrics.stages[2] == "only tested"
    assert metrics.greedy is not None
    assert len(metrics.greedy) == 3, "all are looked at now and then"
    assert len(stage_success(trained, 4, sampled=True)) == 2
    with pytest.raises(UserError, match="stages: 4 is not allowed; expected at most 3, the stages of arithmetic"):
        trainer(changes={"stages": 4})


def test_greedy_success_is_measured_on_the_train_split(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Arithmetic()
    trained, splits, sample = trainer(task, changes={"evaluate_every": 2}), [], task.sample
    monkeypatch.setattr(
        task, "sample", lambda stage, source, split: splits.append(split) or sample(stage, source, split)
    )
    found = [trained.update().greedy for _ in range(4)]
    assert [rates is None for rates in found] == [True, False, True, False]
    assert splits == ["train"] * 6


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_a_group_is_one_problem_played_several_times(algorithm: str) -> None:
    trained = trainer(algorithm=algorithm, curriculum="uniform", changes={"curricula": {"explore": 0.0}})
    draw, rollout = collect(trained)
    groups = rollout.problems.key.view(-1, 4)
    assert bool((groups == groups[:, :1]).all())
    assert len(groups[:, 0].unique()) > 4
    assert bool((draw.own_tokens.view(-1, 4) == draw.own_tokens.view(-1, 4)[:, :1]).all())
    actions = rollout.action.T.view(len(groups), 4, -1)
    assert bool((actions != actions[:, :1]).any(dim=(1, 2)).all()), "the actions are drawn apart"


def test_hints_force_what_the_curriculum_says() -> None:
    trained = trainer(changes={"episodes": 256})
    trained.curriculum.frontier.copy_(torch.tensor([2, 8, 5]))
    draw, rollout = collect(trained)
    length = program_length(trained.task.oracle(rollout.problems), trained.task.spec.end)
    hinted = (length - draw.own_tokens).clamp_min(0)
    time = torch.arange(len(rollout.action))[:, None]
    assert torch.equal(rollout.loss_mask, rollout.running & (time >= hinted))
    assert bool(rollout.loss_mask.any(0).all()), "every episode has a token to learn from"
    assert torch.equal(rollout.explored, rollout.loss_mask & (time == hinted) & (draw.explore > 0))
    assert bool((rollout.explored.sum(0) == (draw.explore > 0)).all())


def test_no_hints_where_the_oracle_fails() -> None:
    trained = trainer(Tutorial(), changes={"episodes": 256})
    assert program_lengths(trained.task).tolist() == [3, 4, 0]
    assert program_lengths(Arithmetic()).tolist() == [6, 8, 12]
    _, rollout = collect(trained)
    blocked = rollout.problems.stage == 2
    assert bool(blocked.any())
    assert torch.equal(rollout.loss_mask[:, blocked], rollout.running[:, blocked])
    assert not bool(rollout.loss_mask[0, ~blocked].any())


def test_updates_raise_the_return() -> None:
    """With the frontier kept at the last token there is one thing to learn: ANS ends a program rightly."""
    trained = trainer(changes={"updates": 25, "episodes": 128, "curricula": {"threshold": 0.999}})
    earned = [metrics.mean_return for metrics in trained]
    assert sum(earned[-3:]) / 3 > sum(earned[:3]) / 3 + 0.3


def test_the_budget_of_updates_is_kept() -> None:
    trained = trainer(changes={"updates": 3})
    assert [metrics.update for metrics in trained] == [1, 2, 3]
    assert [metrics.update for metrics in trained] == []


def test_the_gradient_is_clipped_and_reported_unclipped() -> None:
    """Adam hides the size of a gradient; its first average is a tenth of it."""
    trained = trainer(changes={"optimizer": {"max_grad_norm": 1e-3}, "loss": {"minibatches": 1}})
    metrics = trained.update()
    norm = torch.cat([average.flatten() for average in trained.optimizer.moments["exp_avg"]]).norm()
    assert float(norm) == pytest.approx(1e-4, rel=0.01)
    assert metrics.gradient_norm > 1e-3


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "reinforce"])
def test_algorithms_without_a_critic_leave_the_value_alone(algorithm: str) -> None:
    trained = trainer(algorithm=algorithm)
    row = len(trained.task.spec.vocabulary)
    before = trained.policy.heads.out.weight[row].clone()
    metrics = trained.update()
    assert torch.equal(trained.policy.heads.out.weight[row], before)
    assert metrics.explained_variance == 0


# Learning


class OneStage(Arithmetic):
    """T0 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = dataclasses.replace(self.spec, stages=("T0",))


@pytest.mark.learning
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_it_learns_to_multiply_and_add(algorithm: str) -> None:
    """With hints, from the outcome alone; half of the updates are usually enough."""
    changes = {
        "episodes": 256,
        "updates": 120,
        "policy": {"width": 32},
        "loss": {"minibatches": 4},
        "evaluate_every": 5,
    }
    trained = trainer(OneStage(), algorithm=algorithm, changes=changes)
    assert any((metrics.greedy or [0.0])[0] > 0.8 for metrics in trained)


@pytest.mark.slow
@pytest.mark.learning
def test_what_it_learns_of_three_operators_helps_with_four() -> None:
    """On paper every decision needs but a glance; half of the updates are usually enough."""
    changes = {"stages": 3, "episodes": 512, "updates": 160, "policy": {"stage_aware": False, "width": 64}}
    trained = trainer(Expressions(operators=6, memories=0, feedback="paper"), changes=changes)
    assert any(metrics.greedy[3] > 0.6 for metrics in trained if metrics.greedy)


@pytest.mark.slow
@pytest.mark.learning
def test_it_learns_to_search() -> None:
    """Operations done and taken back until one branch succeeds, from the reward alone; in one go it is less."""
    changes = {
        "episodes": 256,
        "updates": 150,
        "policy": {"width": 64, "copy_head": False},
        "loss": {"gamma": 0.97, "entropy_weight": 0.001, "minibatches": 4},
        "optimizer": {"learning_rate": 5e-3},
    }
    task = Countdown(numbers=3, tries=10, feedback="tried")
    trained = trainer(task, changes=changes, curriculum="threshold")
    assert any(metrics.greedy[0] > 0.5 for metrics in trained if metrics.greedy)


@pytest.mark.learning
def test_it_reads_an_expression_and_works_it_out() -> None:
    """Brackets and precedence from the text alone, hints being imitated; half of the updates are usually enough."""
    changes = {
        "episodes": 256,
        "updates": 80,
        "policy": {"reader": "gru", "width": 64},
        "loss": {"hint_weight": 1.0, "minibatches": 4},
        "optimizer": {"learning_rate": 3e-3},
    }
    trained = trainer(Expressions(operators=2), changes=changes)
    assert any(metrics.greedy[1] > 0.8 for metrics in trained if metrics.greedy)


class Paid(Arithmetic):
    """The pocket calculator, with another amount for a success."""

    amount = 1.0

    def step(self, state: Any, action: Tensor) -> Any:
        step = super().step(state, action)
        return dataclasses.replace(step, reward=step.reward * self.amount)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_thousands_and_millionths_are_learned_as_ones(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a power of two not even rounding differs; PPO's unit is a power of ten, and 1000 / 1000 is 1."""
    weights = {}
    amounts = (0.0, 1.0, 1000.0, 1e-6) if algorithm in ("ppo", "a2c") else (0.0, 1.0, 2.0**10, 2.0**-20)
    for amount in amounts:
        monkeypatch.setattr(Paid, "amount", amount)
        changes = {"stages": 1, "policy": {"width": 8}}
        trained = trainer(Paid(), changes=changes, algorithm=algorithm)
        assert len(list(trained)) == SMALL["updates"]
        weights[amount] = torch.cat([parameter.detach().flatten() for parameter in trained.parameters])
    assert not torch.equal(weights.pop(0.0), weights[1.0]), "what is paid is learned from"
    for amount in amounts[2:]:
        if algorithm == "grpo":
            torch.testing.assert_close(weights[amount], weights[1.0])
        else:
            assert torch.equal(weights[amount], weights[1.0]), amount
