"""What a function needs to be a tool, and how it is called: here or elsewhere, within its time, once."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pytest
import toolbox
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import modelnative as mn
from modelnative.tasks import tool_calls
from modelnative.tasks.tool_calls import Caller, Crew, in_thread
from modelnative.tasks.tool_values import ERROR, NONE, Calls, Values
from modelnative.tasks.tools import Kind, Tool


def celsius(f: int) -> int:
    """Fahrenheit to Celsius, rounded."""
    return round((f - 32) * 5 / 9)


# The decorator


def test_a_tool_is_still_the_function() -> None:
    tool = mn.tool(celsius)
    assert tool(50) == tool(f=50) == 10
    assert (tool.name, tool.doc, tool.__name__, tool.__doc__) == (
        "celsius",
        celsius.__doc__,
        "celsius",
        celsius.__doc__,
    )
    assert str(tool.signature) == "(f: int) -> int" or "f: 'int'" in str(tool.signature)
    assert (tool.parameters, tool.returns) == ({"f": Kind(int)}, Kind(int))
    assert repr(tool).startswith("<tool celsius(")


def test_arguments_of_the_decorator() -> None:
    @mn.tool(seconds=5, batched=True)
    def twice(x: int) -> int:
        return 2 * x

    assert (twice.seconds, twice.batched) == (5.0, True)
    assert (mn.tool(celsius).seconds, mn.tool(celsius).batched) == (1.0, False)


def test_schema_is_that_of_a_function_call() -> None:
    @mn.tool
    def convert(x: float, unit: Literal["C", "F"], exact: bool, steps: Literal[1, 2]) -> float:
        """Convert.

        At length.
        """
        return x

    assert convert.schema() == {
        "type": "function",
        "function": {
            "name": "convert",
            "description": "Convert.\n\nAt length.",
            "parameters": {
                "type": "object",
                "properties": {
                    "x": {"type": "number"},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                    "exact": {"type": "boolean"},
                    "steps": {"type": "integer", "enum": [1, 2]},
                },
                "required": ["x", "unit", "exact", "steps"],
                "additionalProperties": False,
            },
        },
    }


def no_parameter_type(x) -> int:  # type: ignore[no-untyped-def]
    return x


def no_result_type(x: int):  # type: ignore[no-untyped-def]
    return x


def any_string(x: int) -> str:
    return str(x)


def a_list(x: list[int]) -> int:
    return x[0]


def either(x: int | None) -> int:
    return x or 0


def mixed_choices(x: Literal[1, "one"]) -> int:
    return 1


def a_default(x: int, y: int = 3) -> int:
    return x + y


def many(*x: int) -> int:
    return sum(x)


def by_name(*, x: int) -> int:
    return x


def unknown(x: Nowhere) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 0


async def later(x: int) -> int:
    return x


def one_by_one(x: int) -> Iterator[int]:
    yield x


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (
            no_parameter_type,
            {},
            "tool no_parameter_type: parameter 'x' has no annotation; write its type, such as x: int",
        ),
        (no_result_type, {}, "tool no_result_type: what it returns has no annotation; write its type, such as -> int"),
        (any_string, {}, r"what it returns: str is not allowed; list the strings.*Literal\['a', 'b'\]"),
        (
            a_list,
            {},
            r"tool a_list: parameter 'x': list\[int\] is not allowed; expected int, float, bool, str, or Literal",
        ),
        (either, {}, r"parameter 'x': int \| None is not allowed"),
        (mixed_choices, {}, "parameter 'x': typing.Literal.* is not allowed; .* of one of these types"),
        (a_default, {}, "parameter 'y' has a default"),
        (many, {}, "parameter 'x' is not allowed; expected plain parameters"),
        (by_name, {}, "parameter 'x' is not allowed; expected plain parameters"),
        (unknown, {}, "tool unknown: its annotations cannot be read: name 'Nowhere'"),
        (later, {}, "tool later: is async or a generator"),
        (one_by_one, {}, "tool one_by_one: is async or a generator"),
        (lambda x: x, {}, "tool: <lambda> is not allowed; give it a name"),
        (3, {}, "tool: 3 is not allowed; expected a function"),
        (int, {}, "expected a function"),
        (celsius, {"seconds": 0}, "tool celsius: seconds: 0 is not allowed; expected more than 0"),
    ],
)
def test_what_cannot_be_a_tool(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(mn.UserError, match=message):
        mn.tool(**options)(function) if options else mn.tool(function)


def test_tensors_hold_no_strings() -> None:
    def shout(word: Literal["a", "b"]) -> int:
        return 1

    def nothing() -> int:
        return 1

    with pytest.raises(mn.UserError, match=r"parameter 'word': .* without strings, which no tensor holds"):
        mn.tool(batched=True)(shout)
    with pytest.raises(mn.UserError, match="tool nothing: has no parameter"):
        mn.tool(batched=True)(nothing)


@pytest.mark.parametrize(
    ("annotation", "value", "kept"),
    [
        (int, 3, 3),
        (int, True, None),
        (int, 3.0, None),
        (int, np.int64(3), 3),
        (int, torch.tensor(3), 3),
        (float, 3, 3.0),
        (float, -0.0, 0.0),
        (float, np.float32(0.5), 0.5),
        (float, float("nan"), None),
        (float, float("inf"), None),
        (float, 10**400, None),
        (float, False, None),
        (bool, True, True),
        (bool, np.bool_(True), True),
        (bool, 1, None),
        (str, "a", "a"),
        (str, 1, None),
        (int, None, None),
        (int, [3], None),
        (int, np.array([3]), None),
        (Literal[1, 2], 2, 2),
        (Literal[1, 2], 3, None),
        (Literal[1, 2], True, None),
        (Literal["a"], "b", None),
    ],
)
def test_what_a_kind_accepts(annotation: Any, value: object, kept: object) -> None:
    kind = Kind.of(annotation)
    assert kind is not None
    if kept is None:
        with pytest.raises(TypeError):
            kind.convert(value)
    else:
        converted = kind.convert(value)
        assert (converted, type(converted), str(converted)) == (kept, type(kept), str(kept))


# Calling


def test_whatever_a_call_raises_is_its_outcome() -> None:
    def picky(x: int) -> int:
        errors: list[type[BaseException]] = [ValueError, SystemExit, KeyboardInterrupt, ZeroDivisionError]
        if x < len(errors):
            raise errors[x]("no")
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # to raise is a way to say no, and nothing to warn of
        outcomes = Caller(mn.tool(picky))([(i,) for i in range(6)])
    assert [outcome.value for outcome in outcomes] == [None, None, None, None, 4, 5]
    assert outcomes[0].error == "ValueError: no"


def test_a_wrong_result_is_an_error_and_said_once() -> None:
    def careless(x: int) -> int:
        return x / 2  # type: ignore[return-value]

    caller = Caller(mn.tool(careless))
    with pytest.warns(
        RuntimeWarning, match=r"tool careless: returned what it should not: 0.5 is not int; the agent"
    ) as seen:
        assert [outcome.value for part in ([(1,), (2,)], [(3,)]) for outcome in caller(part)] == [None, None, None]
    assert len(seen) == 1


def test_a_thread_is_given_up_at_the_call_that_hangs() -> None:
    stopped = threading.Event()
    asked = []

    def work(x: int) -> int:
        asked.append(x)
        try:
            while x == 2:
                pass
        except SystemExit:
            stopped.set()  # a tool may keep it from ending the thread
        return -x

    start = time.perf_counter()
    assert in_thread(work, [0, 1, 2, 3], 0.2) == [0, -1]
    assert time.perf_counter() - start < 5
    assert stopped.wait(5), "a loop of Python is ended, or it would take half of every later second"
    time.sleep(0.05)
    assert asked == [0, 1, 2], "someone else asks the rest"


def test_slow_calls_together_may_take_longer_than_one() -> None:
    def nap(x: int) -> int:
        time.sleep(0.02)
        return x

    assert in_thread(nap, list(range(30)), 0.25) == list(range(30))


def test_a_call_that_hangs_in_a_function_of_a_test_is_an_error() -> None:
    @mn.tool(seconds=0.1)
    def stuck(x: int) -> int:
        while x == 1:
            pass
        return x

    assert stuck.target is None
    caller = Caller(stuck)
    with pytest.warns(RuntimeWarning, match="tool stuck: took longer than 0.1 s; the agent is shown an error"):
        assert [outcome.value for outcome in caller([(0,), (1,), (2,)])] == [0, None, 2]
    assert caller.crew is None


def test_where_a_tool_can_be_found() -> None:
    assert toolbox.double.target == "toolbox:double"
    assert mn.tool(toolbox.plain).target == "toolbox:plain"
    assert mn.tool(lambda_like()).target is None
    hidden = mn.tool(celsius)
    assert hidden.target == f"{__name__}:celsius", "the function stands there, if not the tool"


def lambda_like() -> Callable[..., int]:
    def inner(x: int) -> int:
        return x

    return inner


def processes(caller: Caller) -> list[int]:
    assert caller.crew is not None
    return [worker.process.pid for worker in caller.crew.workers if worker is not None]


def test_a_call_that_hangs_is_killed_and_the_others_go_on() -> None:
    caller = Caller(toolbox.stubborn)
    with pytest.warns(RuntimeWarning, match="tool stubborn: took longer than 0.5 s") as seen:
        outcomes = caller([(i,) for i in range(8)])
    assert [outcome.value for outcome in outcomes] == [0, 1, 2, None, 4, None, 6, 7]
    assert len(seen) == 1
    assert [outcome.value for outcome in caller([(9,), (10,)])] == [9, 10], "who was killed is replaced"


def test_a_slow_tool_moves_to_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls, "MOST", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    caller = Caller(toolbox.where)
    first = caller([(i,) for i in range(12)])
    assert {outcome.value for outcome in first} == {os.getpid()}, "nobody knows yet that it is slow"
    assert caller.crew is not None
    later = [outcome.value for outcome in caller([(i,) for i in range(12, 20)])]
    assert later == [*later[:2]] * 4, "each worker has its share, in the order of the calls"
    assert set(later) == set(processes(caller))
    assert len(set(later)) == 2
    assert os.getpid() not in later


def test_a_quick_tool_stays_here() -> None:
    caller = Caller(toolbox.double)
    for k in range(20):
        assert [outcome.value for outcome in caller([(i,) for i in range(k, k + 500)])] == list(
            range(2 * k, 2 * k + 1000, 2)
        )
    assert caller.crew is None


def test_a_worker_that_dies_is_an_error_and_replaced() -> None:
    caller = Caller(toolbox.deadly)
    caller.crew = Crew("toolbox:deadly", 1.0)
    with pytest.warns(RuntimeWarning, match="tool deadly: ended its process"):
        assert [outcome.value for outcome in caller([(0,), (1,), (2,), (3,)])] == [0, None, 2, 3]


def test_workers_end_with_their_crew() -> None:
    caller = Caller(toolbox.double)
    caller.crew = Crew("toolbox:double", 1.0)
    caller([(1,)])
    (worker,) = [worker for worker in caller.crew.workers if worker is not None]
    process = worker.process
    del worker, caller
    assert process.wait(5) != 0


def test_a_tool_that_cannot_be_imported_elsewhere_is_called_here() -> None:
    caller = Caller(toolbox.double)
    caller.crew = Crew("toolbox:nowhere", 1.0)
    with pytest.warns(RuntimeWarning, match="cannot be called in another process .cannot import toolbox:nowhere"):
        assert [outcome.value for outcome in caller([(2,)])] == [4]
    assert caller.crew is None


# Batches


def test_a_batched_tool_gets_all_calls_at_once() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    @mn.tool(batched=True)
    def scaled(x: int, by: float) -> float:
        seen.append((x, by))  # type: ignore[arg-type]
        return x * by

    outcomes = Caller(scaled)([(1, 0.5), (2, 0.25), (3, 1.0)])
    assert [outcome.value for outcome in outcomes] == [0.5, 0.5, 3.0]
    ((x, by),) = seen
    assert (x.dtype, by.dtype, x.tolist()) == (torch.int64, torch.float64, [1, 2, 3])


def test_only_those_calls_of_a_batch_fail_that_fail_alone() -> None:
    @mn.tool(batched=True)
    def root(x: int) -> int:
        if bool((x < 0).any()):  # type: ignore[attr-defined]
            raise ValueError("negative")
        return x.sqrt().long() if x.is_floating_point() else x.double().sqrt().long()  # type: ignore[attr-defined]

    outcomes = Caller(root)([(4,), (-1,), (9,)])
    assert [outcome.value for outcome in outcomes] == [2, None, 3]


def test_a_batch_of_another_shape_or_type_is_an_error() -> None:
    @mn.tool(batched=True)
    def total(x: int) -> int:
        return x.sum()  # type: ignore[attr-defined]

    @mn.tool(batched=True)
    def half(x: int) -> int:
        return x / 2  # type: ignore[return-value]

    with pytest.warns(RuntimeWarning, match=r"tool total: returned \[\]; expected a tensor \[1\]"):
        assert [outcome.value for outcome in Caller(total)([(1,), (2,)])] == [None, None]
    with pytest.warns(RuntimeWarning, match="tool half: returned what it should not: 0.5 is not int"):
        assert [outcome.value for outcome in Caller(half)([(1,), (2,)])] == [None, None]


# The cache


def counted() -> tuple[Tool[..., int], Counter[tuple[int, int]]]:
    calls: Counter[tuple[int, int]] = Counter()

    def minus(a: int, b: int) -> int:
        calls[a, b] += 1
        if a == b:
            raise ValueError
        return a - b

    return mn.tool(minus), calls


def values(*kinds: Kind) -> Values:
    return Values(lambda value: [0] if abs(value) < 100 else None, lambda value: value, kinds, [0], [0])  # type: ignore[arg-type]


@given(st.lists(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), max_size=20), max_size=5))
def test_each_call_is_made_once(batches: list[list[tuple[int, int]]]) -> None:
    tool, made = counted()
    table = values(Kind(int))
    calls = Calls([tool], table)
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
    calls = Calls([half], table)
    for arguments in ([3], [3.0, 3, 5.0], [5]):
        ids = torch.tensor([[table.intern(x)] for x in arguments])
        results = calls(torch.zeros(len(arguments), dtype=torch.int64), ids)
        assert [table.objects[i] for i in results.tolist()] == [x / 2 for x in arguments]
    assert made == [3.0, 5.0]


def test_several_threads_make_each_call_once() -> None:
    tool, made = counted()
    table = values(Kind(int))
    calls = Calls([tool], table)
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
    fits = table.columns(torch.device("cpu")).fits.view(-1, table.width)
    assert torch.equal(fits.view(-1)[: 6 * table.width], old[: 6 * table.width])
    assert fits[ids[0]].tolist() == [True, True, False, True, True, False]
    assert fits[ids[2]].tolist() == [False, False, True, True, True, False]
    assert fits[more].all(0).tolist() == [True, True, False, True, True, False]
    assert fits[[NONE, ERROR]].tolist() == [[False, False, False, True, False, False]] * 2
