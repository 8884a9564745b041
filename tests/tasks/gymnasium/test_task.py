"""Gymnasium environments as tasks: the same episodes as played by hand, whatever order states are stepped in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import modelnative as mn
from modelnative.errors import UserError
from modelnative.runs.run import Run
from modelnative.tasks import importing
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.gymnasium.task import GymnasiumTask
from modelnative.tasks.importing import require_trusted, trust
from modelnative.training.algorithm import generalized_advantages
from modelnative.training.rollout import Plan, play

LOCKS = "gymnasium:rooms:rooms/Locks-v0"
TASKS: dict[str, Callable[[], mn.Task]] = {
    "FrozenLake": lambda: mn.make("gymnasium:FrozenLake-v1", horizon=9),
    "CartPole": lambda: mn.make("gymnasium:CartPole-v1", horizon=9, threshold=9),
    "Locks": lambda: mn.make(LOCKS),
}
MADE = {name: make() for name, make in TASKS.items()}


def random_actions(task: GymnasiumTask, n: int, seed: int) -> torch.Tensor:
    """Tokens int64 [horizon, n]; few of them no action."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(task.spec.horizon) % len(task.sizes)
    sizes = torch.tensor(task.sizes)[places][:, None]
    return (torch.rand(task.spec.horizon, n, generator=generator) * sizes).long()


@pytest.mark.parametrize("name", TASKS)
def test_the_contract_holds(name: str) -> None:
    check_task(MADE[name], samples=12)


@pytest.mark.parametrize("name", TASKS)
def test_episodes_are_those_of_the_environment(name: str) -> None:
    """Each row pays, ends and shows what its environment does when it is played alone, by hand."""
    task, n = MADE[name], 6
    problems = task.sample(torch.zeros(n, dtype=torch.int64), torch.Generator().manual_seed(1))
    actions = random_actions(task, n, 2)
    state, rows = task.begin(problems), []
    for action in actions:
        step = task.step(state, action)
        state = step.state
        rows.append((step.reward, step.done, step.success, task.truncated(state), step.feedback))
    kinds = {"FrozenLake": "FrozenLake-v1", "CartPole": "CartPole-v1", "Locks": "rooms/Locks-v0"}
    for i, seed in enumerate(problems.key.tolist()):
        environment = gymnasium.make(kinds[name], max_episode_steps=None if name == "Locks" else 9)
        first, _ = environment.reset(seed=seed)
        assert task.feedback(task.begin(problems))[i, : task._encode.width].tolist() == tokens(task, environment, first)
        total, parts = 0.0, len(task.sizes)
        for t in range(0, len(actions), parts):
            action = actions[t : t + parts, i].numpy()
            observation, reward, terminated, truncated, _ = environment.step(action if parts > 1 else action[0])
            total += float(reward)
            paid, done, success, cut, shown = (column[i] for column in rows[t + parts - 1])
            assert float(paid) == np.float32(reward)
            assert bool(done) == (terminated or truncated)
            assert bool(cut) == (truncated and not terminated)
            assert bool(success) == ((terminated or truncated) and total >= task.threshold)
            assert shown[: task._encode.width].tolist() == tokens(task, environment, observation)
            if terminated or truncated:
                break
        environment.close()
        assert bool(state.done[i])


def tokens(task: GymnasiumTask, environment: gymnasium.Env, observation: Any) -> list[int]:
    from modelnative.tasks.gymnasium.spaces import flattener

    return task._encode(flattener(environment.observation_space)(observation)[None])[0].tolist()


def test_an_old_state_can_be_stepped_again() -> None:
    """A state that no live environment stands at is replayed from its seed."""
    task = TASKS["CartPole"]()
    problems = task.sample(torch.zeros(3, dtype=torch.int64), torch.Generator().manual_seed(0))
    actions = random_actions(task, 3, 1)
    states = [task.begin(problems)]
    for action in actions[:5]:
        states.append(task.step(states[-1], action).state)
    assert task.positions.replayed == 0, "an episode that is played once is never replayed"
    for state, action, after in reversed(list(zip(states, actions[:5], states[1:], strict=False))):
        again = task.step(state, action).state
        assert all(torch.equal(a, b) for a, b in zip(again.fields(), after.fields(), strict=True))
    assert task.positions.replayed > 0


def test_parts_of_an_action_are_shown_until_it_is_whole() -> None:
    task = MADE["Locks"]
    assert (task.sizes, task.spec.horizon, task.spec.feedback_width) == ([2, 3], 12, 2 + 1 + 2 * 2 + 1 + 1 + 1)
    state = task.begin(task.parse(0, "7"))
    end = task.spec.end
    assert task.feedback(state)[0, -1] == end
    step = task.step(state, torch.tensor([1]))
    assert (step.feedback[0, -1], bool(step.invalid)) == (1, False)
    assert torch.equal(step.feedback[:, :-1], task.feedback(state)[:, :-1]), (
        "nothing happens before the action is whole"
    )
    first_part_only = task.step(state, torch.tensor([2]))
    assert bool(first_part_only.invalid), "the first part has two values"
    assert bool(task.step(step.state, torch.tensor([end])).invalid)
    assert [task.valid(s)[0].nonzero()[:, 0].tolist() for s in (state, step.state)] == [[0, 1], [0, 1, 2]]
    assert task.step(step.state, torch.tensor([2])).feedback[0, -1] == end


def test_workers_answer_as_the_process_itself() -> None:
    plain, spread = MADE["Locks"], mn.make(LOCKS, processes=2)
    problems = plain.sample(torch.zeros(5, dtype=torch.int64), torch.Generator().manual_seed(3))
    states = plain.begin(problems), spread.begin(problems)
    for action in random_actions(plain, 5, 4):
        steps = [task.step(state, action) for task, state in zip((plain, spread), states, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(steps[0].state.fields(), steps[1].state.fields(), strict=True))
        assert torch.equal(steps[0].reward, steps[1].reward)
        states = steps[0].state, steps[1].state
    workers = spread.positions._bank._workers.processes
    for worker in workers:
        worker.kill()
        worker.join()
    with pytest.raises(UserError, match=r"^processes: a worker of gymnasium:rooms:rooms/Locks-v0 is gone"):
        spread.begin(problems)
    spread.positions._bank.close()


def test_a_time_limit_is_bootstrapped_and_is_no_failure() -> None:
    task = mn.make("gymnasium:CartPole-v1", horizon=12, threshold=12)
    policy = mn.Trainer(task, mn.recipe("gymnasium:CartPole-v1")).policy
    problems = task.sample(torch.zeros(40, dtype=torch.int64), torch.Generator().manual_seed(0))
    rollout = play(policy, task, problems, Plan.sampled(problems, task.spec.horizon, torch.Generator().manual_seed(1)))
    cut = task.truncated(rollout.final)
    assert 0 < int(cut.sum()) < 40
    assert bool((rollout.success | ~cut).all()), "the return of 12 is reached by whoever is cut"
    assert torch.equal(rollout.bootstrap != 0, cut)
    # The value that a fresh forward pass has after the last action.
    last = rollout.feedback.clone(), rollout.token.clone()
    feedback = torch.cat([last[0], task.feedback(rollout.final)[None]])
    token = torch.cat([last[1], rollout.action[-1:]])
    value = policy(token, feedback, policy.initial_state(problems)).value[-1]
    assert torch.allclose(rollout.bootstrap[cut], value[cut], atol=1e-5)
    one_step = generalized_advantages(rollout, 0.9, 0.0)[-1]
    assert torch.allclose(one_step[cut], (rollout.reward[-1] + 0.9 * value - rollout.value[-1])[cut], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "CartPol-v1",
            {},
            "task: 'gymnasium:CartPol-v1' is not allowed; Environment `CartPol` doesn't exist. Did you mean",
        ),
        (
            "Pendulum-v1",
            {"threshold": 0},
            "gymnasium:Pendulum-v1: action space Box is not supported; expected Discrete",
        ),
        ("Blackjack-v1", {}, "threshold: is missing, and gymnasium:Blackjack-v1 has no reward_threshold; expected"),
        (
            "Blackjack-v1",
            {"threshold": 1},
            "horizon: is missing, and gymnasium:Blackjack-v1 has no time limit; expected",
        ),
        ("CartPole-v1", {"threshold": "high"}, "threshold: 'high' is not allowed; expected a finite number"),
        ("CartPole-v1", {"bins": 1}, "bins: 1 is not allowed; expected a number from 2"),
        ("CartPole-v1", {"horizon": -1}, "horizon: -1 is not allowed; expected a number from 0"),
        ("CartPole-v1", {"slippery": 1}, "task: 'gymnasium:CartPole-v1' cannot be made; TypeError: .*'slippery'"),
        ("nowhere:Env-v0", {}, "task: 'gymnasium:nowhere:Env-v0' cannot be made; ModuleNotFoundError: No module named"),
        ("", {}, "task: 'gymnasium:' cannot be made; Error: Malformed environment ID"),
    ],
)
def test_bad_input_is_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        mn.make(f"gymnasium:{name}", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_environment_that_raises_is_one_line(processes: int) -> None:
    task = mn.make(LOCKS, processes=processes, fails_at=-1)
    failing = mn.make(LOCKS, processes=processes, fails_at=0) if processes else None
    if failing is None:
        import rooms

        failing, broken = task, rooms.Locks(fails_at=0)
        task.positions._bank._make = lambda: broken
    state = failing.begin(failing.parse(0, "1"))
    state = failing.step(state, torch.tensor([0])).state
    with pytest.raises(UserError, match="Locks-v0: the environment's step raised RuntimeError: the lock is stuck"):
        failing.step(state, torch.tensor([0]))


def test_hints_are_refused_and_the_recipe_needs_none() -> None:
    task = MADE["FrozenLake"]
    with pytest.raises(
        UserError, match="curriculum: Hints needs an oracle, and the task gymnasium:FrozenLake-v1 has none"
    ):
        mn.Trainer(task, mn.recipe(task.spec.name, curriculum="hints"))
    assert mn.recipe(task.spec.name).curriculum == "uniform"
    assert mn.recipe(task).options == task.options()


def test_only_the_module_of_an_environment_needs_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_trusted", set())
    require_trusted("file", {"task": "gymnasium:CartPole-v1"})
    with pytest.raises(
        UserError, match="would run the code of the module 'stranger'; if you trust it, add --trust stranger"
    ):
        require_trusted("file", {"task": "gymnasium:stranger:Env-v0"})
    trust("gymnasium:stranger:Env-v0")
    require_trusted("file", {"task": "gymnasium:stranger:Env-v0"})


def test_an_interrupted_run_continues_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    task = mn.make("gymnasium:FrozenLake-v1", is_slippery=False, evaluation_size=4, horizon=10)
    config = mn.with_fields(mn.recipe(task), {"updates": 3, "episodes": 8, "policy": {"width": 8}, "threads": 1})

    def interrupt(event: mn.Event) -> None:
        if isinstance(event, mn.Updated) and event.metrics.update == 1:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        mn.train(task, config, out=tmp_path / "run", callbacks=[interrupt])
    mn.resume(tmp_path / "run")
    whole = mn.train(task, config, out=tmp_path / "whole")
    weights = [Run.open(tmp_path / name).weights() for name in ("run", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    counts = json.loads((tmp_path / "run/result.json").read_text())["evaluation"]["counts"]
    assert {count["problems"] for count in counts} == {4}
    assert all(count["mean_return"] == count["rate"] for count in counts), "a goal pays 1"
    assert mn.load(tmp_path / "run").task.options() == task.options()
    assert whole.run.config.task == "gymnasium:FrozenLake-v1"


@pytest.mark.learning
def test_the_frozen_lake_is_learned_until_the_success_that_is_asked_for(tmp_path: Path) -> None:
    task = mn.make("gymnasium:FrozenLake-v1", is_slippery=False, evaluation_size=50)
    fields = {"updates": 60, "policy": {"width": 32}, "threads": 1, "alarms": "stop", "target_success": 0.8}
    finished = mn.train(task, mn.with_fields(mn.recipe(task), fields), out=tmp_path / "run")
    assert finished.updates < 60
    heldout = finished.evaluation.total(split="heldout")
    assert heldout.rate == heldout.mean_return == 1, "greedy, from the one start there is"
