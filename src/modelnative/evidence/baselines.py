"""Handicapped networks, trained for a short while: what a stage yields to an agent without memory, or without eyes."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from modelnative.evidence.blindfold import Blindfolded, streams
from modelnative.policies.policy import Policy
from modelnative.tasks.contract.task import AnyTask, Problems, program_length
from modelnative.training.config import CurriculumConfig, TrainConfig, with_fields
from modelnative.training.curricula import Curriculum, Draw
from modelnative.training.recipes import recipe
from modelnative.training.rollout import Plan, play
from modelnative.training.trainer import Trainer, oracle_lengths

Handicap = Literal["memoryless", "blind"]
PLAYED = 10_000  # problems that a trained policy is judged on
CHUNK = 1 << 11
SOLVED = 0.99  # smoothed success, at temperature 1, at which there is little more to learn
TOKENS = 1 << 13  # at most, of a batch to imitate
IMITATION_RATE = 3e-3
FIELDS: dict[str, Any] = {"updates": 1_000_000, "episodes": 512, "evaluate_every": 1_000_000}


class Depths(Curriculum):
    """One stage; half of the episodes whole, half after a head start by the oracle of any length.

    Unlike `Hints` it waits for no success: a handicapped policy may never have one.
    """

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig, stage: int) -> None:
        super().__init__(lengths, horizon, config)
        self.stage, self.guided = stage, bool(lengths[stage] > 0)

    def weights(self, progress: float) -> Tensor:
        return (torch.arange(len(self.lengths), device=self.success.device) == self.stage).float()

    def draw(self, n: int, generator: torch.Generator, progress: float) -> Draw:
        draw = super().draw(n, generator, progress)
        depth, choice = torch.rand(2, n, generator=generator, device=draw.stage.device)
        hinted = (choice < 0.5) & self.guided
        free = torch.where(hinted, 1 + (depth * self.lengths[draw.stage]).long(), draw.free)
        return dataclasses.replace(draw, free=free, explore=torch.where(hinted, 0.0, draw.explore))

    @property
    def failure(self) -> float:
        return 1.0 - float(self.success[self.stage])


@dataclass(frozen=True)
class Trained:
    """What a baseline came to: successes among the problems that it played, greedily or at temperature 1.

    `eyes` says, of the blind, what was done to them.
    """

    successes: int
    problems: int
    greedy: bool
    updates: int
    eyes: str = ""


def train_baseline(
    task: AnyTask, stage: int, handicap: Handicap, problems: Problems, seconds: float, seed: int = 0
) -> Trained:
    """Train a handicapped policy on one stage, and play some problems with it.

    - `memoryless`: the core of that name, whose thoughts are of the context, the last token and its feedback alone.
    - `blind`: a gru that reads the same blank context whatever the problem, and has no copy head. It sees the feedback
      where that is the answer of tools, and another problem's where it shows the problem (see `Blindfolded`). One
      context for all tells as little of a problem as contexts shuffled among problems do, and is easier to ignore.

    Half of the time it imitates the oracle, which is the fastest way to most of what it can do; then it learns by
    reinforcement what the oracle does not show: how to do without.

    Args:
        problems: of the stage; at most `PLAYED` of them are played, evenly spaced.
        seconds: of training; it may end earlier, with all solved. How far it gets depends on the machine.

    Returns:
        The best of greedy and sampled play, after imitation and after all: without memory, chance can help.
    """
    core = "memoryless" if handicap == "memoryless" else "gru"
    step = max(1, len(problems) // PLAYED)
    chosen, eyes = problems[torch.arange(0, len(problems), step)[:PLAYED]], ""
    if handicap == "blind":
        task = blind = Blindfolded(task, streams(task, chosen))
        chosen = blind.veiled(chosen, torch.Generator().manual_seed(seed))
        eyes = "another problem's feedback" if blind.streams else "its own feedback"
    changes = {**FIELDS, "seed": seed, "policy": {"copy_head": handicap != "blind"}}
    config: TrainConfig = with_fields(recipe(task.spec.name, core, "ppo", "uniform"), changes)
    trainer = Trainer(task, config)
    trainer.curriculum = Depths(oracle_lengths(task), task.spec.horizon, config.curricula, stage)
    start = time.monotonic()
    found = []
    updates = _imitate(trainer, stage, start + seconds / 2)
    for end in (0.0, start + seconds):
        while time.monotonic() < end and float(trainer.curriculum.success[stage]) < SOLVED:
            trainer.update()
        for greedy in (True, False):
            generator = None if greedy else torch.Generator().manual_seed(seed)
            wins = _successes(trainer.policy, task, chosen, generator)
            found.append(Trained(wins, len(chosen), greedy, updates + trainer.updates, eyes))
        if found[0].successes == len(chosen):
            break
    return max(found, key=lambda trained: (trained.successes, trained.greedy))


def _imitate(trainer: Trainer, stage: int, end: float) -> int:
    """Raise the probability of the oracle's programs until `end`, if it succeeds at the stage; counts the updates."""
    task, policy = trainer.task, trainer.policy
    if not bool(oracle_lengths(task)[stage]):
        return 0
    optimizer = torch.optim.Adam(policy.parameters(), lr=IMITATION_RATE)
    generator, updates = torch.Generator().manual_seed(trainer.config.seed), 0
    batch = max(16, min(trainer.config.episodes, TOKENS // task.spec.horizon))
    while time.monotonic() < end:
        problems = task.sample(torch.full((batch,), stage), generator)
        program = task.oracle(problems)
        length = program_length(program, task.spec.end)
        state, token, seen = task.begin(problems), torch.full_like(length, task.spec.start), []
        for action in program[:, : int(length.max())].unbind(1):
            seen.append((token, task.feedback(state)))
            state, token = task.step(state, action.contiguous()).state, action
        tokens, feedback = (torch.stack(column) for column in zip(*seen, strict=True))
        thought, _ = policy.unroll(tokens, feedback, policy.begin(problems.context, problems.stage))
        chosen = thought.log_probs.gather(-1, program.t()[: len(seen), :, None]).squeeze(-1)
        wanted = torch.arange(len(seen))[:, None] < length
        optimizer.zero_grad()
        torch.autograd.backward(-chosen[wanted].mean())
        optimizer.step()
        updates += 1
    optimizer.zero_grad()
    return updates


def _successes(policy: Policy, task: AnyTask, problems: Problems, generator: torch.Generator | None) -> int:
    total = 0
    for start in range(0, len(problems), CHUNK):
        chunk = problems[start : start + CHUNK]
        plan = None if generator is None else Plan.free(chunk, task.spec.horizon, generator)
        total += int(play(policy, task, chunk, plan).success.sum())
    return total
