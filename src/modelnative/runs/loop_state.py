"""What the training loop itself must remember across a continuation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelnative.errors import UserError
from modelnative.runs.run import Run

VERIFY_EVERY = 8  # updates between two verifications, which cost as much as a dozen of them


@dataclass
class LoopState:
    """What the training loop itself must remember across a continuation.

    Attributes:
        elapsed: seconds of training.
        verified: the update of the last verification.
        sampled: the update of the last measurement of sampled success.
        confident: the last measured sampled success was at least `target_success`.
        best: successes of the best verified weights.
        solved: the newest verification found no failure, so that nothing is left to learn.
    """

    elapsed: float = 0.0
    verified: int = -VERIFY_EVERY
    sampled: int = -VERIFY_EVERY
    confident: bool = False
    best: int = -1
    solved: bool = False

    @classmethod
    def of(cls, progress: Any, run: Run) -> LoopState:
        """What a checkpoint says.

        Raises:
            UserError: it is damaged.
        """
        try:
            return TypeAdapter(cls).validate_python(progress)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "progress"
            raise UserError(f"{run.checkpoints()[-1]}: damaged ({where}: {first['msg']})") from error
