"""A Gymnasium environment as a task.

A task is a function from state and action to state, and an environment is an object that changes. Here the state is the
seed of an episode and its actions so far: with them everything else is determined. Live environments are a cache of it
(`Positions`), so that a rollout steps each of its environments once for each action and copies none.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from modelnative.errors import UserError, in_words, require_number
from modelnative.tasks.contract.sampling import draw_within
from modelnative.tasks.contract.task import (
    Problems,
    Split,
    State,
    Step,
    Task,
    TaskSpec,
    mixed,
    require,
    whole_number,
)
from modelnative.tasks.gymnasium.bank import Answers, Bank, WorkerBank, make_environment
from modelnative.tasks.gymnasium.live import Positions
from modelnative.tasks.gymnasium.spaces import (
    MAX_PLACES,
    Component,
    Encoder,
    action_sizes,
    components,
    flattener,
)

SEEDS = 2**31 - 1
PLAYED_AT_RANDOM = 20  # episodes of random play that show the limits of numbers without bounds
MARGIN = 1.0  # how far beyond what random play showed the limits are, as a share of it, on either side


@dataclass
class SeededProblems(Problems):
    """Episodes by the seeds that their environments are reset with. The context is blank.

    Attributes:
        seed: int64 [n], equal to the key.
    """

    seed: Tensor


@dataclass
class EpisodeState(State):
    """What determines n episodes, and what was seen last.

    Attributes:
        cut: bool [n], a time limit ended the episode.
        seed: int64 [n].
        history: int32 [n, horizon], the tokens that were typed; 0 after them.
        typed: int64 [n], how many.
        position: int64 [n], a hash of the seed and of the actions that the environment has taken.
        seen: int64 [n, width], the tokens of the last observation.
        total: float64 [n], the sum of the rewards.
    """

    cut: Tensor
    seed: Tensor
    history: Tensor
    typed: Tensor
    position: Tensor
    seen: Tensor
    total: Tensor


class GymnasiumTask(Task[SeededProblems, EpisodeState]):
    """Any Gymnasium environment with discrete actions whose chance comes from its seed.

    A problem is the seed of an episode. The observation is the feedback; the context is blank. Tokens are the numbers
    0, 1, 2, …, each used both as action and as value of an observation, and END. An action of several parts is typed
    part by part; the feedback shows the parts so far. An episode that the environment's time limit ends is no failure:
    the value after it is bootstrapped. The task has no oracle, so no hints.

    Args:
        name: the id, as `gymnasium.make` takes it, such as `CartPole-v1` or `package:Name-v0`.
        threshold: the least sum of rewards that counts as success; by default the environment's `reward_threshold`.
        horizon: the time limit in steps; 0: that of the environment.
        bins: the base of the digits that real numbers are written with.
        digits: how many digits a real number has.
        evaluation_size: how many episodes an evaluation plays.
        processes: worker processes for the environments; 0: none.
        options: of the environment.

    Raises:
        UserError: there is no such environment, it cannot be made, or a space or an argument is not supported.

    Example:
        >>> task = GymnasiumTask("FrozenLake-v1", is_slippery=False)
        >>> task.spec.action_count, task.spec.feedback_width, task.spec.horizon
        (4, 1, 100)
    """

    def __init__(
        self,
        name: str,
        /,
        *,
        threshold: float | None = None,
        horizon: int = 0,
        bins: int = 16,
        digits: int = 2,
        evaluation_size: int = 500,
        processes: int = 0,
        **options: Any,
    ) -> None:
        self.name = f"gymnasium:{name}"
        for field, value, most in (
            ("horizon", horizon, 100_000),
            ("evaluation_size", evaluation_size, 10_000),
            ("processes", processes, 256),
        ):
            require_number(field, value, 0, most, f"a number from 0 to {most}")
        require(evaluation_size > 0, "evaluation_size", evaluation_size, "at least 1")
        for field, value, most in (("bins", bins, 4096), ("digits", digits, 8)):
            least = 2 if field == "bins" else 1
            require_number(field, value, least, most, f"a number from {least} to {most}")
        self._options = {
            "threshold": threshold,
            "horizon": horizon,
            "bins": bins,
            "digits": digits,
            "evaluation_size": evaluation_size,
            "processes": processes,
            **options,
        }
        spec, environment = _made(name, self.name, horizon or None, options)
        self.threshold = _threshold(threshold, spec.reward_threshold, self.name)
        self.limit = horizon or _time_limit(environment, spec, self.name)
        self.sizes = action_sizes(environment.action_space, self.name)
        parts = components(environment.observation_space, self.name)
        low, high = _limits(parts, environment)
        environment.close()
        self._encode = Encoder(parts, low, high, bins, digits)
        places = self._encode.width + len(self.sizes) - 1
        require(places <= MAX_PLACES, "observation", f"{places} tokens", f"at most {MAX_PLACES}")
        values = max(max(self.sizes), self._encode.values)
        self.spec = TaskSpec(
            name=self.name,
            vocabulary=(*map(str, range(values)), "END"),
            stages=(name.rpartition(":")[2],),
            context_length=1,
            feedback_width=places,
            horizon=self.limit * len(self.sizes),
            start=values,
            end=values,
            actions=max(self.sizes),
        )
        self.evaluation_size = evaluation_size
        make = functools.partial(make_environment, spec, horizon or None, options)
        self._bank: Callable[[], Bank | WorkerBank]
        if processes:
            self._bank = lambda: WorkerBank(make, self.name, len(parts), len(self.sizes), processes)
        else:
            self._bank = lambda: Bank(make, self.name, len(parts))

    @functools.cached_property
    def positions(self) -> Positions:
        """The live environments; worker processes start with the first episode."""
        return Positions(self._bank(), self.name)

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> SeededProblems:
        def draw(stage: Tensor) -> SeededProblems:
            seed = torch.randint(SEEDS, stage.shape, generator=generator, device=stage.device)
            return self._problems(stage, seed)

        return draw_within(split, stage, draw)

    def _problems(self, stage: Tensor, seed: Tensor) -> SeededProblems:
        return SeededProblems(stage, torch.full_like(stage[:, None], self.spec.end), seed, seed)

    def begin(self, problems: SeededProblems) -> EpisodeState:
        seed = problems.seed
        none, position = torch.zeros_like(seed, dtype=torch.bool), mixed(seed)
        answers = self.positions.begin(seed.tolist(), position.tolist())
        history = torch.zeros(len(seed), self.spec.horizon, dtype=torch.int32, device=seed.device)
        seen = torch.from_numpy(self._encode(answers.numbers)).to(seed.device)
        total = torch.zeros(len(seed), dtype=torch.float64, device=seed.device)
        return EpisodeState(none, none.clone(), seed, history, torch.zeros_like(seed), position, seen, total)

    def step(self, state: EpisodeState, action: Tensor) -> Step[EpisodeState]:
        parts = len(self.sizes)
        place = state.typed % parts
        allowed = action < torch.tensor(self.sizes, device=action.device)[place]
        types = ~state.done & allowed & (state.typed < self.spec.horizon)
        rows = types.nonzero()[:, 0]
        history = state.history.clone()
        history[rows, state.typed[rows]] = action[rows].int()
        typed = state.typed + types
        after = dataclasses.replace(state, history=history, typed=typed)
        reward = torch.zeros(len(action), device=action.device)
        success = torch.zeros_like(state.done)
        acting = (types & (place == parts - 1)).nonzero()[:, 0]
        if len(acting):
            answers, position = self._act(state, history, acting)
            found = [
                torch.from_numpy(x).to(action.device) for x in (answers.reward, answers.terminated, answers.truncated)
            ]
            paid, terminated, truncated = found
            total = state.total[acting] + paid
            over = terminated | truncated
            after.done, after.cut = (
                state.done.index_copy(0, acting, over),
                state.cut.index_copy(0, acting, over & ~terminated),
            )
            after.position = state.position.index_copy(0, acting, position)
            after.seen = state.seen.index_copy(
                0, acting, torch.from_numpy(self._encode(answers.numbers)).to(action.device)
            )
            after.total = state.total.index_copy(0, acting, total)
            reward[acting] = paid.float()
            success[acting] = over & (total >= self.threshold - 1e-9)
        return Step(after, self.feedback(after), reward, after.done, success, ~state.done & ~types)

    def _act(self, state: EpisodeState, history: Tensor, rows: Tensor) -> tuple[Answers, Tensor]:
        """Let the environments of some episodes take the actions that end in `history`."""
        parts = len(self.sizes)
        typed = state.typed[rows] - parts + 1  # tokens of the actions before this one
        action = history[rows[:, None], typed[:, None] + torch.arange(parts, device=rows.device)]
        position = state.position[rows]
        for part in action.unbind(1):
            position = mixed(position + part + 1)

        def before(i: int) -> list[list[int]]:
            tokens = state.history[rows[i], : int(typed[i])]
            return [list(action) for action in tokens.view(-1, parts).tolist()]

        seeds, standing = state.seed[rows].tolist(), state.position[rows].tolist()
        return self.positions.step(seeds, before, standing, action.tolist(), position.tolist()), position

    def feedback(self, state: EpisodeState) -> Tensor:
        parts = len(self.sizes)
        if parts == 1:
            return state.seen
        place = torch.arange(parts - 1, device=state.seen.device)
        begun = state.typed % parts
        where = (state.typed - begun)[:, None] + place
        token = state.history.gather(1, where.clamp_max(self.spec.horizon - 1)).long()
        return torch.cat([state.seen, torch.where(place < begun[:, None], token, self.spec.end)], 1)

    def valid(self, state: EpisodeState) -> Tensor:
        """Which tokens are accepted next: bool [n, V]. Trying them would move the live environments."""
        most = torch.tensor(self.sizes, device=state.done.device)[state.typed % len(self.sizes)]
        tokens = torch.arange(len(self.spec.vocabulary), device=state.done.device)
        return (tokens < most[:, None]) & ~state.done[:, None]

    def truncated(self, state: EpisodeState) -> Tensor:
        return state.cut

    def records(self, problems: SeededProblems, state: EpisodeState) -> list[dict[str, Any]]:
        columns = (problems.seed, state.done, state.total, state.seen)
        return [
            {"problem": str(seed), "observation": seen, "answer": total if done else None, "target": self.threshold}
            for seed, done, total, seen in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def registers(self, state: EpisodeState, i: int) -> dict[str, str]:
        shown = " ".join(map(str, state.seen[i].tolist()))
        return {"observation": shown, "return": f"{float(state.total[i]):g}", "display": shown}

    def parse(self, stage: int, text: str) -> SeededProblems:
        seed = whole_number(text.strip(), SEEDS - 1)
        require(seed >= 0, "problem", text, f"the seed of an episode, from 0 to {SEEDS - 1}")
        return self._problems(torch.tensor([stage]), torch.tensor([seed]))

    def render(self, problems: SeededProblems, i: int) -> str:
        return f"{self.spec.stages[0]}, seed {int(problems.seed[i])}"

    def rules(self) -> str:
        parts = "; ".join(f"part {i + 1} is a number from 0 to {n - 1}" for i, n in enumerate(self.sizes))
        return f"Act in {self.spec.stages[0]} of Gymnasium. An action is {parts}. Reach a return of {self.threshold:g}."

    def prompt(self, problems: SeededProblems, i: int) -> str:
        return f"A new episode of {self.spec.stages[0]} begins."

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def effective_tokens(self, state: EpisodeState) -> list[int]:
        return list(range(self.spec.actions))

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        names = [field.name for field in dataclasses.fields(EpisodeState) if field.name != "done"]
        return {"environment": tuple(names)}


def _made(
    name: str, shown: str, horizon: int | None, options: dict[str, Any]
) -> tuple[gymnasium.envs.registration.EnvSpec, gymnasium.Env[Any, Any]]:
    """An environment, and how it is registered."""
    try:
        module, colon, registered = name.rpartition(":")
        if colon:
            importlib.import_module(module)  # which registers it
        spec = gymnasium.spec(registered)
        return spec, make_environment(spec, horizon, options)
    except gymnasium.error.UnregisteredEnv as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"task: {shown!r} is not allowed; {said}; expected an id as gymnasium.make takes it") from error
    except Exception as error:  # the environment's code may raise anything
        raise UserError(f"task: {shown!r} cannot be made; {in_words(error)}") from error


def _threshold(given: float | None, registered: float | None, name: str) -> float:
    """The least return that counts as success."""
    if given is None and registered is None:
        raise UserError(
            f"threshold: is missing, and {name} has no reward_threshold; expected the least sum of rewards that counts "
            "as success: --options threshold=NUMBER"
        )
    value = registered if given is None else given
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    require(real, "threshold", value, "a finite number")
    return float(value)  # type: ignore[arg-type]


def _time_limit(environment: gymnasium.Env[Any, Any], spec: gymnasium.envs.registration.EnvSpec, name: str) -> int:
    """Of an episode, in steps. Some environments, such as MiniGrid's, have it as `max_steps`."""
    limit = spec.max_episode_steps or getattr(environment.unwrapped, "max_steps", None)
    if not isinstance(limit, int) or limit < 1:
        raise UserError(f"horizon: is missing, and {name} has no time limit; expected one: --options horizon=STEPS")
    return limit


def _limits(parts: list[Component], environment: gymnasium.Env[Any, Any]) -> tuple[Any, Any]:
    """The range of each number, float64 [D] twice: the bounds of its space, or what random play shows and a margin."""
    low, high = (np.array([getattr(part, side) for part in parts], dtype=np.float64) for side in ("low", "high"))
    if np.isfinite(low - high).all():
        return low, high
    flat, seen = flattener(environment.observation_space), []
    environment.action_space.seed(0)
    for seed in range(PLAYED_AT_RANDOM):
        observation, over = environment.reset(seed=seed)[0], False
        seen.append(flat(observation))
        while not over:
            observation, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
            seen.append(flat(observation))
            over = terminated or truncated
    least, most = np.min(seen, 0), np.max(seen, 0)
    margin = MARGIN * (most - least)
    return np.where(np.isfinite(low), low, least - margin), np.where(np.isfinite(high), high, most + margin)
