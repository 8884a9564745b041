"""Tasks for TRL's `GRPOTrainer`: a dataset, environments whose methods are the task's calls, and a reward.

`TRLTask` itself needs no optional package but for its datasets. The trainer needs the extra `trl`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from modelnative.errors import UserError, choose
from modelnative.extras import optional
from modelnative.tasks.contract.calls import Argument, Call
from modelnative.tasks.contract.episode import Episode
from modelnative.tasks.contract.task import SPLITS, AnyTask, Split, require

TESTED = ("1.16", "1.17")  # from, and below: TRL calls `environment_factory` experimental


class TRLTask:
    """A task for `GRPOTrainer`. Its attributes are arguments of the trainer.

    A row of the dataset names its problem by seed and index, so that all rollouts of a group share the problem. Its
    prompt has the rules, and what is shown before the first call.

    TRL ends an episode when the model makes no call, or at its limits, and not when the task does: a call after the end
    is refused, which the model reads. So set `max_tool_calling_iterations`.

    Args:
        task: a task or the name of one.
        stages: the names of the stages that problems are drawn from, in turn; empty means all.
        count: number of rows.
        seed: of the problems.
        split: which problems are drawn.
        reward: what is paid: `score`, the task's rewards, or `success`, the verifier's verdict.

    Attributes:
        environment_factory: a class of environments.
        reward_funcs: a list with one function, which also logs success, refused calls and truncations.
        max_tool_calling_iterations: the most calls that an episode can use.

    Example:
        >>> task = TRLTask("arithmetic", stages=["T0"], count=2, seed=0)
        >>> environment = task.environment_factory()
        >>> environment.reset(**task.rows[0])
        >>> print(environment.press("3 MUL 4"))
        3: 3
        MUL: 3
        4: 12
    """

    def __init__(
        self,
        task: AnyTask | str,
        *,
        stages: Sequence[str] = (),
        count: int = 1000,
        seed: int = 0,
        split: Split = "train",
        reward: Literal["score", "success"] = "score",
    ) -> None:
        require(count >= 1, "count", count, "at least 1")
        choose("split", split, SPLITS)
        self.reward = choose("reward", reward, ("score", "success"))
        episode = Episode(task)
        self.task = episode.task
        names = list(stages) or list(self.task.spec.stages)
        self.rows = [_row(episode, names[i % len(names)], seed, i, split) for i in range(count)]
        self.environment_factory = environment_class(self.task)
        self.reward_funcs: list[Callable[..., list[float]]] = [self._rewards]
        self.max_tool_calling_iterations = self.task.spec.horizon

    @property
    def train_dataset(self) -> Any:
        """The rows as a `datasets.Dataset`."""
        return optional("datasets", "trl", "4", "6").Dataset.from_list(self.rows)

    def _rewards(self, environments: Sequence[Any], log_metric: Any = None, **columns: Any) -> list[float]:
        episodes = [environment._episode for environment in environments]
        if log_metric is not None:
            for name in ("success", "truncated", "over", "refused", "invalid"):
                log_metric(f"episode/{name}", sum(float(getattr(e, name)) for e in episodes) / len(episodes))
            log_metric("episode/keys", sum(len(e.keys) for e in episodes) / len(episodes))
        return [float(getattr(episode, self.reward)) for episode in episodes]


class Environment:
    """One episode, as TRL plays it. The subclass for a task has a method for each call.

    Args:
        task: the task.
    """

    def __init__(self, task: AnyTask) -> None:
        self._episode = Episode(task)

    def reset(self, **row: Any) -> None:
        """Begin the episode of a row of the dataset. Its prompt has what the model must know, so nothing is added."""
        for name in ("stage", "seed", "index", "split"):
            if name not in row:
                raise UserError(f"{name}: the row of the dataset lacks it; expected the rows of TRLTask.train_dataset")
        self._episode.begin(row["stage"], seed=row["seed"], index=row["index"], split=row["split"])


def environment_class(task: AnyTask) -> type[Environment]:
    """Return a class of environments whose public methods are the task's calls.

    It can be made without arguments, as `GRPOTrainer(environment_factory=...)` does.
    """

    def make(self: Environment) -> None:
        Environment.__init__(self, task)

    methods = {call.name: _method(call) for call in task.calls()}
    return type(f"{task.spec.name.capitalize()}Environment", (Environment,), {"__init__": make, **methods})


def _row(episode: Episode, stage: str, seed: int, index: int, split: Split) -> dict[str, Any]:
    opening = episode.begin(stage, seed=seed, index=index, split=split)
    prompt = [{"role": "system", "content": episode.rules}, {"role": "user", "content": opening}]
    return {"prompt": prompt, "stage": stage, "seed": seed, "index": index, "split": split}


def _method(call: Call) -> Callable[..., str]:
    """A method with the signature and the docstring that TRL makes a schema of."""

    def method(self: Environment, **given: Any) -> str:
        return self._episode.call(call.name, given).text

    hints = {name: hint_of(argument) for name, argument in call.arguments.items()}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("self", kind)]
    parameters += [inspect.Parameter(name, kind, annotation=hint) for name, hint in hints.items()]
    signature = inspect.Signature(parameters, return_annotation=str)

    def bound(self: Environment, *args: Any, **kwargs: Any) -> str:
        try:
            given: Mapping[str, Any] = signature.bind(self, *args, **kwargs).arguments
        except TypeError:  # what is missing or unknown is refused in words
            return method(self, **kwargs)
        return method(self, **{name: value for name, value in given.items() if name != "self"})

    lines = [f"    {name}: {argument.doc or name}" for name, argument in call.arguments.items()]
    bound.__name__ = bound.__qualname__ = call.name
    bound.__doc__ = "\n".join([call.doc or call.name, *(["", "Args:", *lines] if lines else [])])
    bound.__annotations__ = {**hints, "return": str}
    bound.__signature__ = signature  # type: ignore[attr-defined]
    return bound


def hint_of(argument: Argument) -> Any:
    """The annotation of an argument: a type, a Literal, or a union of types."""
    hints = [Literal[kind.choices] if kind.choices and kind.type is not bool else kind.type for kind in argument.kinds]
    hint: Any = hints[0]
    for other in hints[1:]:
        hint = hint | other
    return hint
