"""Tasks as Gymnasium environments: the interface, and the same episodes one by one and in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from torch import Tensor
from worlds import Small

import modelnative as mn
from modelnative.bridges.gymnasium import Env, VectorEnv, register_envs
from modelnative.bridges.registration import environment_id
from modelnative.errors import UserError
from modelnative.tasks import TASKS
from modelnative.tasks.contract.task import AnyTask, Problems, Split, State, Step, Task, TaskSpec, in_split

EPISODES = 5
MODES = list(AutoresetMode)


@dataclass
class Target(State):
    """An episode of `Guess`, with the token to type."""

    target: Tensor


class Guess(Task[Problems, State]):
    """Type the token that is shown. It has no oracle, no enumeration and no text."""

    def __init__(self) -> None:
        self.spec = TaskSpec(
            name="guess",
            vocabulary=("a", "b", "c", "END"),
            stages=("G",),
            context_length=1,
            feedback_width=0,
            horizon=3,
            start=3,
            end=3,
        )

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> Problems:
        allowed = torch.arange(3)[in_split(torch.arange(3), split)]
        key = allowed[torch.randint(len(allowed), stage.shape, generator=generator)]
        return Problems(stage, key[:, None], key)

    def begin(self, problems: Problems) -> Target:
        return Target(torch.zeros_like(problems.stage, dtype=torch.bool), problems.key)

    def step(self, state: State, action: Tensor) -> Step[State]:
        assert isinstance(state, Target)
        success = (action == state.target) & ~state.done
        invalid = (action != state.target) & ~state.done
        after = Target(state.done | success, state.target)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def feedback(self, state: State) -> Tensor:
        return torch.zeros(len(state), 0, dtype=torch.int64)

    def records(self, problems: Problems, state: State) -> list[dict[str, Any]]:
        return [{"answer": None, "target": key} for key in problems.key.tolist()]

    def registers(self, state: State, i: int) -> dict[str, str]:
        return {"display": ""}


FAMILIES = [*TASKS, "toolbox:TASK", pytest.param(Guess(), id="no oracle")]


def test_every_task_is_found_by_its_id() -> None:
    register_envs()
    register_envs()  # what is registered stays, without a warning
    for task in TASKS:
        assert gymnasium.spec(environment_id(task)).vector_entry_point == "modelnative.bridges.gymnasium:VectorEnv"
    env = gymnasium.make("modelnative/Recall-v0", symbols=4, stages=["L1"], split="heldout")
    assert env.unwrapped.task.options()["symbols"] == 4
    env.reset(seed=0)
    assert env.step(0)[4]["action_mask"].shape == (8,)
    envs = gymnasium.make_vec("modelnative/Recall-v0", num_envs=3, symbols=4, autoreset_mode="SameStep")
    assert (type(envs), envs.num_envs, envs.metadata["autoreset_mode"]) == (VectorEnv, 3, AutoresetMode.SAME_STEP)
    check_env(gymnasium.make("modelnative/Arithmetic-v0").unwrapped)


@pytest.mark.parametrize("task", FAMILIES)
def test_the_mask_is_what_the_task_accepts(task: AnyTask | str) -> None:
    envs = VectorEnv(task, 4, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    random = np.random.default_rng(1)
    for _ in range(3):
        assert (envs.action_masks() == envs.task.valid(envs.state).numpy()).all()
        *_, terminated, truncated, infos = envs.step(actions(envs.task, 4, random))
        assert (infos["action_mask"] == envs.action_masks()).all()
        if (terminated | truncated).any():
            assert envs.action_masks()[terminated].all()
            envs.reset(options={"reset_mask": terminated | truncated})


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[str]:
    """The id of an environment in Gymnasium's registry."""
    name = "modelnative-test-v0"
    gymnasium.register(name, entry_point="modelnative.bridges.gymnasium:Env", kwargs={"task": request.param})
    yield name
    del gymnasium.registry[name]


@pytest.mark.parametrize("registered", FAMILIES, indirect=True)
def test_gymnasium_finds_no_fault(registered: str) -> None:
    """Warnings are errors in this suite, so there is none."""
    check_env(gymnasium.make(registered).unwrapped)


def actions(task: AnyTask, n: int, random: np.random.Generator) -> np.ndarray:
    """Random actions that seldom end an episode at once."""
    drawn = random.integers(len(task.spec.vocabulary), size=n)
    ends = drawn == task.spec.end
    return np.where(ends & (random.random(n) < 0.8), 0, drawn)


def row(observation: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: value[i] for name, value in observation.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", FAMILIES)
def test_each_row_is_an_episode_of_its_own(task: AnyTask | str, mode: AutoresetMode) -> None:
    """`Env` repeats each episode of a row from its problem and its actions."""
    envs = VectorEnv(task, EPISODES, autoreset_mode=mode)
    alone = [Env(envs.task) for _ in range(EPISODES)]
    random = np.random.default_rng(0)
    observation, infos = envs.reset(seed=7)
    assert observation in envs.observation_space
    over = np.zeros(EPISODES, dtype=bool)
    began, ended = np.ones(EPISODES, dtype=bool), 0
    for _ in range(3 * envs.task.spec.horizon if envs.task.spec.horizon < 50 else 20):
        for i in began.nonzero()[0]:
            start, info = alone[i].reset(options={"problem": envs.problems[int(i) : int(i) + 1]})
            assert data_equivalence(start, row(observation, i), exact=True)
            assert (info["success"], info["invalid"]) == (False, False)
            assert not infos["success"][i]
            assert not infos["invalid"][i]
        chosen = actions(envs.task, EPISODES, random)
        idle = over if mode is AutoresetMode.NEXT_STEP else np.zeros(EPISODES, dtype=bool)
        observation, reward, terminated, truncated, infos = envs.step(chosen)
        assert observation in envs.observation_space
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)
        assert infos["_success"].all()
        over = terminated | truncated
        for i in range(EPISODES):
            if idle[i]:
                assert (reward[i], terminated[i], truncated[i]) == (0, False, False)
                continue
            own, *verdict, info = alone[i].step(chosen[i])
            assert verdict == [reward[i], terminated[i], truncated[i]]
            final = over[i] and mode is AutoresetMode.SAME_STEP
            shown = infos["final_obs"][i] if final else row(observation, i)
            told = infos["final_info"] if final else infos
            assert data_equivalence(own, shown, exact=True)
            assert (info["success"], info["invalid"]) == (told["success"][i], told["invalid"][i])
            assert (info["action_mask"] == told["action_mask"][i]).all()
            assert info["action_mask"].dtype == told["action_mask"].dtype == np.int8
        ended += int(over.sum())
        if mode is AutoresetMode.SAME_STEP:
            assert ("final_obs" in infos) == over.any()
            if over.any():
                assert (infos["_final_obs"] == over).all()
                assert (infos["_final_info"] == over).all()
                assert (infos["final_info"]["_success"] == over).all()
                assert [found is None for found in infos["final_obs"]] == list(~over)
        else:
            assert not {"final_obs", "final_info"} & set(infos)
        began = {AutoresetMode.NEXT_STEP: idle, AutoresetMode.SAME_STEP: over, AutoresetMode.DISABLED: over}[mode]
        if mode is AutoresetMode.DISABLED and over.any():
            observation, infos = envs.reset(options={"reset_mask": over})
    assert ended > EPISODES or envs.task.spec.horizon >= 50


@pytest.mark.parametrize("mode", MODES)
def test_the_format_is_that_of_gymnasiums_own_vector_environment(mode: AutoresetMode) -> None:
    ours = VectorEnv("worlds:Small", 3, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: Env("worlds:Small")] * 3, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is mode
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    end = np.full(3, ours.task.spec.end)

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(part) for name, part in value.items() if name not in ("problem", "_problem")}
        if isinstance(value, tuple | list):
            return [shape(part) for part in value]
        if isinstance(value, np.ndarray) and value.dtype == object:
            return [shape(part) for part in value]
        return value.shape, value.dtype

    for envs in (ours, theirs):
        envs.reset(seed=0)
    assert shape(ours.reset()) == shape(theirs.reset())
    assert shape(ours.step(end)) == shape(theirs.step(end))
    if mode is not AutoresetMode.DISABLED:
        assert shape(ours.step(end)) == shape(theirs.step(end))


def test_wrappers_of_gymnasium_work() -> None:
    envs = DictInfoToList(RecordEpisodeStatistics(VectorEnv("worlds:Small", 2, stages=["T0"])))
    _, infos = envs.reset(seed=0)
    assert [(info["success"], info["invalid"]) for info in infos] == [(False, False)] * 2
    assert [info["action_mask"].sum() for info in infos] == [10 + 2] * 2, "the digits, ANS and EOS"
    *_, infos = envs.step(np.full(2, 17))
    assert [(info["episode"]["l"], info["episode"]["r"], info["success"]) for info in infos] == [(1, 0, False)] * 2
    flat = FlattenObservation(Env("worlds:Small"))
    observation, _ = flat.reset(seed=0)
    assert observation in flat.observation_space


def test_the_horizon_truncates() -> None:
    env = Env("worlds:Small", stages=["T0"])
    env.reset(seed=0)
    ends = [env.step(1)[2:4] for _ in range(env.task.spec.horizon)]
    assert ends == [(False, False)] * (env.task.spec.horizon - 1) + [(False, True)]
    with pytest.raises(ResetNeeded, match="an episode is over"):
        env.step(1)


def test_an_environment_that_is_a_task_is_an_environment_again() -> None:
    """Its own time limit is a truncation, here as there."""
    task = mn.make("gymnasium:CartPole-v1", horizon=12, threshold=12)
    envs = VectorEnv(task, 20, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    ends, random = [], np.random.default_rng(0)
    for _ in range(12):
        _, _, terminated, truncated, infos = envs.step(random.integers(2, size=20))
        assert not (terminated & truncated).any()
        assert (infos["action_mask"].sum(1) == 2).all()
        ends.append((terminated.sum(), truncated.sum()))
    assert all(truncated == 0 for _, truncated in ends[:-1])
    assert ends[-1][1] > 0
    assert task.positions.replayed == 0


def test_a_right_answer_at_the_horizon_is_no_truncation() -> None:
    env = Env("worlds:Small", stages=["T2"])
    env.reset(options={"problem": "3 7 2 4 5"})
    program = ["4", "MUL", "5", "STO", "3", "MUL", "7", "ADD", "2", "SUB", "RCL", "ANS"]
    assert len(program) == env.task.spec.horizon
    for key in program:
        _, reward, terminated, truncated, info = env.step(env.task.spec.vocabulary.index(key))
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)


def test_one_seed_draws_the_same_problems_and_two_seeds_draw_others() -> None:
    def keys(seed: int) -> list[int]:
        envs = VectorEnv("arithmetic", 500, stages=["T2"], autoreset_mode="SameStep")
        envs.reset(seed=seed)
        drawn = envs.problems.key.tolist()
        envs.step(np.full(500, envs.task.spec.end))
        return drawn + envs.problems.key.tolist()

    def alone(seed: int) -> list[Any]:
        env = Env("arithmetic", stages=["T2"])
        return [env.reset(seed=seed if first else None)[1]["problem"] for first in (True, False, False)]

    first, other = keys(0), keys(1)
    assert first == keys(0)
    assert len(set(first) & set(other)) < 30, "of 1,000 from 80,000 problems"
    assert len(set(first)) > 950, "each reset draws new problems"
    assert alone(0) == alone(0) != alone(1)
    assert len(set(alone(0))) == 3


def test_problems_are_of_the_split_and_the_stages() -> None:
    for split, share in (("train", {True}), ("heldout", {False}), ("all", {True, False})):
        envs = VectorEnv("arithmetic", 200, stages=["T1", "T2"], split=split)
        observation, _ = envs.reset(seed=0)
        assert set(in_split(envs.problems.key, "train").tolist()) == share
        assert set(observation["stage"]) == {1, 2}
    observation, _ = envs.reset(options={"stage": "T0", "split": "heldout"})
    assert set(observation["stage"]) == {0}
    assert not in_split(envs.problems.key, "train").any()


def test_some_rows_are_reset() -> None:
    envs = VectorEnv(Small(), 4, stages=["T2"], autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    before = envs.problems.context.clone()
    envs.step(np.array([1, 17, 2, 17]))
    with pytest.raises(ResetNeeded):
        envs.step(np.ones(4, dtype=int))
    mask = np.array([False, True, False, True])
    observation, infos = envs.reset(options={"reset_mask": mask, "problem": envs.problems[torch.tensor([0, 2])]})
    assert observation["token"].tolist() == [1, 10, 2, 10]
    assert observation["context"].tolist() == before[[0, 0, 2, 2]].tolist()
    assert infos["_success"].tolist() == mask.tolist()
    envs.step(np.ones(4, dtype=int))


def test_text() -> None:
    env = Env("worlds:Small", render_mode="ansi")
    env.reset(options={"stage": "T0", "problem": "3 4 5"})
    env.step(3)
    env.step(11)
    assert env.render() == "\n".join(
        [
            "a=3 b=4 c=5; compute a*b + c",
            "actions: 3 MUL",
            "registers: entry=, accumulator=3, pending=MUL, memory=, display=3",
        ]
    )
    assert Env("worlds:Small").render() is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Env("arithmetik"), "did you mean 'arithmetic'"),
        (lambda: Env(Small), "expected a task: Small"),
        (lambda: Env("arithmetic", stages=["T7"]), "stage: unknown value 'T7'"),
        (lambda: Env("arithmetic", split="trian"), "split: unknown value 'trian'; did you mean 'train'"),
        (lambda: Env("arithmetic", render_mode="human"), "render_mode: 'human' is not allowed; expected ansi or None"),
        (lambda: Env("arithmetic").reset(options={"stag": "T0"}), "did you mean 'stage'"),
        (
            lambda: Env("arithmetic").reset(options={"problem": "1 2 3"}),
            "stage: None is not allowed; expected one of T0,",
        ),
        (lambda: Env("arithmetic").reset(options={"problem": 3}), "problem: 3 is not allowed; expected a text or 1"),
        (lambda: Env("arithmetic", fedback="none"), "option of task arithmetic: unknown value 'fedback'; did you mean"),
        (lambda: Env(Small(), feedback="none"), "option feedback: 'none' is not allowed; expected no options beside a"),
        (lambda: VectorEnv("arithmetic", 0), "num_envs: 0 is not allowed; expected a whole number from 1"),
        (lambda: VectorEnv("arithmetic", 1, autoreset_mode="Same"), "autoreset_mode: unknown value 'Same'"),
        (
            lambda: VectorEnv("arithmetic", 2).reset(options={"reset_mask": [1, 0]}),
            "reset_mask: .* bool array of shape",
        ),
    ],
)
def test_bad_input_is_a_user_error(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("bad", [[1], [1, 18], [-1, 0], [0.5, 1], [[1, 2]]])
def test_bad_actions_are_a_user_error(bad: Any) -> None:
    envs = VectorEnv("worlds:Small", 2)
    with pytest.raises(ResetNeeded):
        envs.step(np.zeros(2, dtype=int))
    envs.reset(seed=0)
    with pytest.raises(UserError, match="expected an integer from 0 to 17 for each of 2 episodes"):
        envs.step(np.array(bad))
