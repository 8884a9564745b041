"""A training as tensors and counters, and back: all that a continuation needs, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelnative.training.adam import MOMENTS

if TYPE_CHECKING:
    from modelnative.training.trainer import Trainer

COUNTERS = ("updates", "episodes", "steps")


def state_of(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name (policy, curriculum, optimizer, practice problems); and the counters, and what computed."""
    tensors = {f"policy.{name}": value for name, value in trainer.policy.state_dict().items()}
    tensors |= {f"curriculum.{name}": value for name, value in trainer.curriculum.state_dict().items()}
    for key, moments in trainer.optimizer.moments.items():
        names = _trained_names(trainer)
        tensors |= {f"optimizer.{name}.{key}": value for name, value in zip(names, moments, strict=True)}
    if trainer.practice is not None:
        tensors |= {f"practice.{i}": value for i, value in enumerate(trainer.practice.tensors())}
    return tensors, {**{name: getattr(trainer, name) for name in COUNTERS}, "computed_by": trainer.computed_by}


def restore(trainer: Trainer, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
    """Put what `state_of` gave into a new trainer of the same task and configuration.

    Raises:
        KeyError, RuntimeError, TypeError, ValueError: a tensor or a counter is missing, left over, or of another shape.
    """

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}

    names = _trained_names(trainer)
    practice, moments = part("practice."), part("optimizer.")
    known = {*state_of(trainer)[0], *(f"optimizer.{name}.{key}" for name in names for key in MOMENTS)}
    unknown = set(tensors) - known - {f"practice.{i}" for i in practice}
    if unknown:
        raise KeyError(f"left over: {', '.join(sorted(unknown)[:3])}")
    trainer.policy.load_state_dict(part("policy."))
    trainer.curriculum.load_state_dict(part("curriculum."))
    trainer.optimizer.load({key: [moments[f"{name}.{key}"] for name in names] for key in MOMENTS} if moments else {})
    trainer.practice = None
    if practice:
        like = trainer.task.sample(torch.zeros(1, dtype=torch.int64), torch.Generator())
        if len(practice) != len(like.tensors()):
            raise ValueError(f"practice: {len(practice)} tensors; expected {len(like.tensors())}")
        kept = (practice[str(i)].to(trainer.config.device) for i in range(len(practice)))
        trainer.practice = like.map(lambda _: next(kept))
    for name in COUNTERS:
        setattr(trainer, name, int(counters[name]))
    earlier = counters.get("computed_by", trainer.computed_by)  # older checkpoints do not say
    trainer.computed_by = list(dict.fromkeys([*earlier, *trainer.computed_by]))


def _trained_names(trainer: Trainer) -> list[str]:
    """The names of the parameters that the optimizer has, in its order."""
    return [name for name, parameter in trainer.policy.named_parameters() if parameter.requires_grad]
