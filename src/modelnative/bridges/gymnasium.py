"""Tasks as Gymnasium environments: `Env` plays one episode at a time, `VectorEnv` a batch of them.

Both have the same spaces. The action is the next token, `Discrete(V)`. The observation is a dictionary:

- `context`: MultiDiscrete, the tokens of the problem;
- `token`: Discrete, the previous action, or the start token;
- `feedback`: MultiDiscrete, what the tool shows; missing in a task without feedback;
- `stage`: Discrete, the stage of the problem.

An episode is `terminated` when an action ends it and `truncated` when it reaches the task's horizon. Each reset draws a
new problem. `info` has the verifier's verdict `success` and `invalid`, whether the last action had no effect.

`gymnasium.make` finds a task after
`gymnasium.register("Arithmetic-v0", "modelnative.bridges.gymnasium:Env", kwargs={"task": "arithmetic"})`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from modelnative.errors import choose
from modelnative.tasks import make_task, require_task
from modelnative.tasks.contract.task import SPLITS, AnyTask, Problems, Split, State, Step, Task, TaskSpec, require

Observation: TypeAlias = dict[str, Any]
Info: TypeAlias = dict[str, Any]
Flags: TypeAlias = npt.NDArray[np.bool_]


class Env(gymnasium.Env[Observation, np.int64]):
    """One episode of a task at a time.

    `reset(options=...)` takes `stage`, the name of a stage; `split`; and `problem`, a text that the task's `parse`
    accepts or a batch of one problem. They hold for this reset. `info` also has the problem as text, if the task has
    `render`.

    Args:
        task: a task or the name of one.
        stages: the names of the stages that problems are drawn from, each equally often; empty means all.
        split: which problems are drawn: train, heldout or all.
        render_mode: `ansi` makes `render` return a text; None turns it off.

    Raises:
        UserError: an argument, an option or an action is not allowed.

    Example:
        >>> env = Env("arithmetic", stages=["T0"])
        >>> observation, info = env.reset(seed=0, options={"problem": "3 4 5"})
        >>> info["problem"], observation["context"]
        ('a=3 b=4 c=5; compute a*b + c', array([ 3,  4,  5, 10, 17, 17]))
        >>> for key in ("3", "MUL", "4", "ADD", "5", "ANS"):
        ...     _, reward, terminated, truncated, info = env.step(env.task.spec.vocabulary.index(key))
        >>> reward, terminated, truncated, info["success"]
        (1.0, True, False, True)
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 (declared so by Gymnasium)

    def __init__(
        self,
        task: AnyTask | str,
        *,
        stages: Sequence[str] = (),
        split: Split = "train",
        render_mode: str | None = None,
    ) -> None:
        self._episodes = _Episodes(task, 1, stages, split)
        self.task = self._episodes.task
        self.observation_space = _observation_space(self.task.spec)
        self.action_space = spaces.Discrete(len(self.task.spec.vocabulary))
        require(render_mode in (None, "ansi"), "render_mode", render_mode, "ansi or None")
        self.render_mode = render_mode
        self._problem: dict[str, str] = {}
        self._actions: list[int] = []
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        self._episodes.reset(self.np_random, options or {})
        self._problem = self._episodes.texts()
        self._actions, self._over = [], False
        return self._observation(), self._info(success=False, invalid=False)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, Info]:
        if self._over:
            raise ResetNeeded("step: the episode is over or has not begun; call reset first")
        result, truncated = self._episodes.step(np.asarray([action]))
        self._actions.append(int(action))
        terminated, cut = bool(result.done), bool(truncated)
        self._over = terminated or cut
        info = self._info(success=bool(result.success), invalid=bool(result.invalid))
        return self._observation(), float(result.reward), terminated, cut, info

    def render(self) -> str | None:
        """The problem, the actions so far and the tool's registers as text; None without `render_mode`."""
        if self.render_mode is None:
            return None
        if self._episodes.state is None:
            raise ResetNeeded("render: no episode has begun; call reset first")
        words = " ".join(self.task.spec.vocabulary[action] for action in self._actions)
        registers = self.task.registers(self._episodes.state, 0)
        shown = ", ".join(f"{name}={value}" for name, value in registers.items())
        return "\n".join([*self._problem.values(), f"actions: {words}", f"registers: {shown}"])

    def _observation(self) -> Observation:
        batched = self._episodes.observation()
        return {name: value[0] for name, value in batched.items()}

    def _info(self, *, success: bool, invalid: bool) -> Info:
        return {"success": success, "invalid": invalid, **self._problem}


class VectorEnv(gymnasium.vector.VectorEnv[Observation, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """A batch of episodes of a task, each step computed for all of them at once.

    Row i of every array belongs to episode i and depends on it alone. `problems` holds the current problems.
    `reset(options=...)` takes `stage` and `split` as `Env` does, `problem`, a batch with one problem for each episode,
    and `reset_mask`, bool [num_envs], the episodes to reset; the others go on.

    What follows the end of an episode is Gymnasium's `AutoresetMode`:

    - `NEXT_STEP`: the next call of `step` ignores the action, draws a new problem and returns reward 0;
    - `SAME_STEP`: the same call returns the observation of the new problem. `info` has the last observation and info of
      the episode in `final_obs` and `final_info`;
    - `DISABLED`: the caller resets the episode with `reset_mask`.

    Args:
        task: a task or the name of one.
        num_envs: how many episodes.
        stages: as in `Env`.
        split: as in `Env`.
        autoreset_mode: a member of `AutoresetMode` or its value.

    Raises:
        UserError: an argument, an option or an action is not allowed.

    Example:
        >>> envs = VectorEnv("arithmetic", 64)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations["context"].shape
        (64, 6)
    """

    def __init__(
        self,
        task: AnyTask | str,
        num_envs: int,
        *,
        stages: Sequence[str] = (),
        split: Split = "train",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        require(num_envs >= 1, "num_envs", num_envs, "at least 1")
        if not isinstance(autoreset_mode, AutoresetMode):
            values = [mode.value for mode in AutoresetMode]
            autoreset_mode = AutoresetMode(choose("autoreset_mode", autoreset_mode, values))
        self._episodes = _Episodes(task, num_envs, stages, split)
        self.task = self._episodes.task
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.single_observation_space = _observation_space(self.task.spec)
        self.single_action_space = spaces.Discrete(len(self.task.spec.vocabulary))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._over: Flags = np.ones(num_envs, dtype=np.bool_)

    @property
    def problems(self) -> Problems:
        """The problem of each episode."""
        if self._episodes.problems is None:
            raise ResetNeeded("problems: no episode has begun; call reset first")
        return self._episodes.problems

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        rest = dict(options or {})
        mask = rest.pop("reset_mask", None)
        selected = np.ones(self.num_envs, dtype=np.bool_) if mask is None else np.asarray(mask)
        allowed = selected.dtype == np.bool_ and selected.shape == (self.num_envs,) and bool(selected.any())
        require(allowed, "reset_mask", mask, f"a bool array of shape ({self.num_envs},) that selects an episode")
        self._episodes.reset(self.np_random, rest, None if mask is None else selected)
        self._over = self._over & ~selected
        none = np.zeros(self.num_envs, dtype=np.bool_)
        return self._episodes.observation(), _infos(none, none, selected)

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observation, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], Info]:
        mode, over = self.metadata["autoreset_mode"], self._over
        if self._episodes.state is None or (mode is not AutoresetMode.NEXT_STEP and over.any()):
            raise ResetNeeded("step: an episode is over or has not begun; call reset first")
        if mode is AutoresetMode.NEXT_STEP and over.any():
            self._episodes.reset(self.np_random, {}, over)
        result, truncated = self._episodes.step(actions, over)
        reward, terminated = result.reward.double().numpy(), result.done.numpy()
        success, invalid = result.success.numpy(), result.invalid.numpy()
        self._over = terminated | truncated
        every = np.ones(self.num_envs, dtype=np.bool_)
        infos = _infos(success, invalid, every)
        if mode is AutoresetMode.SAME_STEP and self._over.any():
            ended = self._over
            infos = {
                "final_obs": _split(self._episodes.observation(), ended),
                "_final_obs": ended.copy(),
                "final_info": _infos(success & ended, invalid & ended, ended),
                "_final_info": ended.copy(),
                **_infos(success & ~ended, invalid & ~ended, every),
            }
            self._episodes.reset(self.np_random, {}, ended)
            self._over = np.zeros(self.num_envs, dtype=np.bool_)
        return self._episodes.observation(), reward, terminated.copy(), truncated.copy(), infos


class _Episodes:
    """n episodes of a task, as a batch of its tensor program."""

    def __init__(self, task: AnyTask | str, n: int, stages: Sequence[str], split: Split) -> None:
        self.task = make_task(task) if isinstance(task, str) else require_task(task)
        spec = self.task.spec
        self.n = n
        self.stages = [spec.stage_index(stage) for stage in stages] or list(range(len(spec.stages)))
        self.split = split
        choose("split", split, SPLITS)
        self.problems: Problems | None = None
        self.state: State | None = None
        self.names = list(_observation_space(spec))
        self.token = torch.full((n,), spec.start)
        self.feedback = torch.full((n, spec.feedback_width), spec.end)
        self.elapsed = torch.zeros(n, dtype=torch.int64)

    def reset(self, random: np.random.Generator, options: dict[str, Any], where: Flags | None = None) -> None:
        """Begin a new episode in the rows that are true in `where`, or in all rows."""
        rows = torch.arange(self.n) if where is None else torch.from_numpy(where).nonzero()[:, 0]
        problems = self._draw(random, options, len(rows))
        state = self.task.begin(problems)
        if self.problems is None or self.state is None or len(rows) == self.n:
            require(len(rows) == self.n, "reset_mask", where, "none in the first reset")
            self.problems, self.state = problems, state
        else:
            self.problems = self.problems.put(rows, problems)
            self.state = self.state.put(rows, state)
        self.token = self.token.index_fill(0, rows, self.task.spec.start)
        self.feedback = self.feedback.index_copy(0, rows, self.task.feedback(state))
        self.elapsed = self.elapsed.index_fill(0, rows, 0)

    def step(self, actions: npt.ArrayLike, idle: Flags | None = None) -> tuple[Step[State], Flags]:
        """What an action in each row leads to, and which rows the horizon cuts. Rows in `idle` stay as they are."""
        assert self.state is not None
        action, size = np.asarray(actions), len(self.task.spec.vocabulary)
        allowed = action.shape == (self.n,) and action.dtype.kind in "iu" and 0 <= action.min() <= action.max() < size
        require(allowed, "action", actions, f"an integer from 0 to {size - 1} for each of {self.n} episodes")
        token = torch.tensor(action, dtype=torch.int64)
        result: Step[State] = self.task.step(self.state, token)
        rows = torch.arange(0) if idle is None else torch.from_numpy(idle).nonzero()[:, 0]
        if len(rows):
            no = torch.zeros(len(rows), dtype=torch.bool)
            unchanged = Step(self.state[rows], self.feedback[rows], torch.zeros(len(rows)), no, no, no)
            result = result.put(rows, unchanged)
            token = token.index_copy(0, rows, self.token[rows])
        self.state, self.token, self.feedback = result.state, token, result.feedback
        self.elapsed = (self.elapsed + 1).index_fill(0, rows, 0)
        truncated: Flags = ((self.elapsed >= self.task.spec.horizon) & ~result.done).numpy()
        return result, truncated

    def observation(self) -> Observation:
        """New arrays, the episodes first."""
        assert self.problems is not None
        columns: dict[str, Tensor] = {"context": self.problems.context, "token": self.token}
        columns |= {"feedback": self.feedback, "stage": self.problems.stage}
        return {name: columns[name].numpy().copy() for name in self.names}

    def texts(self) -> dict[str, str]:
        """The first problem as text, by the key `problem`; nothing in a task without `render`."""
        if self.problems is None or type(self.task).render is Task.render:
            return {}
        return {"problem": self.task.render(self.problems, 0)}

    def _draw(self, random: np.random.Generator, options: dict[str, Any], n: int) -> Problems:
        for name in options:
            choose("options of reset", name, ("stage", "split", "problem"))
        spec = self.task.spec
        stages = [spec.stage_index(options["stage"])] if "stage" in options else self.stages
        problem = options.get("problem")
        if isinstance(problem, str):
            require(len(stages) == 1, "stage", None, f"one of {', '.join(spec.stages)}, because the problem is a text")
            problem = self.task.parse(stages[0], problem)
        if problem is not None:
            given = isinstance(problem, Problems) and len(problem) == n
            require(given, "problem", problem, f"a text or {n} problems, one for each episode to reset")
            return problem
        generator = torch.Generator().manual_seed(int(random.integers(2**63)))
        stage = torch.tensor(stages)[torch.from_numpy(random.integers(len(stages), size=n))]
        drawn: Problems = self.task.sample(stage, generator, options.get("split", self.split))
        return drawn


def _observation_space(spec: TaskSpec) -> spaces.Dict:
    size = len(spec.vocabulary)
    parts: dict[str, gymnasium.Space[Any]] = {
        "token": spaces.Discrete(size),
        "stage": spaces.Discrete(len(spec.stages)),
    }
    for name, width in (("context", spec.context_length), ("feedback", spec.feedback_width)):
        if width:
            parts[name] = spaces.MultiDiscrete(np.full(width, size))
    return spaces.Dict(parts)


def _infos(success: Flags, invalid: Flags, present: Flags) -> Info:
    """Infos of many episodes in Gymnasium's format: each key with a mask of the episodes that have it."""
    return {
        "success": success.copy(),
        "_success": present.copy(),
        "invalid": invalid.copy(),
        "_invalid": present.copy(),
    }


def _split(observation: Observation, rows: Flags) -> npt.NDArray[np.object_]:
    """The observation of each episode in `rows`, and None for the others."""
    parts = np.full(len(rows), None, dtype=object)
    for row in rows.nonzero()[0]:
        parts[row] = {name: value[row].copy() for name, value in observation.items()}
    return parts
