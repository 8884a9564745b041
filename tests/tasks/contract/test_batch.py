from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelnative.tasks.contract.batch import Batch


@dataclass
class Inner(Batch):
    x: Tensor
    y: Tensor


@dataclass
class Outer(Batch):
    inner: Inner
    z: Tensor


def make(values: list[int]) -> Outer:
    x = torch.tensor(values, dtype=torch.int64)
    return Outer(Inner(x, torch.stack([x, -x], 1)), x.double() / 2)


def as_lists(batch: Outer) -> tuple[list[object], ...]:
    return batch.inner.x.tolist(), batch.inner.y.tolist(), batch.z.tolist()


lists = st.lists(st.integers(-1000, 1000), min_size=1, max_size=8)


@given(lists, st.data())
def test_indexing_selects_the_same_rows_of_every_field(values: list[int], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=10))
    picked = make(values)[torch.tensor(rows, dtype=torch.int64)]
    assert as_lists(picked) == as_lists(make([values[i] for i in rows]))
    assert len(picked) == len(rows)


@given(lists, st.integers(-10, 10), st.integers(-10, 10))
def test_slices_and_masks(values: list[int], start: int, stop: int) -> None:
    assert as_lists(make(values)[start:stop]) == as_lists(make(values[start:stop]))
    mask = torch.tensor([v > 0 for v in values])
    assert as_lists(make(values)[mask]) == as_lists(make([v for v in values if v > 0]))


@given(st.lists(lists, min_size=1, max_size=4))
def test_cat_joins_in_order_and_undoes_splitting(parts: list[list[int]]) -> None:
    joined = Batch.cat([make(part) for part in parts])
    assert type(joined) is Outer
    assert type(joined.inner) is Inner
    assert as_lists(joined) == as_lists(make([v for part in parts for v in part]))


@given(lists)
def test_map_reaches_every_tensor_and_leaves_the_original(values: list[int]) -> None:
    batch = make(values)
    doubled = batch.map(lambda tensor: tensor * 2)
    assert as_lists(doubled)[0] == [2 * v for v in values]
    assert as_lists(doubled)[2] == [float(v) for v in values]
    assert as_lists(batch) == as_lists(make(values))


def test_fields_come_in_the_order_of_their_definition() -> None:
    batch = make([1, 2])
    assert batch.fields() == [batch.inner, batch.z]
    assert len(batch) == 2


def test_to_moves_every_tensor() -> None:
    moved = make([1, 2]).to("meta")
    assert {moved.inner.x.device.type, moved.inner.y.device.type, moved.z.device.type} == {"meta"}


def test_cat_refuses_batches_with_other_fields() -> None:
    with pytest.raises(ValueError, match="zip"):
        Batch.cat([make([1]).inner, Three(torch.ones(1), torch.ones(1, 2), torch.ones(1))])


@dataclass
class Three(Batch):
    a: Tensor
    b: Tensor
    c: Tensor
