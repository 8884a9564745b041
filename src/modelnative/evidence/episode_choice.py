"""Which episodes of a stage are worth a look: one that succeeds, one that fails, and the longest."""

from __future__ import annotations

import torch

from modelnative.evidence.evaluate import DRAWN, LISTED
from modelnative.evidence.problem_set import ProblemSet, unseen_problems
from modelnative.policies.contract import Policy
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.rollout import play

PLAYED = 256  # episodes of a stage among which right, wrong and longest are chosen


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
