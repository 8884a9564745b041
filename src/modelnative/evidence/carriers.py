"""What can carry information from one action to the next, and how it is taken from another problem's episode."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from modelnative.errors import UserError
from modelnative.evidence.interventions import (
    Moment,
    Playback,
    exchanged,
    flat,
    get_field,
    leaves,
    map_floats,
    playback,
    tensors_of,
    with_field,
    with_flat,
)
from modelnative.evidence.problem_set import unseen_problems
from modelnative.policies.contract import Policy, PolicyOutput
from modelnative.tasks.contract.task import AnyTask, Problems, State

Kind = Literal["policy", "observation", "tools"]
HIDDEN, CONTEXT, MODE, DEFAULT = "hidden state", "context", "mode", "registers"
WHOLE_POLICY, WHOLE_TOOLS = "whole policy state", "all registers"
LEAST = 20  # different problems of a stage, and comparable pairs, from which a share is worth showing
ALL_KEYS, SOME_KEYS = 12, 10  # episodes with at most so many actions are stopped before each; longer ones before some


@dataclass(frozen=True)
class Carrier:
    """Something that can carry information from one action to the next.

    Attributes:
        name: for people.
        kind: a part of the policy's state, what it observes, or registers of the tools.
        fields: of the policy's or of the task's state; or `token` or `feedback`.
    """

    name: str
    kind: Kind
    fields: tuple[str, ...]

    def differs(self, own: Moment, donor: Moment) -> bool:
        """Whether there is anything to exchange."""
        source = {"policy": (own.memory, donor.memory), "tools": (own.state, donor.state)}.get(self.kind, (own, donor))
        pairs = (zip(*(tensors_of(get_field(tree, path)) for tree in source), strict=True) for path in self.fields)
        return any(not torch.equal(a, b) for found in pairs for a, b in found)

    def exchange(self, own: Moment, donor: Moment) -> Moment:
        """`own` with this from `donor`."""
        if self.kind == "observation":
            return dataclasses.replace(own, **{name: getattr(donor, name) for name in self.fields})
        if self.kind == "policy":
            return dataclasses.replace(own, memory=exchanged(own.memory, donor.memory, self.fields))
        return dataclasses.replace(own, state=exchanged(own.state, donor.state, self.fields))


@dataclass(frozen=True)
class Episodes:
    """n greedy episodes of one stage, and what was before their actions.

    Attributes:
        problems: n of them.
        played: the episodes.
        moments: before each of some actions, by number.
        changing: the fields of the task's state that changed.
    """

    problems: Problems
    played: Playback
    moments: dict[int, Moment]
    changing: tuple[str, ...] = ()

    @property
    def keys(self) -> list[int]:
        """The numbers of the actions, from 0, at which is intervened."""
        return sorted(self.moments)


def policy_groups(policy: nn.Module) -> dict[str, tuple[str, ...]]:
    """`Policy.state_groups`, also of a module that is not a `Policy`."""
    if hasattr(policy, "state_groups"):
        return cast(dict[str, tuple[str, ...]], policy.state_groups())  # type: ignore[operator]
    return Policy.state_groups(cast(Policy, policy))


def hidden_of(policy: nn.Module, memory: object) -> list[object]:
    """The parts of a policy's state that it writes itself."""
    return [get_field(memory, path) for path in policy_groups(policy).get(HIDDEN, ())]


def with_hidden(policy: nn.Module, moment: Moment, parts: Sequence[object]) -> Moment:
    """A moment with other such parts."""
    memory = moment.memory
    for path, part in zip(policy_groups(policy).get(HIDDEN, ()), parts, strict=True):
        memory = with_field(memory, path, part)
    return dataclasses.replace(moment, memory=memory)


def hidden_rows(policy: nn.Module, memory: object) -> Tensor:
    """The hidden state as rows of numbers: float [n, d]."""
    return flat(hidden_of(policy, memory))


def with_hidden_rows(policy: nn.Module, moment: Moment, rows: Tensor) -> Moment:
    """A moment whose hidden state has other numbers, float [n, d]."""
    return with_hidden(policy, moment, with_flat(hidden_of(policy, moment.memory), rows))


def zeroed(policy: nn.Module, moment: Moment) -> Moment:
    """A moment whose hidden state is 0."""
    return with_hidden(
        policy, moment, [map_floats(part, torch.zeros_like) for part in hidden_of(policy, moment.memory)]
    )


def carriers(policy: nn.Module, task: AnyTask, changing: Sequence[str]) -> list[Carrier]:
    """All carriers of an agent and its task, those of several parts after the parts.

    Args:
        policy: the policy.
        task: the task.
        changing: the fields of its state that change during episodes.
    """
    parts = policy_groups(policy)
    found = [Carrier(name, "policy", paths) for name, paths in parts.items()]
    if len(parts) > 1:
        found.append(Carrier(WHOLE_POLICY, "policy", tuple(path for paths in parts.values() for path in paths)))
    found.append(Carrier("last token", "observation", ("token",)))
    if task.spec.feedback_width:
        found.append(Carrier("feedback", "observation", ("feedback",)))
    groups = register_groups(task, changing)
    single = {name: paths for name, paths in groups.items() if name != MODE}
    found += [Carrier(name, "tools", paths) for name, paths in single.items()]
    if len(groups) > 1:
        found.append(Carrier(WHOLE_TOOLS, "tools", tuple(path for paths in groups.values() for path in paths)))
    return found


def register_groups(task: AnyTask, changing: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`Task.state_groups`, with its default filled in and without fields that the state does not have."""
    groups = task.state_groups()
    if groups:
        return groups
    return {DEFAULT: tuple(changing)} if changing else {}


def record(policy: nn.Module, task: AnyTask, problems: Problems) -> Episodes:
    """Play greedily and keep what is before the actions."""
    rows = torch.arange(len(problems), device=problems.stage.device)
    kept: dict[int, Moment] = {}
    wanted = set(chosen_keys(len(playback(policy, task, problems).action)))

    def watch(t: int, now: Moment, output: PolicyOutput) -> None:
        if t in wanted:
            kept[t] = now.rows(rows)  # a copy: a policy may write into its state

    played = playback(policy, task, problems, watch=watch)
    return Episodes(problems, played, kept, changing_fields(task, problems, played.final))


def changing_fields(task: AnyTask, problems: Problems, final: State) -> tuple[str, ...]:
    """The fields of the task's state that are not what they were at the start of these episodes."""
    first = dict(leaves(task.begin(problems)))
    changed = {path for path, tensor in leaves(final) if not torch.equal(tensor, first[path])}
    return tuple(path for path in first if path in changed and path != "done")


def chosen_keys(length: int) -> list[int]:
    """Before which of an episode's actions is intervened: all, or the first two, the last two and some between.

    Example:
        >>> chosen_keys(3), chosen_keys(40)
        ([0, 1, 2], [0, 1, 6, 12, 17, 22, 27, 33, 38, 39])
    """
    if length <= ALL_KEYS:
        return list(range(length))
    steps = SOME_KEYS - 3
    middle = [round(1 + (length - 3) * i / steps) for i in range(1, steps)]
    return [0, 1, *middle, length - 2, length - 1]


def problems_of(task: AnyTask, stage: int, n: int) -> Problems:
    """n problems of a stage, the same each time: held-out ones, or all where few are held out.

    Raises:
        UserError: the stage has too few different problems.
    """
    problems = unseen_problems(task, stage, n)
    if len(problems.key.unique()) < min(n, 5 * LEAST):
        stages = torch.full((n,), stage)
        problems = task.sample(stages, torch.Generator().manual_seed(0), "all")
    different = len(problems.key.unique())
    if different < LEAST:
        name = task.spec.stages[stage]
        raise UserError(f"stage: {name!r} has {different} different problems, too few to exchange; expected {LEAST}")
    return problems


def donors_of(problems: Problems) -> Tensor:
    """For each problem the one that it exchanges with: int64 [n], no two the same."""
    n = len(problems)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner.to(problems.stage.device)


def noisy(own: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """`own`, float [n, d], moved as far as `other` is away, in a random direction."""
    direction = torch.randn(own.shape, generator=generator).to(own)
    distance = (other - own).norm(dim=1, keepdim=True)
    return own + direction * (distance / direction.norm(dim=1, keepdim=True).clamp_min(1e-12))
