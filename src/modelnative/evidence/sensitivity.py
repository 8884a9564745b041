"""Does the agent read its problem? One element of each problem is changed, such as an operand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelnative.evidence.interventions import ENDED, Answers, Playback, playback
from modelnative.evidence.record import Record
from modelnative.evidence.statistics import Share, share
from modelnative.tasks.contract.task import AnyTask, Problems


@dataclass(frozen=True)
class Sensitivity(Record):
    """What a change of the problem changes.

    Attributes:
        target: pairs of problems with different right answers.
        answer: of these, the agent's answers differ.
        right: of these, the agent is right after the change.
        program: of all pairs of different problems, the agent's actions differ; those without effect do not count.
    """

    target: Share
    answer: Share
    right: Share
    program: Share


def sensitivity(
    policy: nn.Module, task: AnyTask, problems: Problems, played: Playback, answers: Answers
) -> Sensitivity:
    """Compare the episodes of n problems with those of problems that differ in one element; see `Task.vary`."""
    varied = task.vary(problems, torch.Generator().manual_seed(3))
    other = playback(policy, task, varied)
    different = varied.key != problems.key
    target = different & (answers.targets(problems, played.final) != answers.targets(varied, other.final))
    answer = answers.of(problems, played.final) != answers.of(varied, other.final)
    program = (effective(task, problems, played) != effective(task, varied, other)).any(1)
    return Sensitivity(
        share(target, different), share(answer, target), share(other.success, target), share(program, different)
    )


def effective(task: AnyTask, problems: Problems, played: Playback) -> Tensor:
    """The actions of n episodes that had an effect, in their order: int64 [n, horizon], padded with `ENDED`.

    What an agent writes instead of another action without effect does not show that it reads its problem.
    """
    state, kept = (
        task.begin(problems),
        torch.full((len(problems), task.spec.horizon), ENDED, device=played.action.device),
    )
    for t, action in enumerate(played.action):
        step = task.step(state, action.clamp_min(0))
        state, kept[:, t] = step.state, torch.where(step.invalid, ENDED, action)
    return kept.gather(1, (kept == ENDED).int().argsort(dim=1, stable=True))
