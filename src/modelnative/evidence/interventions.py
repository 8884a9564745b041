"""Greedy episodes with interventions: what an agent has before an action can be replaced by something else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.policies.contract import PolicyOutput, map_tensors, select_rows
from modelnative.policies.settings import standard_settings
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, State, mixed
from modelnative.training.rollout import sample_actions

ENDED = -1  # in place of an action after the end of an episode


@dataclass(frozen=True)
class Moment:
    """All that decides what follows in n episodes, before an action.

    Attributes:
        state: of the task.
        memory: the policy's state.
        token: int64 [n], the last action; `TaskSpec.start` before the first.
        feedback: int64 [n, F], what the tools show.
    """

    state: State
    memory: Any
    token: Tensor
    feedback: Tensor

    def rows(self, rows: Tensor) -> Moment:
        """Some of the episodes, int64 [m], copied."""
        token, feedback = self.token.index_select(0, rows), self.feedback.index_select(0, rows)
        return Moment(self.state[rows], select_rows(self.memory, rows), token, feedback)


Hook = Callable[[int, Moment], Moment]  # the number of the action, from 0, and what is before it -> what to use instead
Watcher = Callable[[int, Moment, PolicyOutput], None]


@dataclass(frozen=True)
class Playback:
    """n greedy episodes from action `first` on. T is the length of the longest.

    Attributes:
        token, feedback: int64 [T, n] and [T, n, F], what the policy read before each action.
        action: int64 [T, n]; `ENDED` after the end of an episode.
        success: bool [n].
        final: the task's state after the last action.
    """

    token: Tensor
    feedback: Tensor
    action: Tensor
    success: Tensor
    final: State

    @property
    def length(self) -> Tensor:
        """Actions of each episode: int64 [n]."""
        return (self.action != ENDED).sum(0)


def begin(policy: nn.Module, task: AnyTask, problems: Problems) -> Moment:
    """What is before the first action."""
    state = task.begin(problems)
    token = torch.full_like(problems.stage, task.spec.start)
    return Moment(state, policy.initial_state(problems), token, task.feedback(state))  # type: ignore[operator]


@standard_settings()
@torch.no_grad()
def playback(
    policy: nn.Module,
    task: AnyTask,
    problems: Problems,
    hook: Hook | None = None,
    watch: Watcher | None = None,
    *,
    start: Moment | None = None,
    first: int = 0,
) -> Playback:
    """Play greedily. Without a hook it is bit for bit what `modelnative.training.rollout.play` does.

    Args:
        policy: see `modelnative.Policy`.
        task: answers.
        problems: n of them.
        hook: returns what is to be used in place of a moment, before each action; it must not change its argument.
        watch: is called with what was used and with what the policy computed.
        start: where to begin; by default at the beginning.
        first: the number of the first action, for `start`.

    Returns:
        The episodes from action `first` on.
    """
    now = begin(policy, task, problems) if start is None else start
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    success = torch.zeros_like(now.state.done)
    running = ~now.state.done
    for t in range(first, task.spec.horizon):
        if not bool(running.any()):
            break
        now = now if hook is None else hook(t, now)
        output: PolicyOutput = policy(now.token[None], now.feedback[None], now.memory)
        if watch is not None:
            watch(t, now, output)
        action = sample_actions(output.logits[0])[0]
        step = task.step(now.state, action)
        columns.append((now.token, now.feedback, torch.where(running, action, ENDED)))
        success = success | step.success
        running = ~step.done
        now = Moment(step.state, output.state, action, step.feedback)
    if not columns:
        none = now.token[None, :].new_empty(0, len(now.token))
        return Playback(none, now.feedback[None][:0], none, success, now.state)
    token, feedback, action = (torch.stack(column) for column in zip(*columns, strict=True))
    return Playback(token, feedback, action, success, now.state)


@torch.no_grad()
def moments(policy: nn.Module, task: AnyTask, problems: Problems) -> Iterator[Moment]:
    """What is before each action of undisturbed episodes, one moment after the other, to the horizon."""
    now = begin(policy, task, problems)
    for _ in range(task.spec.horizon):
        yield now
        output: PolicyOutput = policy(now.token[None], now.feedback[None], now.memory)
        action = sample_actions(output.logits[0])[0]
        step = task.step(now.state, action)
        now = Moment(step.state, output.state, action, step.feedback)


@torch.no_grad()
def replay(task: AnyTask, state: State, actions: Tensor) -> tuple[State, Tensor]:
    """Given actions, int64 [T, n], `ENDED` after their end -> the last state, and success, bool [n].

    An episode whose actions end before it does waits there.
    """
    success = torch.zeros_like(state.done)
    for action in actions:
        acts = action != ENDED
        step = task.step(state, action.clamp_min(0))
        rows = acts.nonzero()[:, 0]
        state = step.state if len(rows) == len(acts) else state.put(rows, step.state[rows])
        success = success | (step.success & acts)
    return state, success


# Fields of nested dataclasses, dictionaries and named tuples


def get_field(tree: Any, path: str) -> Any:
    """A field by its dotted path; the whole for an empty one."""
    for name in filter(None, path.split(".")):
        tree = tree[name] if isinstance(tree, dict) else getattr(tree, name)
    return tree


def with_field(tree: Any, path: str, value: Any) -> Any:
    """A copy in which a field has another value.

    Example:
        >>> with_field({"a": {"b": 1, "c": 2}}, "a.b", 5)
        {'a': {'b': 5, 'c': 2}}
    """
    name, _, rest = path.partition(".")
    if not name:
        return value
    if isinstance(tree, dict):
        return {**tree, name: with_field(tree[name], rest, value)}
    inner = with_field(getattr(tree, name), rest, value)
    if hasattr(tree, "_replace"):
        return tree._replace(**{name: inner})
    return dataclasses.replace(tree, **{name: inner})


def exchanged(own: Any, donor: Any, paths: Sequence[str]) -> Any:
    """`own` with the fields of `donor` at some paths."""
    for path in paths:
        own = with_field(own, path, get_field(donor, path))
    return own


def map_floats(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with `function` applied to every tensor of floating-point numbers."""
    return map_tensors(tree, lambda tensor: function(tensor) if tensor.is_floating_point() else tensor)


def tensors_of(tree: Any) -> list[Tensor]:
    """All tensors, in order."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(tree, keep)
    return found


def flat(tree: Any) -> Tensor:
    """The floating-point numbers of n episodes as rows: float [n, d]; d = 0 if there are none."""
    rows = [tensor.flatten(1) for tensor in tensors_of(tree) if tensor.is_floating_point()]
    return torch.cat(rows, 1) if rows else torch.empty(0, 0)


def with_flat(tree: Any, rows: Tensor) -> Any:
    """The inverse of `flat`: the structure of `tree` with other numbers, float [n, d]."""
    start = 0

    def fill(tensor: Tensor) -> Tensor:
        nonlocal start
        size = tensor[0].numel()
        part = rows[:, start : start + size]
        start += size
        return part.reshape(tensor.shape).to(tensor.dtype)

    return map_floats(tree, fill)


def leaves(batch: Batch, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of a batch by their paths, without those of `Problems` in it."""
    for field in dataclasses.fields(batch):  # type: ignore[arg-type]
        value, here = getattr(batch, field.name), f"{path}{field.name}"
        if isinstance(value, Problems):
            continue
        if isinstance(value, Batch):
            yield from leaves(value, f"{here}.")
        else:
            yield here, value


class Answers:
    """Numbers for the answers of episodes: equal numbers if and only if the answers are equal; −1 for no answer.

    An answer is what `Task.records` calls so. States that were seen before are not described again.
    """

    def __init__(self, task: AnyTask) -> None:
        self.task = task
        self.numbers: dict[str, int] = {"null": -1}
        self.seen: dict[int, int] = {}

    def of(self, problems: Problems, state: State) -> Tensor:
        """The answers of n final states: int64 [n]."""
        digest = mixed(problems.key)
        for place, (_, tensor) in enumerate(leaves(state)):
            rows = tensor.reshape(len(tensor), -1)
            rows = rows.double().view(torch.int64) if rows.is_floating_point() else rows.long()
            for column in rows.unbind(1):
                digest = mixed(digest + column + place)
        digests = digest.tolist()
        new = {number: i for i, number in enumerate(digests) if number not in self.seen}
        if new:
            rows = torch.tensor(list(new.values()), device=digest.device)
            for number, record in zip(new, self.task.records(problems[rows], state[rows]), strict=True):
                text = json.dumps(record["answer"], sort_keys=True, default=str)
                self.seen[number] = self.numbers.setdefault(text, len(self.numbers))
        return torch.tensor([self.seen[number] for number in digests], device=digest.device)

    def targets(self, problems: Problems, state: State) -> Tensor:
        """Numbers for the right answers of n problems, in the same way: int64 [n]."""
        texts = (json.dumps(record["target"], default=str) for record in self.task.records(problems, state))
        numbers = [self.numbers.setdefault(text, len(self.numbers)) for text in texts]
        return torch.tensor(numbers, device=problems.stage.device)
