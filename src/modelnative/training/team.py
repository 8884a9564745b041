"""Independent trainings as one computation: the same task and recipe, other seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modelnative import native
from modelnative.policies.stack import Stack
from modelnative.tasks.contract.batch import Batch
from modelnative.training.loss import surrogate
from modelnative.training.rollout import Rollout, play
from modelnative.training.trainer import Lesson, Metrics, Trainer


def update_together(trainers: Sequence[Trainer]) -> list[Metrics]:
    """One update of every trainer, each as `Trainer.update` would do it but for rounding.

    Each draws its own problems, hints and actions from its own seed, has its own curriculum, advantages, optimiser and
    clipping. Only playing and the gradients are computed together.

    Args:
        trainers: of one task and one configuration, seeds apart.
    """
    with native.crew(trainers[0].pool.threads):
        return _together(trainers)


def _together(trainers: Sequence[Trainer]) -> list[Metrics]:
    start = time.perf_counter()
    drawn = [trainer.draw() for trainer in trainers]
    stack = Stack([trainer.policy for trainer in trainers])
    problems, plan = Batch.cat([own for _, own, _ in drawn]), Batch.cat([own for _, _, own in drawn])
    whole = play(stack, trainers[0].task, problems, plan, final=False)
    n = trainers[0].config.episodes
    lessons = [
        trainer.study(draw[0], block(whole, slice(i * n, (i + 1) * n)), start)
        for i, (trainer, draw) in enumerate(zip(trainers, drawn, strict=True))
    ]
    for rows in zip(*(trainer.minibatches() for trainer in trainers), strict=True):
        stack = Stack([trainer.policy for trainer in trainers])
        gradients, terms = gradient(stack, trainers, lessons, torch.stack(rows))
        for trainer, lesson, own, term in zip(trainers, lessons, gradients, terms, strict=True):
            trainer.step(lesson, own, term)
    return [trainer.close(lesson) for trainer, lesson in zip(trainers, lessons, strict=True)]


def block(whole: Rollout, rows: slice) -> Rollout:
    """Some episodes of a rollout."""
    columns = {
        name: value[:, rows].contiguous() if name != "success" else value[rows]
        for name, value in vars(whole).items()
        if name not in ("problems", "final")
    }
    return Rollout(problems=whole.problems[rows], final=None, **columns)


def gradient(
    stack: Stack, trainers: Sequence[Trainer], lessons: Sequence[Lesson], rows: Tensor
) -> tuple[list[list[Tensor]], list[Tensor]]:
    """The gradients of every trainer's minibatch, and the terms of its loss; rows: int64 [S, m], its episodes."""
    lengths = torch.stack([lesson.length.index_select(0, own) for lesson, own in zip(lessons, rows, strict=True)])
    lengths, order = lengths.sort(dim=1, descending=True, stable=True)
    rows = rows.gather(1, order)
    horizon = int(lengths.max())
    # A step has as many rows as the network with the most episodes still running; what is over is not free.
    sizes = (lengths[:, None] > torch.arange(horizon)[:, None]).sum(2).amax(0).tolist()
    steps = torch.arange(horizon).repeat_interleave(torch.tensor(sizes))
    places = torch.cat([torch.arange(size) for size in sizes])
    episodes = len(lessons[0].length)
    token = steps * episodes + rows[:, places]  # [S, N], in each flattened rollout

    def read(name: str, where: Tensor, lesson: bool = False) -> Tensor:
        columns = [getattr(own if lesson else own.rollout, name).flatten(0, 1) for own in lessons]
        return torch.stack([column.index_select(0, own) for column, own in zip(columns, where, strict=True)])

    heard = read("heard", token, lesson=True)
    most = int(heard.sum(1).max())
    heed = heard.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    asked = token.gather(1, heed)
    problems = [lesson.rollout.problems for lesson in lessons]
    state = stack.begin(
        torch.cat([p.context[own] for p, own in zip(problems, rows, strict=True)]),
        torch.cat([p.stage[own] for p, own in zip(problems, rows, strict=True)]),
    )
    shown = read("feedback", token).flatten(0, 1)
    arguments = (read("token", token).flatten(), shown, state, [len(trainers) * s for s in sizes], heed)
    thoughts = stack.weigh(*arguments)[0] if stack.weighs else stack.think(*arguments)[0].split(len(trainers))
    columns = {name: read(name, asked) for name in ("action", "behavior_log_prob", "free", "explored")}
    columns |= {name: read(name, asked, lesson=True) for name in ("advantage", "target", "heard")}
    terms = []
    for i, (trainer, lesson) in enumerate(zip(trainers, lessons, strict=True)):
        rest: dict[str, Any] = {name: column[i] for name, column in columns.items()}
        rest |= {"config": trainer.config.loss, "entropy_weight": lesson.entropy_weight}
        heard = rest.pop("heard")
        rest |= {"count": heard.sum().clamp_min(1), "forced": heard & ~rest["free"]}
        terms.append(surrogate(thoughts[i], **rest))
    loss = torch.stack([term.loss for term in terms]).sum()
    return stack.gradients(loss), [term.vector() for term in terms]
