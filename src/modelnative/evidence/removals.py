"""Removals: success of an agent that lacks something at every action."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelnative.evidence.carriers import donors_of, hidden_rows, noisy, with_hidden_rows, zeroed
from modelnative.evidence.interventions import Moment, moments, playback
from modelnative.evidence.record import Record
from modelnative.evidence.statistics import Share, share
from modelnative.tasks.contract.task import AnyTask, Problems

NOISE_DRAWS = 3
Replacement = Callable[[Moment, Moment], Moment]  # what is before an action, and what is there undisturbed


@dataclass(frozen=True)
class Removal(Record):
    """What was removed, and the success of the episodes without it."""

    name: str
    success: Share


def remove_all(policy: nn.Module, task: AnyTask, problems: Problems) -> list[Removal]:
    """Success on n problems, first of the whole agent, then without something at every action."""
    found = [Removal("nothing", _success(policy, task, problems, None))]
    for name, replacement in _replacements(policy, task, problems):
        found.append(Removal(name, _success(policy, task, problems, replacement)))
    return found


def _success(policy: nn.Module, task: AnyTask, problems: Problems, replacement: Replacement | None) -> Share:
    hook = None
    if replacement is not None:
        undisturbed = moments(policy, task, problems)
        hook = lambda t, now: replacement(now, next(undisturbed))  # noqa: E731
    success = playback(policy, task, problems, hook).success
    return share(success, torch.ones_like(success))


def _replacements(policy: nn.Module, task: AnyTask, problems: Problems) -> Iterator[tuple[str, Replacement]]:
    partner = donors_of(problems)

    def hidden(make: Callable[[Tensor, Tensor], Tensor]) -> Replacement:
        """From the hidden state now, and the undisturbed one."""

        def replaced(now: Moment, undisturbed: Moment) -> Moment:
            rows = make(hidden_rows(policy, now.memory), hidden_rows(policy, undisturbed.memory))
            return with_hidden_rows(policy, now, rows)

        return replaced

    if hidden_rows(policy, next(moments(policy, task, problems)).memory).shape[1]:
        yield "hidden state: 0", lambda now, _: zeroed(policy, now)
        yield "hidden state: mean over problems", hidden(lambda _, rows: rows.mean(0).expand_as(rows).clone())
        yield "hidden state: another problem's", hidden(lambda _, rows: rows[partner])
        for draw in range(NOISE_DRAWS):
            generator = torch.Generator().manual_seed(10 + draw)
            # As far as the other problem's state is away, in a random direction.
            noise = hidden(lambda now, rows, g=generator: noisy(now, now + rows[partner] - rows, g))  # type: ignore[misc]
            yield f"hidden state: noise of that size, {draw + 1}", noise
    if task.spec.feedback_width:
        blank = task.spec.end
        yield (
            "feedback: blank",
            lambda now, _: dataclasses.replace(now, feedback=torch.full_like(now.feedback, blank)),
        )
        yield (
            "feedback: another problem's",
            lambda now, undisturbed: dataclasses.replace(now, feedback=undisturbed.feedback[partner]),
        )
    start = task.spec.start
    yield "last token: unseen", lambda now, _: dataclasses.replace(now, token=torch.full_like(now.token, start))
