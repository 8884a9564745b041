"""Tasks as Gymnasium environments: `Env` plays one episode at a time, `VectorEnv` a batch of them.

Both have the same spaces. The action is the next token, `Discrete(V)`. The observation is a dictionary:

- `context`: MultiDiscrete, the tokens of the problem;
- `token`: Discrete, the previous action, or the start token;
- `feedback`: MultiDiscrete, what the tool shows; missing in a task without feedback;
- `stage`: Discrete, the stage of the problem.

An episode is `terminated` when an action ends it and `truncated` when it reaches the task's horizon. Each reset draws a
new problem. `info` has the verifier's verdict `success`; `invalid`, whether the last action had no effect; and
`action_mask`, int8 [V], the actions that now have an effect.

Importing this module registers every task, so that `gymnasium.make("modelnative/Arithmetic-v0")` and `make_vec` find
it.
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

from modelnative.bridges.registration import register_envs as register_envs
from modelnative.errors import choose, require_number
from modelnative.tasks import make_task, require_task
from modelnative.tasks.contract.task import SPLITS, AnyTask, Problems, Split, State, Step, TaskSpec, require

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
        options: of the task, if it is named.

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
        **options: Any,
    ) -> None:
        disabled = AutoresetMode.DISABLED
        self._envs = VectorEnv(task, 1, stages=stages, split=split, autoreset_mode=disabled, **options)
        self.task = self._envs.task
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space
        require(render_mode in (None, "ansi"), "render_mode", render_mode, "ansi or None")
        self.render_mode = render_mode
        self._problem: dict[str, str] = {}
        self._actions: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        self._envs.np_random = self.np_random
        observation, infos = self._envs.reset(options=options)
        self._problem = {"problem": self.task.render(self._envs.problems, 0)} if self.task.defines("render") else {}
        self._actions = []
        return _row(observation, 0), self._info(infos)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, Info]:
        observation, reward, terminated, truncated, infos = self._envs.step(np.asarray([action]))
        self._actions.append(int(action))
        return _row(observation, 0), float(reward[0]), bool(terminated[0]), bool(truncated[0]), self._info(infos)

    def render(self) -> str | None:
        """The problem, the actions so far and the tool's registers as text; None without `render_mode`."""
        if self.render_mode is None:
            return None
        words = " ".join(self.task.spec.vocabulary[action] for action in self._actions)
        registers = self.task.registers(self._envs.state, 0)
        shown = ", ".join(f"{name}={value}" for name, value in registers.items())
        return "\n".join([*self._problem.values(), f"actions: {words}", f"registers: {shown}"])

    def action_masks(self) -> Flags:
        """The actions that now have an effect, bool [V]."""
        return self._envs.action_masks()[0]

    def _info(self, infos: Info) -> Info:
        flags = {name: bool(infos[name][0]) for name in ("success", "invalid")}
        return {**flags, "action_mask": infos["action_mask"][0], **self._problem}


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
        options: as in `Env`.

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
        **options: Any,
    ) -> None:
        require_number("num_envs", num_envs, 1, 10**9, "a whole number from 1")
        if not isinstance(autoreset_mode, AutoresetMode):
            values = [mode.value for mode in AutoresetMode]
            autoreset_mode = AutoresetMode(choose("autoreset_mode", autoreset_mode, values))
        for name, value in options.items() if not isinstance(task, str) else ():
            require(False, f"option {name}", value, "no options beside a task object, which has them already")
        self.task = make_task(task, **options) if isinstance(task, str) else require_task(task)
        spec = self.task.spec
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.single_observation_space = _observation_space(spec)
        self.single_action_space = spaces.Discrete(len(spec.vocabulary))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._stages = [spec.stage_index(stage) for stage in stages] or list(range(len(spec.stages)))
        self._split = choose("split", split, SPLITS)
        self._episodes: tuple[Problems, State] | None = None
        self._token = torch.full((num_envs,), spec.start)
        self._feedback = torch.full((num_envs, spec.feedback_width), spec.end)
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64)
        self._mask = torch.ones(num_envs, len(spec.vocabulary), dtype=torch.bool)
        self._over: Flags = np.ones(num_envs, dtype=np.bool_)

    @property
    def problems(self) -> Problems:
        """The problem of each episode."""
        return self._begun()[0]

    @property
    def state(self) -> State:
        """The task's state of each episode."""
        return self._begun()[1]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        rest = dict(options or {})
        mask = rest.pop("reset_mask", None)
        selected = np.ones(self.num_envs, dtype=np.bool_) if mask is None else np.asarray(mask)
        allowed = selected.dtype == np.bool_ and selected.shape == (self.num_envs,) and bool(selected.any())
        require(allowed, "reset_mask", mask, f"a bool array of shape ({self.num_envs},) that selects an episode")
        require(self._episodes is not None or bool(selected.all()), "reset_mask", mask, "none in the first reset")
        self._begin(selected, rest)
        none = np.zeros(self.num_envs, dtype=np.bool_)
        return self._observation(), self._infos(none, none, selected)

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observation, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], Info]:
        mode, idle = self.metadata["autoreset_mode"], self._over
        if self._episodes is None or (mode is not AutoresetMode.NEXT_STEP and idle.any()):
            raise ResetNeeded("step: an episode is over or has not begun; call reset first")
        if idle.any():
            self._begin(idle, {})
        result, truncated = self._advance(actions, idle)
        reward, terminated = result.reward.double().numpy(), result.done.numpy() & ~truncated
        success, invalid = result.success.numpy(), result.invalid.numpy()
        self._over = ended = terminated | truncated
        every = np.ones(self.num_envs, dtype=np.bool_)
        infos = self._infos(success, invalid, every)
        if mode is AutoresetMode.SAME_STEP and ended.any():
            final = np.full(self.num_envs, None, dtype=object)
            observation = self._observation()
            for i in ended.nonzero()[0].tolist():
                final[i] = _row(observation, i)
            final_info = self._infos(success & ended, invalid & ended, ended)
            self._begin(ended, {})
            infos = {
                "final_obs": final,
                "_final_obs": ended.copy(),
                "final_info": final_info,
                "_final_info": ended.copy(),
                **self._infos(success & ~ended, invalid & ~ended, every),
            }
        return self._observation(), reward, terminated.copy(), truncated.copy(), infos

    def action_masks(self) -> Flags:
        """The actions that now have an effect, bool [num_envs, V]; of an episode that is over, all."""
        self._begun()
        return self._mask.numpy().copy()

    def _begun(self) -> tuple[Problems, State]:
        if self._episodes is None:
            raise ResetNeeded("no episode has begun; call reset first")
        return self._episodes

    def _begin(self, where: Flags, options: dict[str, Any]) -> None:
        """Begin a new episode in the rows that are true in `where`."""
        rows = torch.from_numpy(where).nonzero()[:, 0]
        problems = self._draw(options, len(rows))
        state = self.task.begin(problems)
        self._token = self._token.index_fill(0, rows, self.task.spec.start)
        self._feedback = self._feedback.index_copy(0, rows, self.task.feedback(state))
        self._elapsed = self._elapsed.index_fill(0, rows, 0)
        self._mask = self._mask.index_copy(0, rows, _valid(self.task, state))
        self._over = self._over & ~where
        if self._episodes is not None and len(rows) < self.num_envs:
            problems, state = self.problems.put(rows, problems), self.state.put(rows, state)
        self._episodes = problems, state

    def _advance(self, actions: npt.ArrayLike, idle: Flags) -> tuple[Step[State], Flags]:
        """What an action in each row leads to, and which rows the horizon cuts. Rows in `idle` stay as they are."""
        problems, state = self._begun()
        action, size = np.asarray(actions), len(self.task.spec.vocabulary)
        allowed = action.shape == (self.num_envs,) and action.dtype.kind in "iu"
        allowed = allowed and bool(0 <= action.min() <= action.max() < size)
        wanted = f"an integer from 0 to {size - 1} for each of {self.num_envs} episodes"
        require(allowed, "action", actions, wanted)
        token = torch.tensor(action, dtype=torch.int64)
        result: Step[State] = self.task.step(state, token)
        rows = torch.from_numpy(idle).nonzero()[:, 0]
        if len(rows):
            no = torch.zeros(len(rows), dtype=torch.bool)
            result = result.put(rows, Step(state[rows], self._feedback[rows], torch.zeros(len(rows)), no, no, no))
            token = token.index_copy(0, rows, self._token[rows])
        self._episodes, self._token, self._feedback = (problems, result.state), token, result.feedback
        self._mask = _valid(self.task, result.state)
        self._elapsed = (self._elapsed + 1).index_fill(0, rows, 0)
        cut = self.task.truncated(result.state)
        late = (self._elapsed >= self.task.spec.horizon) & ~result.done
        truncated: Flags = (late if cut is None else late | cut).numpy()
        return result, truncated

    def _observation(self) -> Observation:
        """New arrays, the episodes first."""
        columns: dict[str, Tensor] = {"context": self.problems.context, "feedback": self._feedback}
        columns |= {"stage": self.problems.stage, "token": self._token}
        return {name: column.numpy().copy() for name, column in columns.items() if column.shape[1:] != (0,)}

    def _infos(self, success: Flags, invalid: Flags, present: Flags) -> Info:
        """Infos of all episodes in Gymnasium's format: each key with a mask of the episodes that have it."""
        action_mask = self.action_masks().astype(np.int8) * present[:, None]
        columns = {"success": success, "invalid": invalid, "action_mask": action_mask}
        masks = {f"_{name}": present for name in columns}
        return {name: column.copy() for name, column in {**columns, **masks}.items()}

    def _draw(self, options: dict[str, Any], n: int) -> Problems:
        for name in options:
            choose("options of reset", name, ("stage", "split", "problem"))
        spec = self.task.spec
        stages = [spec.stage_index(options["stage"])] if "stage" in options else self._stages
        problem = options.get("problem")
        if isinstance(problem, str):
            require(len(stages) == 1, "stage", None, f"one of {', '.join(spec.stages)}, because the problem is a text")
            problem = self.task.parse(stages[0], problem)
        if problem is not None:
            given = isinstance(problem, Problems) and len(problem) == n
            require(given, "problem", problem, f"a text or {n} problems, one for each episode to reset")
            return problem
        generator = torch.Generator().manual_seed(int(self.np_random.integers(2**63)))
        stage = torch.tensor(stages)[torch.from_numpy(self.np_random.integers(len(stages), size=n))]
        drawn: Problems = self.task.sample(stage, generator, options.get("split", self._split))
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


def _valid(task: AnyTask, state: State) -> Tensor:
    """Which actions `Task.valid` accepts in each of n episodes, bool [n, V]; all where it is over."""
    return torch.as_tensor(task.valid(state)) | state.done[:, None]


def _row(observation: Observation, i: int) -> Observation:
    """The observation of one episode."""
    return {name: value[i] for name, value in observation.items()}


register_envs()
