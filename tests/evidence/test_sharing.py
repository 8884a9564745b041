"""A memory that two stages share, and one that each has for itself, are told apart by removing units."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import modelnative as mn
from modelnative.errors import UserError
from modelnative.evidence.sharing import StageUnits, sharing
from modelnative.policies.contract import PolicyOutput
from modelnative.tasks import make_task

TASK = make_task("recall", longest=3)
BITS, SPARE = 3, 10


class Planted(nn.Module):
    """Writes the cue of `recall` as signs into hidden units, those of its stage, and types it after GO."""

    def __init__(self, places: dict[int, int]) -> None:
        super().__init__()
        self.places = places  # the first unit that a stage writes

    def initial_state(self, problems: mn.Problems) -> Tensor:
        stage = torch.zeros(len(problems), 1 + SPARE)
        stage[:, 0] = problems.stage.float()
        return stage

    def forward(self, tokens: Tensor, feedback: Tensor, state: Tensor, lengths: Tensor | None = None) -> PolicyOutput:
        logits = []
        for token, shown in zip(tokens, feedback[..., 0], strict=True):
            state = state.clone()
            first = torch.tensor([self.places[int(s)] for s in state[:, 0]])
            index = 1 + first[:, None] + torch.arange(BITS)
            bits = 2.0 * (shown[:, None] >> torch.arange(BITS) & 1) - 1
            begins = token == TASK.spec.start
            state = torch.where(begins[:, None], state.scatter(1, index, bits), state)
            cue = ((state.gather(1, index) > 0) << torch.arange(BITS)).sum(1)
            key = torch.where(shown == TASK.go, cue, torch.tensor(TASK.wait))
            logits.append(10 * nn.functional.one_hot(key, len(TASK.spec.vocabulary)).float())
        stacked = torch.stack(logits)
        return PolicyOutput(stacked, stacked[..., 0], state)

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return {"hidden state": ("",)}


def found(places: dict[int, int]) -> dict[str, StageUnits]:
    return {units.stage: units for units in sharing(Planted(places), TASK, ["L1", "L3"], 64)}


def test_one_memory_for_both_stages_is_shared() -> None:
    units = found({0: 2, 1: 2})
    assert all(part.success.rate == 1.0 for part in units.values())
    assert set(units["L1"].units) <= {1 + 2, 1 + 3, 1 + 4}
    assert units["L1"].shares_with("L3")
    assert units["L3"].shares_with("L1")


def test_a_memory_for_each_stage_is_not() -> None:
    units = found({0: 2, 1: 6})
    assert units["L1"].without["L3"].rate == 1.0
    assert units["L1"].shares_with("L1")
    assert not units["L1"].shares_with("L3")
    assert not units["L3"].shares_with("L1")


def test_what_cannot_be_compared_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="at least two stages"):
        sharing(Planted({0: 2, 1: 2}), TASK, ["L1"], 64)
    task = make_task("arithmetic")
    policy = mn.Trainer(task, mn.recipe(core="transformer")).policy
    with pytest.raises(UserError, match=r"numbers; expected 1 to 1,024"):
        mn.inspect(policy, task, stages=["T0", "T1"], pairs=20, probes=False, units=True)
