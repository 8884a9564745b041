"""The estimate of the memory of an update, against the tensors that live during one; see also benchmarks/memory.py."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.policies import memory
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training import update_memory as module
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.trainer import LEARNED_AT_ONCE, PLAYED_AT_ONCE, Trainer
from modelnative.training.update_memory import FACTOR, living_bytes, update_memory

LIMITS = (PLAYED_AT_ONCE, LEARNED_AT_ONCE)


class Whole(Arithmetic):
    """Only the horizon ends an episode, so that episodes are as long as the estimate takes them to be."""

    def step(self, state: Any, action: Tensor) -> Any:
        step = super().step(state, action)
        on = torch.zeros_like(step.done)
        return dataclasses.replace(step, done=on, state=dataclasses.replace(step.state, done=on))


def trainer(core: str, **changes: Any) -> Trainer:
    fields = {"episodes": 256, "threads": 1, "policy": {"width": 64}, "loss": {"minibatches": 1}, **changes}
    config = with_fields(recipe(core=core, curriculum="uniform"), fields)
    return Trainer(Whole(**config.options), config)


SIZES: list[dict[str, Any]] = [
    {},
    {"options": {"horizon": 60}, "episodes": 64},
    {"policy": {"width": 96, "layers": 3}},
]
FAST = {("gru", 0), ("mingru", 1), ("transformer", 0), ("memoryless", 2), ("own:LSTM", 1)}
CASES = [
    pytest.param(core, size, marks=[] if (core, i) in FAST else pytest.mark.slow)
    for core in ("gru", "mingru", "transformer", "memoryless", "own:LSTM")
    for i, size in enumerate(SIZES)
]


@pytest.mark.parametrize(("core", "changes"), CASES)
def test_the_estimate_is_near_what_an_update_needs(core: str, changes: dict[str, Any]) -> None:
    trained = trainer(core, **changes)
    trained.update()
    needed, _ = living_bytes(trained.update)
    assert 1 / FACTOR < needed / update_memory(trained, *LIMITS).total < FACTOR


@pytest.mark.parametrize("core", ["gru", "mingru", "transformer"])
def test_activations_that_do_not_fit_are_refused(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"episodes": 16384, "policy": {"width": 256, "layers": 2}}
    pages = int(update_memory(trainer(core, **fields), *LIMITS).total / FACTOR / 4096)
    assert pages * 4096 > 4 * module.rollout_bytes(Whole(), 16384), "it is the activations that do not fit"
    monkeypatch.setattr(memory.os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else pages - 100)
    with pytest.raises(
        UserError, match=r"^memory: at least .* GB are needed, .*; choose smaller episodes, .*"
    ) as caught:
        trainer(core, **fields)
    assert "\n" not in str(caught.value)


def test_nothing_is_tried_where_it_fits_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "update_memory", lambda *_: pytest.fail("tried"))
    Trainer(Arithmetic(), TrainConfig())
    with pytest.raises(pytest.fail.Exception):
        trainer("transformer", episodes=65536)


def test_trying_leaves_the_random_numbers_as_they_were() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    update_memory(trainer("gru"), *LIMITS)
    assert torch.equal(torch.get_rng_state(), before)
