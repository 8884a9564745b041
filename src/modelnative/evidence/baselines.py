"""Trained baselines: what a stage yields to a network without memory, and to one that cannot see the problem."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from modelnative.evidence.blindfold import BlindTask, feedback_reveals_problem
from modelnative.policies.contract import Policy
from modelnative.tasks.contract.task import AnyTask, Problems, program_length
from modelnative.training.adam import Adam
from modelnative.training.config import CurriculumConfig, TrainConfig, with_fields
from modelnative.training.curriculum import Curriculum, Draw, program_lengths
from modelnative.training.recipes import recipe
from modelnative.training.rollout import Plan, play
from modelnative.training.trainer import Trainer

Handicap = Literal["memoryless", "blind"]
MAX_PLAYED = 10_000  # problems that a trained policy is tested on
CHUNK = 1 << 11  # episodes played at once
SOLVED = 0.99  # smoothed success, with sampled actions, at which training stops
IMITATION_TOKENS = 1 << 13  # at most, in a batch to imitate
IMITATION_RATE = 3e-3
FIELDS: dict[str, Any] = {"updates": 1_000_000, "episodes": 512, "evaluate_every": 1_000_000}


class RandomHints(Curriculum):
    """Draws one stage; half of the episodes start with a hint of random length.

    Unlike the curriculum `hints`, it does not wait for success, which a handicapped policy may never have.

    Args:
        lengths: int64 [S], the longest oracle program of each stage; a stage with length 0 has no hints.
        horizon: largest number of tokens in an episode.
        config: fields of every curriculum.
        stage: index of the stage to draw.
    """

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig, stage: int) -> None:
        super().__init__(lengths, horizon, config)
        self.stage, self.has_hints = stage, bool(lengths[stage] > 0)

    def weights(self, progress: float) -> Tensor:
        return (torch.arange(len(self.lengths), device=self.success.device) == self.stage).float()

    def draw(self, n: int, generator: torch.Generator, progress: float) -> Draw:
        draw = super().draw(n, generator, progress)
        depth, choice = torch.rand(2, n, generator=generator, device=draw.stage.device)
        hinted = (choice < 0.5) & self.has_hints
        own_tokens = torch.where(hinted, 1 + (depth * self.lengths[draw.stage]).long(), draw.own_tokens)
        return dataclasses.replace(draw, own_tokens=own_tokens, explore=torch.where(hinted, 0.0, draw.explore))

    @property
    def failure(self) -> float:
        return 1.0 - float(self.success[self.stage])


@dataclass(frozen=True)
class TrainedBaseline:
    """The result of a trained baseline.

    Attributes:
        successes, problems: successes among the problems that it played.
        greedy: whether it acted greedily; otherwise its actions were sampled at temperature 1.
        updates: number of gradient updates, imitation included.
        tool_output: for a blind baseline, `real` or `shuffled` (the feedback of another problem); otherwise empty.
    """

    successes: int
    problems: int
    greedy: bool
    updates: int
    tool_output: str = ""


def train_baseline(
    task: AnyTask, stage: int, handicap: Handicap, problems: Problems, seconds: float, seed: int = 0
) -> TrainedBaseline:
    """Train a handicapped policy on one stage and test it.

    - `memoryless`: the core of that name, whose output depends on the context, the last token and its feedback alone.
    - `blind`: a GRU without a copy head that reads the same blank context for every problem. It sees the real feedback
      where this is the output of tools, and another problem's where it would reveal the problem (see `BlindTask`). A
      blank context carries as little information as contexts shuffled among problems, and is easier to ignore.

    During the first half of the time the policy imitates the oracle, if there is one. Then it learns by reinforcement
    what the oracle does not show: how to act under the handicap.

    Args:
        task: any task.
        stage: index of the stage.
        handicap: see above.
        problems: of the stage; at most `MAX_PLAYED` of them are played, evenly spaced.
        seconds: training time, in which at least one update of each kind is made; training stops earlier if everything
            is solved. The result depends on the machine.
        seed: of the training.

    Returns:
        The best of greedy and sampled play, tested after imitation and at the end: without memory, sampling can help.
    """
    step = max(1, len(problems) // MAX_PLAYED)
    tested, tool_output = problems[torch.arange(0, len(problems), step)[:MAX_PLAYED]], ""
    if handicap == "blind":
        blind = BlindTask(task, feedback_reveals_problem(task, tested))
        tested = blind.hide(tested, torch.Generator().manual_seed(seed))
        tool_output = "shuffled" if blind.shuffle_feedback else "real"
        task = blind
    core = "memoryless" if handicap == "memoryless" else "gru"
    changes = {**FIELDS, "seed": seed, "policy": {"copy_head": handicap != "blind"}}
    config: TrainConfig = with_fields(recipe(task.spec.name, core=core, curriculum="uniform"), changes)
    hints = RandomHints(program_lengths(task), task.spec.horizon, config.curricula, stage)
    trainer = Trainer(task, config, curriculum=hints)
    start = time.monotonic()
    imitations = _imitate(trainer, stage, start + seconds / 2)

    def test() -> list[TrainedBaseline]:
        found = []
        for greedy in (True, False):
            generator = None if greedy else torch.Generator().manual_seed(seed)
            solved = _successes(trainer.policy, task, tested, generator)
            found.append(TrainedBaseline(solved, len(tested), greedy, imitations + trainer.updates, tool_output))
        return found

    found = test()
    if found[0].successes < len(tested):
        trainer.update()  # at least once, however slow the machine
        while time.monotonic() < start + seconds and float(trainer.curriculum.success[stage]) < SOLVED:
            trainer.update()
        found += test()
    return max(found, key=lambda trained: (trained.successes, trained.greedy))


def _imitate(trainer: Trainer, stage: int, end: float) -> int:
    """Maximize the likelihood of the oracle's programs until `end`; returns the number of updates.

    Returns 0 without doing anything if no oracle succeeds on the stage.
    """
    task, policy = trainer.task, trainer.policy
    if not bool(program_lengths(task)[stage]):
        return 0
    optimizer: Adam | None = None
    generator, updates = torch.Generator().manual_seed(trainer.config.seed), 0
    batch = max(16, min(trainer.config.episodes, IMITATION_TOKENS // task.spec.horizon))
    while not updates or time.monotonic() < end:
        problems = task.sample(torch.full((batch,), stage), generator)
        program = task.oracle(problems)
        length = program_length(program, task.spec.end)
        state, token, seen = task.begin(problems), torch.full_like(length, task.spec.start), []
        for action in program[:, : int(length.max())].unbind(1):
            seen.append((token, task.feedback(state)))
            state, token = task.step(state, action.contiguous()).state, action
        tokens, feedback = (torch.stack(column) for column in zip(*seen, strict=True))
        output = policy(tokens, feedback, policy.initial_state(problems))
        log_prob = output.log_probs.gather(-1, program.t()[: len(seen), :, None]).squeeze(-1)
        mask = torch.arange(len(seen))[:, None] < length
        loss, weights = -log_prob[mask].mean(), list(policy.parameters())
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(loss, weights, allow_unused=True)
        if optimizer is None:  # the value head has no gradient
            learned = [weight for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None]
            optimizer = Adam(learned, IMITATION_RATE)
        optimizer.step([gradient for gradient in gradients if gradient is not None], math.inf)
        updates += 1
    return updates


def _successes(policy: Policy, task: AnyTask, problems: Problems, generator: torch.Generator | None) -> int:
    total = 0
    for start in range(0, len(problems), CHUNK):
        chunk = problems[start : start + CHUNK]
        plan = None if generator is None else Plan.sampled(chunk, task.spec.horizon, generator)
        total += int(play(policy, task, chunk, plan).success.sum())
    return total
