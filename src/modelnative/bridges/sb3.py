"""Tasks for Stable-Baselines3 and sb3-contrib: a batch of episodes as one of its vector environments.

Needs the extra `sb3`. `RecurrentPPO` and `MaskablePPO` train on it. The observation is a `Box`, the one-hot vectors of
all tokens side by side, so that `VecFrameStack` stacks them and contrib's LSTM takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from modelnative.bridges.gymnasium import Observation, VectorEnv
from modelnative.errors import UserError
from modelnative.extras import optional
from modelnative.tasks.contract.task import AnyTask, Split

TESTED = ("2.9", "2.10")
VecEnv: Any = optional("stable_baselines3.common.vec_env", "sb3", *TESTED).VecEnv
Array = npt.NDArray[Any]


class SB3VecEnv(VecEnv):  # type: ignore[misc]
    """n episodes of a task, each step computed for all of them at once.

    After the end of an episode the next begins, as SB3 expects. The info of a last action has SB3's
    `terminal_observation`, `TimeLimit.truncated` and `episode` (`r` the return, `l` the length), and ours: `success`
    and `invalid`.

    Args:
        task: a task or the name of one.
        num_envs: n.
        stages, split: as in `VectorEnv`.
        seed: of all problems; None: another one each time.
        options: of the task, if it is named.

    Attributes:
        envs: the `VectorEnv` behind it.

    Example:
        >>> from sb3_contrib import MaskablePPO  # doctest: +SKIP
        >>> model = MaskablePPO("MlpPolicy", SB3VecEnv("arithmetic", 64, stages=["T0"]))  # doctest: +SKIP
        >>> model.learn(500_000)  # doctest: +SKIP
    """

    def __init__(
        self,
        task: AnyTask | str,
        num_envs: int,
        *,
        stages: Sequence[str] = (),
        split: Split = "train",
        seed: int | None = None,
        **options: Any,
    ) -> None:
        same_step = AutoresetMode.SAME_STEP
        self.envs = VectorEnv(task, num_envs, stages=stages, split=split, autoreset_mode=same_step, **options)
        self._seed, self._actions = seed, np.zeros(num_envs, dtype=np.int64)
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        parts: dict[str, Any] = dict(self.envs.single_observation_space.spaces.items())  # type: ignore[attr-defined]
        sizes = [np.atleast_1d(np.asarray(getattr(part, "nvec", getattr(part, "n", 0)))) for part in parts.values()]
        values = np.concatenate(sizes)
        self._names, self._first, self._width = list(parts), values.cumsum() - values, int(values.sum())
        observation_space = spaces.Box(0, 1, (self._width,), np.float32)
        super().__init__(num_envs, observation_space, self.envs.single_action_space)

    def reset(self) -> Array:
        """Begin n episodes."""
        seed = self._seed if self._seeds[0] is None else self._seeds[0]
        observation, _ = self.envs.reset(seed=seed)
        self._seed = None
        self._reset_seeds()
        self._returns[:], self._lengths[:] = 0, 0
        return self._rows(observation)

    def step_async(self, actions: Array) -> None:
        """Take the actions, int64 [n]."""
        self._actions = np.asarray(actions, dtype=np.int64)

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """What follows from them: observations, rewards float32 [n], whether episodes ended, and infos."""
        observation, reward, terminated, truncated, found = self.envs.step(self._actions)
        self._returns += reward
        self._lengths += 1
        over = terminated | truncated
        infos: list[dict[str, Any]] = [
            {"success": False, "invalid": invalid, "TimeLimit.truncated": False}
            for invalid in found["invalid"].tolist()
        ]
        for i in over.nonzero()[0].tolist():
            final = found["final_info"]
            last = {name: np.asarray(part)[None] for name, part in found["final_obs"][i].items()}
            infos[i] = {
                "success": bool(final["success"][i]),
                "invalid": bool(final["invalid"][i]),
                "TimeLimit.truncated": bool(truncated[i]),
                "terminal_observation": self._rows(last)[0],
                "episode": {"r": float(self._returns[i]), "l": int(self._lengths[i])},
            }
        self._returns[over], self._lengths[over] = 0, 0
        return self._rows(observation), reward.astype(np.float32), over, infos

    def action_masks(self) -> Array:
        """The actions that now have an effect, bool [n, V]."""
        return self.envs.action_masks()

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the batch, once for each episode asked for."""
        source = self if attr_name == "action_masks" else self.envs
        return [getattr(source, attr_name)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the batch: all episodes share it."""
        if len(self._chosen(indices)) != self.num_envs:
            raise UserError(
                f"indices: {indices!r} is not allowed; expected None, because all episodes share attributes"
            )
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the batch; the rows of what it returns are those of the episodes."""
        found = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        return [found[i] for i in self._chosen(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """No episode is in a wrapper; `episode` is in the infos already."""
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: Any) -> list[int]:
        return [int(i) for i in self._get_indices(indices)]

    def _rows(self, observation: Observation) -> Array:
        """The one-hot vectors of the parts of an observation side by side, float32 [n, width]."""
        columns = [np.asarray(observation[name]).reshape(len(observation["token"]), -1) for name in self._names]
        rows = np.zeros((len(columns[0]), self._width), dtype=np.float32)
        np.put_along_axis(rows, np.concatenate(columns, 1) + self._first, 1.0, 1)
        return rows
