"""Each call is made once; values of different types are distinguished."""

from __future__ import annotations

import threading
from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import modelnative as mn
from modelnative.tasks.tools.call_table import ERROR, NONE, CallTable, ValueTable
from modelnative.tasks.tools.tool import Kind, Tool


def counted() -> tuple[Tool[..., int], Counter[tuple[int, int]]]:
    calls: Counter[tuple[int, int]] = Counter()

    def minus(a: int, b: int) -> int:
        calls[a, b] += 1
        if a == b:
            raise ValueError
        return a - b

    return mn.tool(minus), calls


def values(*kinds: Kind) -> ValueTable:
    return ValueTable(lambda value: [0] if abs(value) < 100 else None, lambda value: value, kinds, [0], [0])  # type: ignore[arg-type]


@given(st.lists(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=20), max_size=5))
def test_each_call_is_made_once(batches: list[list[tuple[int, int]]]) -> None:
    tool, made = counted()
    table = values(Kind(int))
    calls = CallTable([tool], table)
    for batch in batches:
        ids = torch.tensor([[table.intern(a), table.intern(b)] for a, b in batch], dtype=torch.int64).view(-1, 2)
        results = calls(torch.zeros(len(batch), dtype=torch.int64), ids)
        expected = [None if a == b else a - b for a, b in batch]
        assert [table.objects[i] if i != ERROR else None for i in results.tolist()] == expected
    assert made == dict.fromkeys({pair for batch in batches for pair in batch}, 1)


def test_a_whole_number_and_its_float_are_one_call() -> None:
    made: list[float] = []

    @mn.tool
    def half(x: float) -> float:
        made.append(x)
        return x / 2

    table = values(Kind(float))
    calls = CallTable([half], table)
    for arguments in ([3], [3.0, 3, 5.0], [5]):
        ids = torch.tensor([[table.intern(x)] for x in arguments])
        results = calls(torch.zeros(len(arguments), dtype=torch.int64), ids)
        assert [table.objects[i] for i in results.tolist()] == [x / 2 for x in arguments]
    assert made == [3.0, 5.0]


def test_several_threads_make_each_call_once() -> None:
    tool, made = counted()
    table = values(Kind(int))
    calls = CallTable([tool], table)
    ids = torch.tensor([[table.intern(a), table.intern(b)] for a in range(30) for b in range(30)])
    results: list[Tensor] = []

    def work() -> None:
        for part in ids.split(50):
            calls(torch.zeros(len(part), dtype=torch.int64), part)
        results.append(calls(torch.zeros(len(ids), dtype=torch.int64), ids))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(made.values()) == {1}
    assert len(made) == 900
    assert all(torch.equal(result, results[0]) for result in results)


def test_values_are_told_apart_by_type_and_grow() -> None:
    table = values(Kind(int), Kind(float), Kind(bool, (False, True)))
    ids = [table.intern(value) for value in (1, 1.0, True, 2, 1, 1.0, True)]
    assert ids[:3] == ids[4:]
    assert len(set(ids)) == 4
    assert ERROR not in ids
    assert NONE not in ids
    assert table.intern(1000) == ERROR
    old = table.columns(torch.device("cpu")).fits.clone()
    more = [table.intern(i) for i in range(3, 90)]
    fits = table.columns(torch.device("cpu")).fits
    assert torch.equal(fits[:6], old)
    assert fits[ids[0]].tolist() == [True, True, False, True, True, False]
    assert fits[ids[2]].tolist() == [False, False, True, True, True, False]
    assert fits[more].all(0).tolist() == [True, True, False, True, True, False]
    assert fits[[NONE, ERROR]].tolist() == [[False, False, False, True, False, False]] * 2
