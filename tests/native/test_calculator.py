"""The operators of the pocket calculator: kernel and plain definition agree, and torch finds them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelnative.native import build, calculator, operators
from modelnative.tasks.calculator import CalculatorState, PocketCalculator

SEEDS = st.integers(0, 10**6)
MACHINES = st.sampled_from([(1, 1), (1, 3), (2, 1), (3, 2), (4, 3)])


def keys_of(machine: PocketCalculator, rows: int, generator: torch.Generator) -> Tensor:
    """Random keys; 9, MUL and STO1 are frequent, so that values outgrow the display, and the end is rare."""
    chances = torch.ones(len(machine.vocabulary))
    chances[9], chances[11], chances[15], chances[14], chances[-1] = 6.0, 9.0, 2.0, 0.2, 0.1
    return torch.multinomial(chances, rows + 1, replacement=True, generator=generator)[:rows]


@pytest.mark.skipif(build.library() is None, reason=f"kernels: {build.describe()}")
@given(MACHINES, st.integers(0, 130), st.integers(0, 25), SEEDS)
@settings(deadline=None, max_examples=40)
def test_the_kernels_agree_with_the_plain_definitions(
    size: tuple[int, int], rows: int, presses: int, seed: int
) -> None:
    machine, generator = PocketCalculator(*size), torch.Generator().manual_seed(seed)
    target = torch.randint(-9, 100, (rows,), generator=generator)
    state, tables = machine.empty(target), machine.tables(target.device)
    for _ in range(presses):
        columns = (*state.fields(), target, keys_of(machine, rows, generator))
        after = calculator.calculator_step(tables.rules, *columns)
        expected = calculator.calculator_step.__wrapped__(tables.rules, *columns)
        for ours, theirs in zip(after, expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        state = CalculatorState(*after[:5])
        shown = calculator.calculator_display(tables.upper, tables.lower, state.value)
        assert torch.equal(shown, calculator.calculator_display.__wrapped__(tables.upper, tables.lower, state.value))


@pytest.mark.skipif(build.library() is None, reason=f"kernels: {build.describe()}")
def test_the_kernels_accept_columns_that_are_not_contiguous() -> None:
    machine = PocketCalculator(2)
    target, generator = torch.randint(9, (64,)), torch.Generator().manual_seed(0)
    whole = machine.empty(target)
    for _ in range(6):
        whole = machine.press(whole, keys_of(machine, 64, generator), target)[0]
    key = keys_of(machine, 64, generator)
    every_second = whole.map(lambda tensor: tensor[::2])
    expected, *verdicts = machine.press(whole, key, target)
    after, *others = machine.press(every_second, key[::2], target[::2])
    for ours, theirs in zip((*after.fields(), *others), (*expected.fields(), *verdicts), strict=True):
        assert torch.equal(ours, theirs[::2])


def test_without_a_compiler_the_plain_definitions_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "enabled", lambda: False)
    machine, target = PocketCalculator(1), torch.tensor([63])
    state = machine.empty(target)
    for key in ("9", "MUL", "7", "ANS"):
        state, done, success, _ = machine.press(state, torch.tensor([machine.vocabulary.index(key)]), target)
    assert (state.value.tolist(), done.tolist(), success.tolist()) == ([63], [True], [True])
    assert machine.display(state.value)[0].tolist() == [machine.end] * 7 + [6, 3]


@pytest.mark.skipif(build.library() is None, reason=f"kernels: {build.describe()}")
def test_the_operators_are_registered_with_torch() -> None:
    machine, target = PocketCalculator(2), torch.zeros(5, dtype=torch.int64)
    tables = machine.tables(target.device)
    columns = (tables.rules, *machine.empty(target).fields(), target, target)
    after = torch.ops.modelnative.calculator_step(*columns)
    assert [tuple(tensor.shape) for tensor in after] == [(5,), (5,), (5,), (5, 2), (5,), (5,), (5,), (5,)]
    assert torch.ops.modelnative.calculator_display(tables.upper, tables.lower, target).shape == (5, 9)
