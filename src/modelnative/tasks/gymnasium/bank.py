"""Numbered live environments, in this process or in worker processes. Free of torch, for the workers' sake."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from modelnative.errors import UserError, in_words
from modelnative.tasks.gymnasium.spaces import action_maker, flattener

Array = npt.NDArray[Any]
PER_MESSAGE = 64  # commands that a worker is sent at a time


@dataclass(frozen=True)
class Answers:
    """What m environments answered.

    Attributes:
        numbers: float64 [m, D], the observations.
        reward: float64 [m].
        terminated, truncated: bool [m].
    """

    numbers: Array
    reward: Array
    terminated: Array
    truncated: Array


def make_environment(spec: EnvSpec, horizon: int | None, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """A new environment with its time limit; its own checks of every step are left out."""
    return gymnasium.make(spec, max_episode_steps=horizon, disable_env_checker=True, **options)


class Bank:
    """Environments in this process, made when they are first reset.

    Args:
        make: makes one.
        name: for messages.
        width: numbers of an observation.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], name: str, width: int) -> None:
        self._make, self._name, self._width = make, name, width
        self._environments: dict[int, gymnasium.Env[Any, Any]] = {}
        self._flat: Callable[[Any], Array]
        self._act: Callable[[list[int]], Any]

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Answers:
        """Begin an episode in each slot."""
        return self._all(slots, seeds, [[]] * len(slots))

    def step(self, slots: Sequence[int], actions: Sequence[list[int]]) -> Answers:
        """Act in each slot; an action is a list of its parts, counted from 0."""
        return self._all(slots, [-1] * len(slots), actions)

    def _all(self, slots: Sequence[int], seeds: Sequence[int], actions: Sequence[list[int]]) -> Answers:
        m = len(slots)
        numbers, reward = np.empty((m, self._width)), np.zeros(m)
        terminated, truncated = np.zeros(m, dtype=np.bool_), np.zeros(m, dtype=np.bool_)
        for i, (slot, seed, action) in enumerate(zip(slots, seeds, actions, strict=True)):
            try:
                if seed < 0:
                    observation, paid, terminated[i], truncated[i], _ = self._environments[slot].step(self._act(action))
                    reward[i] = paid
                else:
                    if slot not in self._environments:
                        self._environments[slot] = made = self._make()
                        self._flat, self._act = flattener(made.observation_space), action_maker(made.action_space)
                    observation, _ = self._environments[slot].reset(seed=seed)
                numbers[i] = self._flat(observation)
            except Exception as error:  # the environment's code may raise anything
                doing = "step" if seed < 0 else "reset"
                raise UserError(f"{self._name}: the environment's {doing} raised {in_words(error)}") from error
        if not (np.isfinite(reward).all() and not np.isnan(numbers).any()):
            raise UserError(f"{self._name}: the environment returned a number that is NaN, or a reward not finite")
        return Answers(numbers, reward, terminated, truncated)

    def close(self) -> None:
        """Close all of them."""
        for environment in self._environments.values():
            environment.close()
        self._environments.clear()


class WorkerBank:
    """The same with the environments spread over worker processes, those of Gymnasium's `AsyncVectorEnv`.

    Args:
        make, name, width: as for `Bank`.
        parts: of an action.
        processes: how many workers.
    """

    def __init__(
        self, make: Callable[[], gymnasium.Env[Any, Any]], name: str, width: int, parts: int, processes: int
    ) -> None:
        self._name, self._width, self._parts = name, width, parts
        served = functools.partial(_Server, make, name, width, parts)
        # A fork of a process with threads may hang; "spawn" starts anew.
        try:
            self._workers = AsyncVectorEnv([served] * processes, context="spawn", autoreset_mode=AutoresetMode.DISABLED)
            self._workers.reset()
        except (OSError, EOFError, RuntimeError) as error:
            guard = "if __name__ == '__main__':"
            raise UserError(
                f"processes: the workers of {name} did not start ({in_words(error)}); in a script, start the training "
                f"under {guard}"
            ) from error
        self.close = weakref.finalize(self, self._workers.close, terminate=True)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Answers:
        """As `Bank.reset`."""
        return self._all(slots, seeds, np.zeros((len(slots), self._parts), dtype=np.int64))

    def step(self, slots: Sequence[int], actions: Sequence[list[int]]) -> Answers:
        """As `Bank.step`."""
        return self._all(slots, [-1] * len(slots), np.array(actions, dtype=np.int64).reshape(-1, self._parts))

    def _all(self, slots: Sequence[int], seeds: Sequence[int], actions: Array) -> Answers:
        m, processes = len(slots), self._workers.num_envs
        commands = np.concatenate([np.array([slots, seeds], dtype=np.int64).T.reshape(m, 2), actions], 1)
        rows = [np.nonzero(commands[:, 0] % processes == worker)[0] for worker in range(processes)]
        columns = np.empty((m, self._width + 3))
        for start in range(0, max(map(len, rows), default=0), PER_MESSAGE):
            parts = [own[start : start + PER_MESSAGE] for own in rows]
            sent = np.full((processes, PER_MESSAGE, commands.shape[1]), -1, dtype=np.int64)
            for worker, part in enumerate(parts):
                sent[worker, : len(part)] = commands[part]
            try:
                answered, _, failed, _, _ = self._workers.step(sent)
            except (OSError, EOFError) as error:
                raise UserError(f"processes: a worker of {self._name} is gone ({in_words(error)})") from error
            if failed.any():
                raise UserError(next(filter(None, self._workers.get_attr("failure"))))
            for worker, part in enumerate(parts):
                columns[part] = answered[worker, : len(part)]
        numbers, (reward, terminated, truncated) = columns[:, :-3], columns[:, -3:].T
        return Answers(numbers, reward, terminated > 0, truncated > 0)


class _Server(gymnasium.Env[Array, Array]):
    """A worker's bank in the shape of one environment: an action is a list of commands, an observation the answers.

    A command is a slot (−1: none), a seed (−1: act) and the parts of an action. An answer is the numbers of an
    observation, the reward and the two flags.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], name: str, width: int, parts: int) -> None:
        self._bank, self.failure = Bank(make, name, width), ""
        self.observation_space = spaces.Box(-np.inf, np.inf, (PER_MESSAGE, width + 3), np.float64)
        self.action_space = spaces.Box(-1, 2**62, (PER_MESSAGE, 2 + parts), np.int64)
        self._answers = np.zeros((PER_MESSAGE, width + 3))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        return self._answers, {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        commands = action[action[:, 0] >= 0]
        try:
            slots, seeds = commands[:, 0].tolist(), commands[:, 1].tolist()
            found = self._bank._all(slots, seeds, commands[:, 2:].tolist())
        except UserError as error:
            self.failure = str(error)
            return self._answers, 0.0, True, False, {}
        flags = [found.reward, found.terminated, found.truncated]
        self._answers[: len(commands)] = np.column_stack([found.numbers, *flags])
        return self._answers, 0.0, False, False, {}

    def close(self) -> None:
        self._bank.close()
