"""Groups of trainings compared: what each reaches, and which differences the number of seeds supports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelnative.errors import UserError
from modelnative.evidence.comparison import (
    Estimate,
    difference,
    group_score,
    probability_of_improvement,
    profile,
)
from modelnative.evidence.record import Record
from modelnative.sweeps.groups import RATES, Group
from modelnative.sweeps.results import MIN_SEEDS

THRESHOLDS = tuple(step / 50 for step in range(50))  # of the profile, for rates


@dataclass(frozen=True)
class Pair:
    """A group against the first one.

    Attributes:
        label: of the group.
        probability: that one of its trainings is better than one of the first group.
        difference: of the interquartile means, this group's minus the first one's.
        supported: whether both intervals exclude "no difference".
        verdict: in words.
    """

    label: str
    probability: Estimate
    difference: Estimate
    supported: bool
    verdict: str


@dataclass(frozen=True)
class Comparison(Record):
    """What the groups reach.

    Attributes:
        metric: what is compared.
        tasks: on which all groups were trained.
        groups: the groups.
        scores: the interquartile mean of each, with its 95% interval.
        profiles: for rates, the share of the trainings of each group that score above each of `THRESHOLDS`.
        level: of the intervals in `pairs`: 95% for all of them together (Bonferroni).
        pairs: each group against the first.
        notes: what to know before a difference is claimed, one line each.
    """

    metric: str
    tasks: tuple[str, ...]
    groups: tuple[Group, ...]
    scores: tuple[Estimate, ...]
    profiles: tuple[tuple[Estimate, ...], ...]
    level: float
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


def compare_groups(groups: Sequence[Group], metric: str) -> Comparison:
    """Compare the first group with each of the others.

    Raises:
        UserError: there is no task that all groups were trained on.
    """
    tasks = [task for task in groups[0].scores if all(task in group.scores for group in groups)]
    if not tasks:
        trained = "; ".join(f"{group.label}: {', '.join(group.scores)}" for group in groups)
        raise UserError(f"runs: no task is common to all groups ({trained}); name runs of the same task")
    bounds = (0.0, 1.0) if metric in RATES else None
    strata = [group.strata(tasks) for group in groups]
    level = 1 - 0.05 / max(1, len(groups) - 1)
    profiles = [tuple(profile(each, THRESHOLDS)) for each in strata] if metric in RATES else []
    return Comparison(
        metric=metric,
        tasks=tuple(tasks),
        groups=tuple(groups),
        scores=tuple(group_score(each, bounds=bounds) for each in strata),
        profiles=tuple(profiles),
        level=level,
        pairs=tuple(_pair(group, groups[0], tasks, metric, level) for group in groups[1:]),
        notes=tuple(_notes(groups, tasks, metric)),
    )


def _pair(group: Group, first: Group, tasks: Sequence[str], metric: str, level: float) -> Pair:
    ours, theirs = group.strata(tasks), first.strata(tasks)
    sign = 1.0 if metric in RATES else -1.0
    better = [[[sign * score for score in stratum] for stratum in scores] for scores in (ours, theirs)]
    probability = probability_of_improvement(better[0], better[1], level)
    apart = difference(ours, theirs, level)
    supported = not probability.low <= 0.5 <= probability.high and not apart.low <= 0.0 <= apart.high
    seeds = " and ".join(str(sum(map(len, scores))) for scores in (ours, theirs))
    if supported:
        word = "better" if probability.value > 0.5 else "worse"
        verdict = f"{word} than {first.label}"
    else:
        verdict = f"no difference from {first.label} that {seeds} trainings support"
    return Pair(group.label, probability, apart, supported, verdict)


def _notes(groups: Sequence[Group], tasks: Sequence[str], metric: str) -> list[str]:
    notes = []
    fewest = min(len(group.scores[task]) for group in groups for task in tasks)
    if fewest < MIN_SEEDS:
        notes.append(
            f"{fewest} seed{'s' * (fewest != 1)} in the smallest group: too few for a claim; {MIN_SEEDS} are usual."
        )
    for group in groups:
        if group.failed:
            notes.append(f"{group.label}: {group.failed} trainings have no result and are left out.")
        if metric not in RATES and group.unsolved:
            notes.append(
                f"{group.label}: {group.unsolved} trainings ended unsolved; solving would have taken more {metric}."
            )
        alone = [task for task in group.scores if task not in tasks]
        if alone:
            notes.append(f"{group.label}: {', '.join(alone)} left out, which not every group was trained on.")
    return notes
