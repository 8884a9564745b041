"""What a user can put into a training: a policy, a curriculum, an algorithm, callbacks, a task without an oracle."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import own
import pytest
import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.policies.config import CORES, PolicyConfig
from modelnative.policies.contract import forward_rollout
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training.algorithms import GRPO, PPO
from modelnative.training.checkpoint import restore, state_of
from modelnative.training.config import CURRICULA, with_fields
from modelnative.training.curricula import Threshold, Uniform
from modelnative.training.curriculum import Draw
from modelnative.training.dynamic_sampling import replace_rejected
from modelnative.training.events import Callback, Event, Started, Updated
from modelnative.training.recipes import recipe
from modelnative.training.rollout import COLUMNS, Rollout, play
from modelnative.training.trainer import Trainer

SMALL = {"episodes": 32, "updates": 3, "policy": {"width": 16}, "loss": {"minibatches": 2, "num_generations": 4}}


def trainer(task: Any = None, *, changes: dict[str, Any] | None = None, names: Any = (), **given: Any) -> Trainer:
    config = with_fields(with_fields(recipe(**dict(names)), SMALL), changes or {})
    return Trainer(task or Arithmetic(), config, **given)


def lstm(task: Arithmetic | None = None) -> own.LSTM:
    torch.manual_seed(3)
    return own.LSTM((task or Arithmetic()).spec, PolicyConfig(width=16))


# Policies


@pytest.mark.parametrize("core", [*CORES, "own:LSTM", "own:Average"])
def test_every_action_of_a_training_has_the_probability_of_a_fresh_forward_pass(core: str) -> None:
    """Of the trained policy, after updates; so that the loss compares like with like."""
    trained = trainer(changes={"core": core, "curriculum": "uniform", "curricula": {"explore": 0.0}})
    for _ in range(3):
        trained.update()
        _, problems, plan = trained.draw()
        rollout = trained.play(problems, plan)
        output = forward_rollout(trained.policy, problems, rollout.token, rollout.feedback, rollout.length, None)
        log_probs = output.log_probs.view(*rollout.action.shape, -1).gather(-1, rollout.action[..., None])[..., 0]
        running = rollout.running
        torch.testing.assert_close(rollout.behavior_log_prob[running], log_probs[running], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            rollout.value[running], output.value.view_as(rollout.value)[running], atol=1e-4, rtol=1e-4
        )


def test_a_module_that_is_no_policy_learns() -> None:
    """With the frontier kept at the last token there is one thing to learn: ANS ends a program rightly."""
    changes = {"updates": 25, "episodes": 128, "curricula": {"threshold": 0.999}, "optimizer": {"learning_rate": 0.01}}
    earned = [metrics.mean_return for metrics in trainer(policy=lstm(), changes=changes)]
    assert sum(earned[-3:]) / 3 > sum(earned[:3]) / 3 + 0.3


def test_a_policy_by_name_and_as_an_object_are_the_same() -> None:
    named = trainer(changes={"core": "own:LSTM"})
    given = trainer(policy=copy.deepcopy(named.policy))
    for _ in range(2):
        named.update()
        given.update()
    for one, other in zip(named.policy.parameters(), given.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_policy_in_double_precision_is_trained() -> None:
    trained = trainer(policy=lstm().double())
    before = [parameter.clone() for parameter in trained.policy.parameters()]
    metrics = trained.update()
    assert metrics.gradient_norm > 0
    assert all(parameter.dtype == torch.float64 for parameter in trained.policy.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, trained.policy.parameters(), strict=True))


def test_parameters_that_need_no_gradient_stay_as_they_are() -> None:
    """And the training continues from a checkpoint, whose optimizer knows the others alone."""

    def frozen() -> own.LSTM:
        policy = lstm()
        policy.context.requires_grad_(False)
        return policy

    trained, straight = trainer(policy=frozen()), trainer(policy=frozen())
    before = trained.policy.context.weight.clone()
    trained.update()
    assert torch.equal(trained.policy.context.weight, before)
    tensors, counters = state_of(trained)
    assert "policy.context.weight" in tensors
    assert "optimizer.context.weight.exp_avg" not in tensors
    resumed = trainer(policy=frozen())
    restore(resumed, {name: tensor.clone() for name, tensor in tensors.items()}, counters)
    for run in (straight, straight, resumed):
        run.update()
    for one, other in zip(resumed.policy.parameters(), straight.policy.parameters(), strict=True):
        assert torch.equal(one, other)


# Curricula


def test_a_curriculum_as_an_object() -> None:
    task = Arithmetic()
    curriculum = own.Last.for_task(task)
    trained = trainer(task, curriculum=curriculum)
    assert trained.curriculum is curriculum
    assert trained.draw()[1].stage.unique().tolist() == [2]
    trained.update()
    assert curriculum.seen.tolist()[:2] == [False, False]
    assert f"curriculum.{'success'}" in state_of(trained)[0]


def test_names_of_ones_own() -> None:
    names = {"core": "own:Average", "algorithm": "own:Plain", "curriculum": "own:Last"}
    config = recipe(**names)
    assert (config.episodes, config.loss.value_weight) == (77, 0.0), "each brings its recipe"
    assert config.optimizer.learning_rate == pytest.approx(0.0123 * 0.25)
    trained = trainer(names=names)
    kinds = (type(trained.policy.core), type(trained.algorithm), type(trained.curriculum))
    assert kinds == (own.Average, own.Plain, own.Last)
    trained.update()


@pytest.mark.parametrize("field", ["core", "algorithm", "curriculum"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own:Nothing", r"'own:Nothing' is not allowed; cannot import own:Nothing: there is no 'Nothing'"),
        ("nowhere:Own", r"'nowhere:Own' is not allowed; cannot import nowhere:Own: no module named 'nowhere'"),
        (
            "own:WithoutOracle",
            r"'own:WithoutOracle' is not allowed; expected a subclass of (Module|Algorithm|Curriculum)",
        ),
        ("own:discounted_returns", r"'own:discounted_returns' is not allowed; expected a subclass of"),
    ],
)
def test_a_name_that_is_wrong(field: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{field}: {message}") as error:
        trainer(changes={field: name})
    assert "\n" not in str(error.value)


# Tasks without an oracle


@pytest.mark.parametrize("curriculum", [name for name in CURRICULA if name not in ("hints", "regret")])
def test_a_task_without_an_oracle_is_learned_from_the_start(curriculum: str) -> None:
    task = own.WithoutOracle()
    trained = trainer(task, changes={"curriculum": curriculum})
    assert trained.curriculum.lengths.tolist() == [task.spec.horizon] * 3
    for _ in range(2):
        metrics = trained.update()
    if curriculum == "self-imitation":
        return  # its hints are programs that solved problems
    assert metrics.excess is None
    _, problems, plan = trained.draw()
    assert not bool(plan.hints.any())
    assert torch.equal((rollout := trained.play(problems, plan)).loss_mask, rollout.running)


@pytest.mark.parametrize("curriculum", ["hints", "regret"])
def test_what_needs_an_oracle_is_refused(curriculum: str) -> None:
    message = r"^curriculum: \w+ needs an oracle, and the task arithmetic has none; choose another curriculum, such as"
    with pytest.raises(UserError, match=message) as error:
        trainer(own.WithoutOracle(), changes={"curriculum": curriculum})
    assert "\n" not in str(error.value)


# Callbacks


class Recorder(Callback):
    """Notes which methods were called, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_start(self, event: Started) -> None:
        self.calls.append(("start", event))

    def on_update(self, event: Updated) -> None:
        self.calls.append(("update", event))


def test_callbacks_are_called_with_every_event_in_order() -> None:
    recorder, events = Recorder(), []
    trained = trainer(callbacks=[recorder, events.append, Callback()])
    metrics = list(trained)
    assert [type(event) for event in events] == [Started, Updated, Updated, Updated]
    assert [name for name, _ in recorder.calls] == ["start", "update", "update", "update"]
    assert [event for _, event in recorder.calls] == events
    assert [event.metrics for event in events[1:]] == metrics
    assert all(event.trainer is trained for event in events)
    assert events[0].run is None
    assert events[0].update == 0
    assert events[0].stages == trained.task.spec.stages
    assert events[0].parameters == sum(parameter.numel() for parameter in trained.policy.parameters())
    assert 0 < events[1].elapsed < events[2].elapsed < events[3].elapsed


def test_a_callback_dispatches_by_the_kind_of_event() -> None:
    class Unknown(Event):
        method: ClassVar[str] = "on_something_else"

    recorder = Recorder()
    recorder(Event())
    recorder(Unknown())
    assert recorder.calls == [], "events that it has no method for are ignored"
    recorder(Started(None, 0, (), 0))
    assert [name for name, _ in recorder.calls] == ["start"]


def test_a_callback_that_raises_stops_the_training_with_its_error() -> None:
    class Full(Exception):
        pass

    def fail(event: Event) -> None:
        if isinstance(event, Updated) and event.metrics.update == 2:
            raise Full("no more")

    after: list[Event] = []
    trained = trainer(callbacks=[fail, after.append])
    seen = []
    with pytest.raises(Full, match="no more"):
        seen.extend(trained)
    assert trained.updates == 2
    assert len(after) == 2, "Started and the first Updated"


def test_callbacks_change_nothing_of_what_is_learned() -> None:
    plain, watched = trainer(), trainer(callbacks=[Recorder()])
    assert [m.policy_loss for m in plain] == [m.policy_loss for m in watched]


# Algorithms: which episodes are kept, and what the loss is divided by


class Kept(PPO):
    """Keeps episodes by a rule; notes what it was given to judge and to learn from."""

    rounds: ClassVar[int] = 3
    judged: list[Rollout]
    learned: list[Rollout]

    def keep(self, rollout: Rollout) -> Tensor | None:
        self.judged.append(rollout)
        return rollout.problems.key % 2 == 0

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        self.learned.append(rollout)
        return super().advantages(rollout)


class Observed(Uniform):
    """Notes what it was shown."""

    seen_draws: list[tuple[Draw, Tensor]]

    def observe(self, draw: Draw, success: Tensor) -> None:
        self.seen_draws.append((draw, success))
        super().observe(draw, success)


def sampling(kind: type[PPO] | type[GRPO] = Kept, **changes: Any) -> Trainer:
    task = Arithmetic()
    curriculum = Observed.for_task(task)
    curriculum.seen_draws = []
    trained = trainer(task, curriculum=curriculum, changes=changes)
    trained.algorithm = kind(trained.config.loss)
    trained.algorithm.judged, trained.algorithm.learned = [], []  # type: ignore[union-attr]
    return trained


def test_rejected_episodes_are_replaced_and_all_are_counted() -> None:
    trained = sampling()
    metrics = trained.update()
    judged, [learned] = trained.algorithm.judged, trained.algorithm.learned
    assert 2 <= len(judged) <= 3
    assert len(learned.success) == 32
    assert metrics.episodes == 32 * len(judged)
    assert metrics.steps == sum(int(rollout.length.sum()) for rollout in judged)
    assert [len(success) for _, success in trained.curriculum.seen_draws] == [32] * len(judged)
    for (_, success), rollout in zip(trained.curriculum.seen_draws, judged, strict=True):
        assert torch.equal(success, rollout.success)
    wanted = torch.cat([rollout.problems.key[rollout.problems.key % 2 == 0] for rollout in judged])[:32]
    assert torch.equal(learned.problems.key[: len(wanted)], wanted)
    trained.update()
    assert trained.episodes == 32 * len(judged)
    assert trained.updates == 2


def test_where_too_few_are_kept_rejected_ones_fill_up() -> None:
    class None_(Kept):
        def keep(self, rollout: Rollout) -> Tensor | None:
            self.judged.append(rollout)
            return torch.zeros_like(rollout.success)

    trained = sampling(None_)
    metrics = trained.update()
    assert metrics.episodes == 3 * 32
    first, [learned] = trained.algorithm.judged[0], trained.algorithm.learned
    assert torch.equal(learned.problems.key, first.problems.key)
    assert torch.equal(learned.success, first.success)


@pytest.mark.parametrize("answer", [None, True])
def test_no_more_is_drawn_than_needed(answer: bool | None) -> None:
    """An algorithm that keeps all learns exactly as one that never judges."""

    class All(Kept):
        def keep(self, rollout: Rollout) -> Tensor | None:
            return None if answer is None else torch.ones_like(rollout.success)

    trained, plain = sampling(All), sampling(PPO)
    assert trained.update().episodes == plain.update().episodes == 32
    for one, other in zip(trained.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_whole_groups_are_replaced() -> None:
    """As DAPO does: a group whose episodes all have the same return teaches nothing."""

    class Dynamic(GRPO):
        rounds: ClassVar[int] = 2
        judged: list[Rollout]
        learned: list[Rollout]

        def keep(self, rollout: Rollout) -> Tensor | None:
            keep = rollout.problems.key.view(-1, 4)[:, 0] % 2 == 0
            return keep.repeat_interleave(4)

        def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
            self.learned.append(rollout)
            return super().advantages(rollout)

    trained = sampling(Dynamic, loss={"value_weight": 0.0})
    trained.update()
    groups = trained.algorithm.learned[0].problems.key.view(-1, 4)
    assert bool((groups == groups[:, :1]).all()), "groups stay side by side"


def test_rollouts_of_different_lengths_are_joined(make_rollout) -> None:
    short, long = make_rollout(6, 0, horizon=3), make_rollout(6, 1, horizon=9)
    kept = torch.tensor([True, False, True, False, False, False])
    joined = replace_rejected([(short, kept), (long, ~kept)], 6)
    steps = max(len(short.action), len(long.action))
    assert len(joined.action) == steps
    sources = [(short, 0), (short, 2), (long, 1), (long, 3), (long, 4), (long, 5)]
    for i, (rollout, row) in enumerate(sources):
        length = len(rollout.action)
        assert joined.success[i] == rollout.success[row]
        for name in COLUMNS:
            column = getattr(joined, name)[:, i]
            assert torch.equal(column[:length], getattr(rollout, name)[:, row])
            assert not bool(column[length:].any())


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_loss_is_divided_by_what_the_algorithm_says(factor: float) -> None:
    class Divided(PPO):
        calls: list[tuple[int, int, int]]

        def loss_denominator(self, tokens: Tensor, episodes: int, horizon: int) -> Tensor | float:
            self.calls.append((int(tokens), episodes, horizon))
            return factor * super().loss_denominator(tokens, episodes, horizon)

    plain, divided = sampling(PPO, alarms="off"), sampling(Divided, alarms="off")
    divided.algorithm.calls = []
    one, other = plain.update(), divided.update()
    assert len(divided.algorithm.calls) == 2
    assert all(episodes == 16 and horizon == 12 for _, episodes, horizon in divided.algorithm.calls)
    assert sum(tokens for tokens, *_ in divided.algorithm.calls) == other.steps, "without hints, every action"
    assert other.entropy == pytest.approx(one.entropy / factor, rel=0.02)


# Play, and continuing


def test_greedy_play_of_a_module_that_is_no_policy() -> None:
    task = Arithmetic()
    problems = task.sample(torch.arange(30) % 3, torch.Generator().manual_seed(0))
    policy = lstm(task)
    whole, some = play(policy, task, problems), play(policy, task, problems[torch.arange(0, 30, 7)])
    steps = len(some.action)
    assert torch.equal(whole.action[:steps, ::7][some.running], some.action[some.running])


def test_a_curriculum_of_another_class_is_not_restored() -> None:
    trained = trainer(changes={"curriculum": "uniform"})
    other = trainer(curriculum=Threshold.for_task(Arithmetic()))
    with pytest.raises((KeyError, RuntimeError), match="opened"):
        restore(other, *state_of(trained))
