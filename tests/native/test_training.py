"""The operators of a training, whole rollouts and gradients, against their plain definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modelnative as mn
import modelnative.native.gradient
import modelnative.native.play
from modelnative import native
from modelnative.native import kernel_threads, operators
from modelnative.policies.config import PolicyConfig
from modelnative.policies.policy import TokenPolicy
from modelnative.tasks import make_task
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training import trainer as trainer_module
from modelnative.training.gradient import action_log_probs, policy_gradient
from modelnative.training.rollout import COLUMNS, Plan, Rollout, empty_columns, play, play_columns
from modelnative.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not native.enabled(), reason=f"kernels: {native.describe()}")


def computes(operator: Callable[..., Any], *arguments: Any) -> bool:
    """Whether the kernel computes an operator."""
    kernel = operators.KERNELS[operator.__name__]
    flat = kernel.flatten(*arguments)
    return flat is not None and kernel.supports(*flat)


def randomized(policy: nn.Module, std: float = 0.3) -> Any:
    """The same policy with large weights, so that nothing is nearly uniform."""
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return policy


# Whole rollouts


def games(kind: str, n: int, seed: int) -> tuple[Any, Plan | None]:
    """Problems and a plan of each kind."""
    task, generator = Arithmetic(), torch.Generator().manual_seed(seed)
    problems = task.sample(torch.randint(3, (n,), generator=generator), generator)
    if kind == "greedy":
        return problems, None
    plan = Plan.sampled(problems, 12, generator)
    if kind == "hints":
        plan.program, plan.hints = task.oracle(problems), torch.randint(0, 13, (n,), generator=generator)
        plan.explore = torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) < 0.5)
        plan.delay = torch.randint(0, 4, (n,), generator=generator)
        plan.reach = torch.randint(1, 4, (n,), generator=generator)
    return problems, plan


def same_episodes(ours: Rollout, theirs: Rollout) -> Tensor:
    """Which episodes have the same actions; all else of these is the same, numbers of the policy up to rounding."""
    length = min(len(ours.action), len(theirs.action))
    ran = theirs.running[:length]
    same = ((ours.action[:length] == theirs.action[:length]) | ~ran).all(0)
    same &= ours.length == theirs.length
    for name in COLUMNS:
        own, other = (getattr(rollout, name)[:length, same] for rollout in (ours, theirs))
        mask = (theirs.loss_mask if name in ("behavior_log_prob", "value") else theirs.running)[:length, same]
        mask = torch.ones_like(mask) if name == "running" else mask
        torch.testing.assert_close(own[mask], other[mask], rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.success[same], theirs.success[same])
    return same


@pytest.mark.parametrize("kind", ["greedy", "sampled", "hints"])
@pytest.mark.parametrize(("stage_aware", "copy_head", "width"), [(True, True, 64), (False, False, 32)])
def test_whole_episodes(kind: str, stage_aware: bool, copy_head: bool, width: int) -> None:
    task = Arithmetic()
    shape = PolicyConfig(width=width, stage_aware=stage_aware, copy_head=copy_head)
    policy = randomized(TokenPolicy(task.spec, shape))
    for n in (1, 7, 300):
        problems, plan = games(kind, n, n)
        with torch.no_grad():
            assert computes(play_columns, policy, task, problems, plan, empty_columns(task, n, torch.device("cpu")))
        ours, theirs = (play(policy, task, problems, plan, final=final) for final in (False, True))
        assert float(same_episodes(ours, theirs).float().mean()) > 0.99
    if kind == "hints":
        assert bool(ours.explored.any())
        assert bool(ours.hint_mask.any())
    assert bool(ours.invalid.any())


def test_whole_episodes_do_not_depend_on_the_threads_or_on_each_other() -> None:
    task, policy = Arithmetic(), randomized(TokenPolicy(Arithmetic().spec, PolicyConfig()))
    problems, plan = games("hints", 700, 1)
    assert plan is not None
    whole = play(policy, task, problems, plan, final=False)
    with kernel_threads(3):
        again = play(policy, task, problems, plan, final=False)
    assert all(torch.equal(getattr(whole, name), getattr(again, name)) for name in COLUMNS)
    for rows in (torch.arange(1), torch.tensor([699, 5, 7]), torch.randperm(700)):
        part = play(policy, task, problems[rows], plan[rows], final=False)
        for name in COLUMNS:
            own, other = getattr(part, name), getattr(whole, name)[: len(part.action), rows]
            assert torch.equal(own[part.running], other[part.running]), name
        assert torch.equal(part.success, whole.success[rows])


def test_whole_episodes_are_written_to_a_part_of_larger_columns() -> None:
    task, policy = Arithmetic(), randomized(TokenPolicy(Arithmetic().spec, PolicyConfig()))
    problems, plan = games("sampled", 50, 2)
    columns = empty_columns(task, 80, torch.device("cpu"))
    into = {name: column[:, 20:70] if name in COLUMNS else column[20:70] for name, column in columns.items()}
    part, alone = (play(policy, task, problems, plan, final=False, into=given) for given in (into, None))
    for name in COLUMNS:
        assert torch.equal(getattr(part, name), getattr(alone, name))
        assert not bool(columns[name][:, :20].any() | columns[name][:, 70:].any())


def test_other_policies_and_tasks_are_played_step_by_step() -> None:
    task, n = Arithmetic(), 4
    problems, columns = games("greedy", n, 0)[0], empty_columns(task, n, torch.device("cpu"))

    def played(policy: nn.Module, of: Any = task) -> bool:
        return computes(play_columns, policy, of, problems, None, columns)

    class Own(TokenPolicy):
        pass

    class Strict(Arithmetic):
        pass

    def policy(**shape: Any) -> TokenPolicy:
        return TokenPolicy(task.spec, PolicyConfig(**shape))

    assert played(policy())
    assert not played(Own(task.spec, PolicyConfig()))
    assert not played(policy(), Strict())
    assert not played(policy(), Arithmetic(reward="milestone"))
    assert not played(policy(), make_task("arithmetic", feedback="none"))
    assert not played(policy(layers=2))
    assert not played(policy(reader="gru"))
    assert not played(policy(width=24))
    assert not played(policy().double())
    hooked = policy()
    hooked.core.register_forward_hook(lambda *_: None)
    assert not played(hooked)
    patched, broken = policy(), Arithmetic()
    patched.forward = patched.forward  # type: ignore[method-assign]
    assert not played(patched)
    broken.step = broken.step  # type: ignore[method-assign]
    assert not played(policy(), broken)


# Gradients


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """From now on trainers compute every gradient twice; whether the kernel did one of them."""
    seen: list[bool] = []

    def both(*arguments: Any) -> list[Tensor]:
        seen.append(computes(policy_gradient, *arguments))
        ours, theirs = policy_gradient(*arguments), policy_gradient.__wrapped__(*arguments)  # type: ignore[attr-defined]
        for own, other in zip(ours, theirs, strict=True):
            assert own.shape == other.shape
            scale = float(other.abs().max()) + 1e-6
            torch.testing.assert_close(own / scale, other / scale, rtol=1e-3, atol=2e-4)
        return ours

    monkeypatch.setattr(trainer_module, "policy_gradient", both)
    return seen


@pytest.mark.parametrize(
    ("task", "fields", "names"),
    [
        ("arithmetic", {}, {}),
        ("arithmetic", {"policy": {"copy_head": False, "stage_aware": False}}, {"curriculum": "uniform"}),
        ("arithmetic", {"loss": {"hint_weight": 0.3, "imitation_weight": 0.0, "epochs": 2}}, {}),
        ("arithmetic", {"options": {"feedback": "none"}}, {"curriculum": "uniform"}),
        ("arithmetic", {}, {"algorithm": "grpo"}),
        ("arithmetic", {}, {"algorithm": "reinforce"}),
        ("hops", {}, {}),
        ("expressions", {}, {}),
    ],
)
def test_the_gradient_of_a_minibatch(
    task: str, fields: dict[str, Any], names: dict[str, Any], compared: list[bool]
) -> None:
    small = {"episodes": 160, "threads": 2, "loss": {"minibatches": 2}, "policy": {"width": 32}}
    config = mn.with_fields(mn.with_fields(mn.recipe(task, **names), small), fields)
    trainer = Trainer(make_task(task, **config.options), config)
    trainer.update()
    randomized(trainer.policy)
    trainer.update()
    assert compared
    assert all(compared)


def test_a_gradient_of_some_parameters_is_autograd_s(compared: list[bool]) -> None:
    trainer = Trainer(Arithmetic(), mn.with_fields(mn.recipe(), {"episodes": 64}))
    trainer.parameters = trainer.parameters[1:]
    trainer.optimizer.parameters = trainer.parameters
    trainer.update()
    assert compared
    assert not any(compared)


@pytest.mark.parametrize("task", ["arithmetic", "hops"])
def test_the_log_probabilities_of_some_episodes(task: str) -> None:
    small = {"episodes": 160, "policy": {"width": 32}}
    trainer = Trainer(make_task(task), mn.with_fields(mn.recipe(task), small))
    randomized(trainer.policy)
    rollout = trainer.collect()[0]
    arguments = (trainer.policy, rollout, rollout.length, torch.arange(150, 5, -3))
    assert computes(action_log_probs, *arguments)
    ours, theirs = action_log_probs(*arguments), action_log_probs.__wrapped__(*arguments)  # type: ignore[attr-defined]
    running = rollout.running[:, arguments[-1]]
    assert len(set(running.sum(0).tolist())) > 1
    torch.testing.assert_close(ours[running], theirs[running], rtol=1e-4, atol=1e-5)
    alone = action_log_probs(*arguments[:-1], torch.tensor([12]))[:, 0]
    assert torch.equal(alone, ours[:, arguments[-1].tolist().index(12)]), "each row is independent of the others"
