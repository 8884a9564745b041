"""Every problem of a task, played and judged; where they are too many to list, a sample of them, and it says so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from modelnative.errors import choose
from modelnative.evidence.problem_set import Source
from modelnative.policies.policy import Policy
from modelnative.tasks.contract.task import SPLITS, AnyTask, Problems, Split
from modelnative.training.parallel import Pool, cores
from modelnative.training.rollout import Plan, Rollout, play

LISTED = 150_000  # problems of a stage and split that are all played; of more, or of endless ones,
DRAWN = 10_000  # as many are drawn, the same ones every time


@dataclass(frozen=True)
class Count:
    """Successes among all problems of one stage and split, or, unless `whole`, among some drawn."""

    stage: str
    split: str
    successes: int
    problems: int
    whole: bool = True

    @property
    def rate(self) -> float:
        """Successes over problems; 1 for an empty split."""
        return self.successes / self.problems if self.problems else 1.0


@dataclass(frozen=True)
class Evaluation:
    """The verdict on a policy, a count for each stage and split."""

    counts: tuple[Count, ...]
    greedy: bool

    @property
    def perfect(self) -> bool:
        """Every problem was solved."""
        return self.reaches(1.0)

    def reaches(self, rate: float) -> bool:
        """Every problem that could be listed was solved, and of those drawn at least this share in every stage."""
        return all(c.successes >= c.problems * (1.0 if c.whole else rate) for c in self.counts)

    def total(self, stage: str | None = None, split: str | None = None) -> Count:
        """The sum over the counts of a stage, a split, or all."""
        chosen = [c for c in self.counts if stage in (None, c.stage) and split in (None, c.split)]
        successes, problems = sum(c.successes for c in chosen), sum(c.problems for c in chosen)
        return Count(stage or "all", split or "all", successes, problems, all(c.whole for c in chosen))

    def line(self) -> str:
        """The verdict in one line.

        Example:
            >>> Evaluation((Count("T0", "train", 3, 4), Count("T0", "heldout", 1, 1)), greedy=True).line()
            'T0=0.800 (4/5 problems)'
        """
        stages = list(dict.fromkeys(count.stage for count in self.counts))
        whole = self.total()
        rates = " ".join(f"{stage}={floor(self.total(stage).rate)}" for stage in stages)
        return f"{rates} ({whole.successes}/{whole.problems} problems{'' if whole.whole else ', some drawn'})"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = [{**vars(count), "rate": count.rate} for count in self.counts]
        return {"greedy": self.greedy, "perfect": self.perfect, "counts": counts, "line": self.line()}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of `as_dict`."""
        names = [field.name for field in fields(Count)]
        return cls(
            tuple(Count(**{name: count[name] for name in names if name in count}) for count in values["counts"]),
            values["greedy"],
        )


def floor(rate: float) -> str:
    """Three decimals, rounded down: only a perfect stage is shown as 1.000."""
    return f"{int(rate * 1000 + 1e-9) / 1000:.3f}"


def evaluate(
    policy: Policy,
    task: AnyTask,
    *,
    stages: Sequence[str] | None = None,
    split: Split = "all",
    generator: torch.Generator | None = None,
    watch: Callable[[Rollout], None] | None = None,
) -> Evaluation:
    """Play every problem of some stages once, greedily unless a generator is given, and count.

    Of a stage with more than `LISTED` problems in a split, `DRAWN` are played instead.

    Args:
        policy, task: who plays what.
        stages: names; all by default.
        split: `train`, `heldout`, or `all`, which counts both apart.
        generator: draws the actions from the policy (temperature 1) instead.
        watch: is given every rollout, to write episodes or show progress.

    Raises:
        UserError: an unknown stage or split.
    """
    choose("split", split, SPLITS)
    names = list(stages) if stages is not None else list(task.spec.stages)
    parts: tuple[Split, ...] = ("train", "heldout") if split == "all" else (split,)
    device = next(policy.parameters()).device
    counts = []
    pool = Pool(cores())

    def chunks(source: Source) -> Iterator[tuple[Problems, Plan | None]]:
        for chunk in source.chunks():
            chunk = chunk.to(device)
            yield chunk, None if generator is None else Plan.free(chunk, task.spec.horizon, generator)

    for name, part in itertools.product(names, parts):
        successes = problems = 0
        source = Source.of(task, task.spec.stage_index(name), part, LISTED, DRAWN)
        work = chunks(source)
        for rollout in pool.stream(lambda chunk: play(policy, task, *chunk, final=watch is not None), work):
            successes += int(rollout.success.sum())
            problems += len(rollout.success)
            if watch is not None:
                watch(rollout)
        counts.append(Count(name, part, successes, problems, source.listed))
    return Evaluation(tuple(counts), generator is None)


def episodes(task: AnyTask, rollout: Rollout) -> list[dict[str, Any]]:
    """A JSON-ready record of every episode: its stage, its problem, the actions, the answer, the target, the verdict.

    The actions end with the one that ended the episode; an outsider can replay them.
    """
    assert rollout.final is not None, "played without `final`"
    names, stages = task.spec.vocabulary, task.spec.stages
    columns = zip(
        task.records(rollout.problems, rollout.final),
        rollout.problems.stage.tolist(),
        rollout.action.T.tolist(),
        rollout.length.tolist(),
        rollout.success.tolist(),
        strict=True,
    )
    return [
        {
            "stage": stages[stage],
            **{name: value for name, value in record.items() if name not in ("answer", "target")},
            "actions": [names[token] for token in actions[:length]],
            "answer": record["answer"],
            "target": record["target"],
            "success": success,
        }
        for record, stage, actions, length, success in columns
    ]
