"""What a verified training reports, beside the events of training/events.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modelnative.evidence.evaluate import Evaluation
from modelnative.evidence.notebook import paragraph
from modelnative.training.events import Event

if TYPE_CHECKING:
    from modelnative.runs.run import Run


@dataclass(frozen=True)
class Verified(Event):
    """Every problem of the training split was played greedily.

    Attributes:
        update: updates so far.
        evaluation: the result.
        elapsed: seconds of training so far.
        best: whether no earlier verification had more successes.
        solved: whether the training ends here.
    """

    method: ClassVar[str] = "on_verify"
    update: int
    evaluation: Evaluation
    elapsed: float
    best: bool = False
    solved: bool = False


@dataclass(frozen=True)
class Checkpointed(Event):
    """The training can continue from here.

    Attributes:
        update: updates so far.
        progress: what the training loop itself needs to continue, JSON-ready.
    """

    method: ClassVar[str] = "on_checkpoint"
    update: int
    progress: dict[str, Any]


@dataclass(frozen=True)
class Finished(Event):
    """The training has ended; `trainer.policy` has the best verified weights.

    Attributes:
        run: the run folder.
        evaluation: of the best weights, every problem, train and held-out apart, greedily.
        sampled: the same, with actions drawn at temperature 1.
        updates, episodes, steps, seconds: what the training cost; seconds without the final evaluation.
    """

    method: ClassVar[str] = "on_finish"
    run: Run
    evaluation: Evaluation
    sampled: Evaluation
    updates: int
    episodes: int
    steps: int
    seconds: float

    def _repr_html_(self) -> str:
        cost = f"{self.run.path}: {self.updates:,} updates, {self.episodes:,} episodes, {self.seconds:.1f} s"
        return paragraph(cost) + self.evaluation._repr_html_()


@dataclass(frozen=True)
class Interrupted(Event):
    """A signal ended the training; everything up to `update` is in the checkpoint.

    Attributes:
        run: the run folder.
        update: updates so far.
        signal: its number.
    """

    method: ClassVar[str] = "on_interrupt"
    run: Run
    update: int
    signal: int
