"""Which episodes of a stage are worth a look: some that succeed, fail, take longest, waste actions, or depart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.errors import choose
from modelnative.evidence.evaluate import DRAWN, LISTED
from modelnative.evidence.problem_set import ProblemSet, unseen_problems
from modelnative.policies.contract import Policy
from modelnative.tasks.contract.task import AnyTask, Problems, program_length, require
from modelnative.training.rollout import Rollout, play

PLAYED = 256  # episodes of a stage among which right, wrong and longest are chosen
KINDS = ("wrong", "right", "longest", "invalid", "departs")
FOUND, SEARCHED = 50, 1 << 16  # episodes that are listed, and problems that are played for them at most


def choose_episodes(policy: Policy, task: AnyTask, stage: int, *, failures: bool) -> list[tuple[str, Problems]]:
    """Up to three problems of a stage, each with why it was chosen: `wrong`, `right` and `longest`.

    They are chosen among the same few hundred greedy episodes each time, of held-out problems if the stage has any.

    Args:
        policy: plays greedily.
        task: the task that it plays.
        stage: its index.
        failures: whether the policy is known to fail somewhere; then a failure is searched for among all problems.

    Returns:
        Batches of one problem, failures first. A problem that was chosen for two reasons has both, `right, longest`.
    """
    problems = unseen_problems(task, stage, PLAYED)
    rollout = play(policy, task, problems)
    failed = (~rollout.success).nonzero()[:, 0].tolist()
    right = rollout.success.nonzero()[:, 0].tolist()
    rows = {"wrong": failed[:1], "right": right[:1], "longest": [int(rollout.length.argmax())]}
    reasons: dict[int, list[str]] = {}
    for reason, found in rows.items():
        for row in found:
            reasons.setdefault(row, []).append(reason)
    chosen = [(", ".join(words), problems[row : row + 1]) for row, words in reasons.items()]
    if failures and not failed:
        chosen = [*(("wrong", problem) for problem in _failure(policy, task, stage)), *chosen]
    return chosen


def _failure(policy: Policy, task: AnyTask, stage: int) -> list[Problems]:
    """The first problem of a stage that the policy fails; empty if there is none."""
    problems: Problems
    for problems in ProblemSet.of(task, stage, "all", LISTED, min(DRAWN, task.evaluation_size)).chunks():
        failed = torch.logical_not(play(policy, task, problems).success)
        if bool(failed.any()):
            return [problems[failed][:1]]
    return []


@dataclass(frozen=True)
class FoundEpisode:
    """A greedy episode, in short.

    Attributes:
        problem: a batch of that problem.
        success: the verifier's verdict.
        length: actions.
        invalid: of these, those without effect.
        departure: the number of the first action that is not the oracle's, from 1; None if there is none, or no oracle.
    """

    problem: Problems
    success: bool
    length: int
    invalid: int
    departure: int | None


def find_episodes(policy: Policy, task: AnyTask, stage: int, kind: str) -> tuple[list[FoundEpisode], int]:
    """Greedy episodes of one kind, of the whole stage or of its first `SEARCHED` problems.

    Args:
        policy: plays.
        task: the task that it plays.
        stage: its index.
        kind: `right`, `wrong`, `longest` (the longest first), `invalid` (with actions without effect) or `departs`
            (from the oracle's program).

    Returns:
        At most `FOUND` of them, in the order in which problems are listed, and how many problems were played.

    Raises:
        UserError: there is no such kind, or the task has no oracle to depart from.
    """
    choose("kind", kind, KINDS)
    require(kind != "departs" or task.has_oracle, "kind", kind, "another one; this task has no oracle")
    found: list[FoundEpisode] = []
    played = 0
    problems: Problems
    for problems in ProblemSet.of(task, stage, "all", LISTED, min(DRAWN, task.evaluation_size)).chunks():
        rollout = play(policy, task, problems)
        played += len(problems)
        departures = _departures(task, rollout)
        invalid = (rollout.invalid & rollout.running).sum(0)
        chosen = {
            "right": rollout.success,
            "wrong": ~rollout.success,
            "longest": torch.ones_like(rollout.success),
            "invalid": invalid > 0,
            "departs": departures > 0,
        }[kind].nonzero()[:, 0]
        if kind == "longest":
            chosen = chosen[rollout.length[chosen].argsort(descending=True, stable=True)]
        for row in chosen[:FOUND].tolist():
            numbers = (int(rollout.length[row]), int(invalid[row]), int(departures[row]) or None)
            found.append(FoundEpisode(problems[row : row + 1], bool(rollout.success[row]), *numbers))
        if kind == "longest":
            found = sorted(found, key=lambda episode: -episode.length)[:FOUND]
        elif len(found) >= FOUND:
            break
        if played >= SEARCHED:
            break
    return found[:FOUND], played


def _departures(task: AnyTask, rollout: Rollout) -> Tensor:
    """The number of the first action of each episode that is not the oracle's, from 1; 0 for none: int64 [n]."""
    if not task.has_oracle:
        return torch.zeros_like(rollout.length)
    program = task.oracle(rollout.problems).t()
    steps = len(rollout.action)
    ends = program_length(program.t(), task.spec.end)
    program = torch.nn.functional.pad(program, (0, 0, 0, max(0, steps - len(program))))[:steps]
    after = torch.arange(steps, device=program.device)[:, None] >= ends
    differs = rollout.running & ((rollout.action != program) | after)
    return torch.where(differs.any(0), differs.int().argmax(0) + 1, 0)
