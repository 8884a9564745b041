"""What `result.json` says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Evaluation
from modelnative.runs.files import read_json

COSTS = ("updates", "episodes", "steps", "seconds")


@dataclass(frozen=True)
class Result:
    """The verdict on the best weights, and what the training cost.

    Attributes:
        evaluation: every problem, train and held-out apart, greedily.
        sampled: the same, with actions drawn at temperature 1.
        updates, episodes, steps, seconds: of the training.
        machine: where it was trained.
        curriculum: what the curriculum found.
    """

    evaluation: Evaluation
    sampled: Evaluation
    updates: int
    episodes: int
    steps: int
    seconds: float
    machine: dict[str, Any] = field(default_factory=dict)
    curriculum: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, command: str) -> Result:
        """The result in a file.

        Args:
            path: the file.
            command: that writes it anew, for the message.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            return _JSON.validate_python(read_json(path))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise UserError(
                f"{path}: damaged ({where}: {first['msg']}); delete it, and write it anew with: {command}"
            ) from error
        except UserError as error:
            delete = "delete it, and " if path.exists() else ""
            raise UserError(f"{error}; {delete}write it anew with: {command}") from error

    @property
    def costs(self) -> dict[str, float]:
        """What the training cost, by the names in `COSTS`."""
        return {name: getattr(self, name) for name in COSTS}


_JSON = TypeAdapter(Result)
