"""Is what comes next known in advance, and is that knowledge used? Probes, then interventions on what they found."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from modelnative.evidence.evaluate import floor
from modelnative.evidence.interventions import Playback
from modelnative.evidence.probes import Cell, different_problems, has_one_skeleton, probe, record_hidden
from modelnative.evidence.record import Record
from modelnative.evidence.steering import Use, measure_use, median_rate
from modelnative.tasks.contract.task import AnyTask, Problems

Knowledge = Literal["used", "decodable, not used", "decodable", "not found", "nothing to decode"]
MARGIN = 0.05  # over the best control, from which something is decodable; and of success, from which it is used


@dataclass(frozen=True)
class Decoding(Record):
    """What later actions can be decoded from the hidden state.

    Attributes:
        one_skeleton: each action of the oracle is always the same, or copied from the same place: the stage does not
            test planning. None without an oracle.
        cells: all probes.
        best: the one with the largest margin, by the lower end of its interval; None without probes.
        use: what removing and moving its label does; None where nothing was decodable, or the state cannot be edited.
    """

    one_skeleton: bool | None
    cells: tuple[Cell, ...]
    best: Cell | None
    use: Use | None

    @property
    def verdict(self) -> Knowledge:
        """`used`: without it, success is 0.05 less than without random subspaces of equal rank."""
        if self.best is None:
            return "nothing to decode"
        if not decodable(self.best):
            return "not found"
        if self.use is None:
            return "decodable"
        return "used" if self.use.cost >= MARGIN else "decodable, not used"

    @property
    def planning(self) -> str:
        """The verdict about planning for each problem."""
        return "not tested by this task" if self.one_skeleton else self.verdict

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"planning": self.planning, "verdict": self.verdict, **super().as_dict()}

    def in_words(self) -> list[str]:
        """Sentences."""
        words = []
        if self.one_skeleton:
            words.append(
                "Planning is not tested: each action of the oracle is always the same, or copied from the same place."
            )
        best = self.best
        if best is None:
            return words
        margin = f"{best.margin:+.3f} [{best.low:+.3f}, {best.high:+.3f}]"
        if not decodable(best):
            beyond = f"The margin over the best control is at most {margin}."
            return [*words, f"No later action can be decoded from the hidden state beyond the controls. {beyond}"]
        words.append(
            f"After action {best.key}, action {best.target} can be decoded from the hidden state: {floor(best.hidden)} "
            f"of the problems, {margin} over the best control."
        )
        if self.use is not None:
            removed, random = floor(self.use.removed.rate), floor(median_rate(self.use.random))
            verdict = "it is used" if self.verdict == "used" else "it is decodable, not used"
            words.append(
                f"Without that subspace success is {removed}, without random ones of the same rank {random}: "
                f"{verdict}. Moved to another label, the action follows in {floor(self.use.steered.rate)}; in a random "
                f"direction, in {floor(self.use.steered_random.rate)}."
            )
        return words


def decodable(cell: Cell) -> bool:
    """Whether a margin is large enough, and larger than 0 by its interval."""
    return cell.margin > MARGIN and cell.low > 0


def decode(
    policy: nn.Module,
    task: AnyTask,
    stage: int,
    number: int,
    problems: Problems,
    played: Playback,
    untrained: nn.Module | None,
) -> Decoding:
    """Probe one stage.

    Args:
        policy: the policy.
        task: the task.
        stage: its index.
        number: of problems to draw for the probes.
        problems: others, for the interventions.
        played: their undisturbed episodes.
        untrained: the same network with random weights; by default, the policy's own weights in random places.
    """
    drawn = different_problems(task, stage, number).to(problems.stage.device)
    recorded = record_hidden(policy, task, drawn)
    cells = probe(task, recorded, untrained if untrained is not None else scrambled(policy))
    best = max(cells, key=lambda cell: cell.low, default=None)
    use = None
    if best is not None and decodable(best) and recorded.editable:
        use = measure_use(policy, task, best, recorded, problems, played)
    return Decoding(has_one_skeleton(task, drawn), tuple(cells), best, use)


def scrambled(policy: nn.Module) -> nn.Module | None:
    """A copy whose weights are in random places, each within its tensor; None if there are no weights."""
    other = copy.deepcopy(policy)
    generator, any_weights = torch.Generator().manual_seed(7), False
    for parameter in other.parameters():
        if parameter.numel() > 1:
            any_weights = True
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
    return other if any_weights else None
