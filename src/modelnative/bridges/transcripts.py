"""Episodes as chat transcripts for supervised training, such as TRL's `SFTTrainer`; needs no optional package.

A row has the columns `messages` and `tools`, as `Episode.messages` and `Episode.tools` give them, and what identifies
its problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from modelnative.errors import UserError, choose
from modelnative.policies.contract import Policy
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.episode import Episode, draw
from modelnative.tasks.contract.task import SPLITS, AnyTask, Split, require
from modelnative.training.rollout import Plan, play

MOST, SEEDS = 1_000_000, 2**31
CHUNK = 1000  # episodes that are played at once


def transcripts(
    task: AnyTask,
    policy: Policy | None,
    *,
    stages: Sequence[str] = (),
    count: int,
    seed: int,
    split: Split,
    sampled: bool,
) -> Iterator[dict[str, Any]]:
    """Play problems, and yield a row for each whose keys can be pressed by calls; see `modelnative.transcripts`."""
    require(1 <= count <= MOST, "count", count, f"1 to {MOST}")
    require(0 <= seed < SEEDS, "seed", seed, f"0 to {SEEDS - 1}")
    require(not sampled or policy is not None, "sampled", sampled, "a trained agent to sample from")
    choose("split", split, SPLITS)
    names = list(stages) or list(task.spec.stages)
    numbers = [task.spec.stage_index(name) for name in names]
    if policy is None and not task.has_oracle:
        raise UserError(f"task: {task.spec.name!r} has no oracle; expected a trained agent to play it")
    return _rows(task, policy, numbers, count, seed, split, sampled)


def _rows(
    task: AnyTask, policy: Policy | None, stages: Sequence[int], count: int, seed: int, split: Split, sampled: bool
) -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed) if sampled else None
    episode, names = Episode(task), task.spec.vocabulary
    for start in range(0, count, CHUNK):
        chunk = range(start, min(start + CHUNK, count))
        drawn = [draw(task, stages[i % len(stages)], seed, i, split) for i in chunk]
        for index, tokens in zip(chunk, _played(task, policy, Batch.cat(drawn), generator), strict=True):
            stage = task.spec.stages[stages[index % len(stages)]]
            episode.begin(stage, seed=seed, index=index, split=split)
            episode.press([names[token] for token in tokens])
            try:
                messages = episode.messages()
            except UserError:  # a policy may press keys that no call presses
                continue
            problem = {"stage": stage, "seed": seed, "index": index, "split": split}
            yield {"messages": messages, "tools": episode.tools, **problem, "success": episode.success}


def _played(
    task: AnyTask, policy: Policy | None, problems: Any, generator: torch.Generator | None
) -> Iterator[list[int]]:
    """The tokens that the policy, or the oracle, writes for each of the problems."""
    if policy is None:
        for program in task.oracle(problems).tolist():
            yield [token for token in program if token != task.spec.end]
        return
    problems = problems.to(next(policy.parameters()).device)
    plan = None if generator is None else Plan.sampled(problems, task.spec.horizon, generator)
    rollout = play(policy, task, problems, plan)
    for tokens, length in zip(rollout.action.T.tolist(), rollout.length.tolist(), strict=True):
        yield tokens[:length]
