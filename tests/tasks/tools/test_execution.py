"""How tools are called: here or elsewhere, within their time."""

from __future__ import annotations

import os
import threading
import time
import warnings

import pytest
import toolbox
import torch
from torch import Tensor

import modelnative as mn
from modelnative.tasks.tools import execution as calls
from modelnative.tasks.tools.execution import Caller, in_thread
from modelnative.tasks.tools.tool import Tool


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
    assert outcomes[0].error.startswith("ValueError: no (test_execution.py, line ")


def test_a_wrong_result_is_an_error_with_one_warning() -> None:
    def careless(x: int) -> int:
        return x / 2  # type: ignore[return-value]

    caller = Caller(mn.tool(careless))
    with pytest.warns(
        RuntimeWarning, match=r"tool careless: returned what its annotation does not allow: 0.5 is not int; the agent"
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
    assert not caller.workers


def processes(caller: Caller) -> list[int]:
    return [worker.process.pid for worker in caller.workers if worker is not None]


def test_a_call_that_hangs_is_killed_and_the_others_go_on() -> None:
    caller = Caller(toolbox.stubborn)
    with pytest.warns(RuntimeWarning, match="tool stubborn: took longer than 0.5 s") as seen:
        outcomes = caller([(i,) for i in range(8)])
    assert [outcome.value for outcome in outcomes] == [0, 1, 2, None, 4, None, 6, 7]
    assert len(seen) == 1
    assert [outcome.value for outcome in caller([(9,), (10,)])] == [9, 10], "who was killed is replaced"


def test_a_slow_tool_moves_to_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MOST", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    caller = Caller(toolbox.where)
    first = caller([(i,) for i in range(12)])
    assert {outcome.value for outcome in first} == {os.getpid()}, "nobody knows yet that it is slow"
    assert caller.workers
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
    assert not caller.workers


def test_a_worker_that_dies_is_an_error_and_replaced() -> None:
    caller = Caller(toolbox.deadly)
    caller.workers = [None, None]
    with pytest.warns(RuntimeWarning, match="tool deadly: ended its process"):
        assert [outcome.value for outcome in caller([(0,), (1,), (2,), (3,)])] == [0, None, 2, 3]


def test_workers_end_with_their_pool() -> None:
    caller = Caller(toolbox.double)
    caller.workers = [None, None]
    caller([(1,)])
    (worker,) = [worker for worker in caller.workers if worker is not None]
    process = worker.process
    del worker, caller
    assert process.wait(5) != 0


def test_a_tool_that_cannot_be_imported_elsewhere_is_called_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tool, "target", "toolbox:nowhere")
    caller = Caller(toolbox.double)
    caller.workers = [None, None]
    with pytest.warns(RuntimeWarning, match="cannot be called in another process .cannot import toolbox:nowhere"):
        assert [outcome.value for outcome in caller([(2,)])] == [4]
    assert not caller.workers


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
    with pytest.warns(RuntimeWarning, match="tool half: returned what its annotation does not allow: 0.5 is not int"):
        assert [outcome.value for outcome in Caller(half)([(1,), (2,)])] == [None, None]
