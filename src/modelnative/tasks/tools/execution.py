"""Calling tools with a time limit: in a thread while they are fast, in worker processes once they are slow or hang.

Every call has the time limit of its tool, so that a tool cannot stop a training. A thread cannot be killed: a call that
exceeds the limit there gets an exception, which ends a Python loop but not a call that blocks in C, and is repeated in
a worker process, which can be killed. Tools that another process cannot import (defined in a notebook or in a function)
stay in threads, and threads that block are abandoned. Neither an exception nor `os._exit` of a tool ends the training;
a crash in C code or a signal does, in a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NoReturn, TypeVar

from modelnative.tasks.importing import child_environment
from modelnative.tasks.tools.tool import CallOutcome, Tool, Value

X = TypeVar("X")
Y = TypeVar("Y")

SLOW = 1e-3  # mean seconds of a call above which worker processes are worth their overhead
PROVEN = 0.1  # total seconds of calls before the mean is considered
START = 60.0  # seconds for a worker to import the tool
MOST = 8  # largest number of worker processes of a tool


class Caller:
    """Makes the calls of one tool.

    Attributes:
        workers: the worker processes, where they are used: None for one that is not running. Empty at first.
        made: the number of calls so far.
        errors: for each kind of error, such as the name of an exception, how often it occurred and the first one.
    """

    def __init__(self, tool: Tool[..., Any]) -> None:
        self.tool = tool
        self.workers: list[Worker | None] = []
        self._in_threads_only = tool.batched
        self._calls, self._seconds = 0, 0.0
        self.made = 0
        self.errors: dict[str, tuple[int, str]] = {}

    def __call__(self, calls: Sequence[tuple[Value, ...]]) -> list[CallOutcome]:
        """Return the outcome of each call, in order. It must not be called by two threads at once."""
        outcomes: list[CallOutcome] = []
        while len(outcomes) < len(calls):
            rest = calls[len(outcomes) :]
            outcomes += self._in_workers(rest) if self.workers else self._in_thread(rest)
        self.made += len(calls)
        for outcome in outcomes:
            if outcome.value is None:
                self.add_error(outcome.error, outcome.fault)
        return outcomes

    def add_error(self, error: str, fault: bool = False) -> None:
        """Count an error by its kind, the words before the colon; a fault is warned of when it first occurs."""
        kind = error.split(":")[0]
        if fault and kind not in self.errors:
            self._warn(f"{error}; the agent is shown an error")
        count, first = self.errors.get(kind, (0, error))
        self.errors[kind] = (count + 1, first)

    def notes(self) -> list[str]:
        """Return a line for each kind of error, the most frequent first."""
        by_count = sorted(self.errors.values(), key=lambda error: -error[0])
        return [f"tool {self.tool.name}: {n:,} of {self.made:,} calls failed: {first}" for n, first in by_count]

    def _in_thread(self, calls: Sequence[tuple[Value, ...]]) -> list[CallOutcome]:
        """Return the outcomes in a thread, up to the first call that exceeds the limit."""
        tool = self.tool
        if tool.batched and len(calls) > 1:
            whole = in_thread(tool.attempt_all, [calls], tool.seconds)
            if whole and any(outcome.value is not None for outcome in whole[0]):
                return whole[0]
            # If one call raises or hangs, the whole batch fails; the calls are repeated one by one.
        outcomes = in_thread(self._timed, calls, tool.seconds)
        hangs = len(outcomes) < len(calls)
        if hangs or (self._seconds > PROVEN and self._seconds > SLOW * self._calls):
            self._start_workers()
            if hangs and not self.workers:
                outcomes.append(CallOutcome(None, f"took longer than {tool.seconds:g} s", fault=True))
        return outcomes

    def _timed(self, call: tuple[Value, ...]) -> CallOutcome:
        start = time.perf_counter()
        outcome = self.tool.attempt(call)
        self._calls, self._seconds = self._calls + 1, self._seconds + time.perf_counter() - start
        return outcome

    def _start_workers(self) -> None:
        """Use worker processes from now on, unless another process cannot import the tool."""
        self._in_threads_only = self._in_threads_only or self.tool.target is None
        if not self._in_threads_only:
            self.workers = [None] * min(MOST, os.cpu_count() or 1)

    def _in_workers(self, calls: Sequence[tuple[Value, ...]]) -> list[CallOutcome]:
        """Return the outcomes in worker processes; none if they cannot import the tool."""
        count = min(len(self.workers), len(calls))

        def work(index: int) -> list[CallOutcome]:
            return [self._in_worker(index, call) for call in calls[index::count]]

        try:
            with ThreadPoolExecutor(count) as threads:
                shares = list(threads.map(work, range(count)))
        except CannotStart as error:
            self.workers, self._in_threads_only = [], True
            self._warn(f"cannot be called in another process ({error}); so a call that hangs may not be stopped")
            return []
        return [shares[i % count][i // count] for i in range(len(calls))]

    def _in_worker(self, index: int, call: tuple[Value, ...]) -> CallOutcome:
        worker = self.workers[index] or Worker(str(self.tool.target))
        outcome = worker.call(call, self.tool.seconds)
        self.workers[index] = worker if worker.alive else None
        return outcome

    def _warn(self, problem: str) -> None:
        warnings.warn(f"tool {self.tool.name}: {problem}", RuntimeWarning, stacklevel=2)


_exit = os._exit


def _exit_unless_tool(status: int) -> NoReturn:
    """Replaces `os._exit`: in the thread of a tool it raises `SystemExit`, which is the outcome of the call."""
    if threading.current_thread().name == f"tool {os.getpid()}":  # a process that the tool has forked may end
        raise SystemExit(f"os._exit({status})")
    _exit(status)


def in_thread(function: Callable[[X], Y], arguments: Sequence[X], seconds: float) -> list[Y]:
    """Return the results of `function`, up to the first argument that takes longer than `seconds` (at most twice)."""
    results: list[Y] = []
    over = threading.Event()

    def work() -> None:
        with contextlib.suppress(SystemExit):  # raised below to stop the thread
            for argument in arguments:
                result = function(argument)
                if over.is_set():
                    return
                results.append(result)

    os._exit = _exit_unless_tool  # a tool must not end the training
    thread = threading.Thread(target=work, name=f"tool {os.getpid()}", daemon=True)
    thread.start()
    while thread.is_alive():
        known = len(results)
        thread.join(seconds)
        if thread.is_alive() and len(results) == known:
            over.set()
            # Raises SystemExit in the thread, at its next Python instruction.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
            return results[:known]
    return results


class CannotStart(Exception):
    """The tool cannot be imported in another process."""


class Worker:
    """A worker process of one tool.

    Args:
        target: `module:name` of the tool.

    Attributes:
        alive: false once it was killed or ended.

    Raises:
        CannotStart: it cannot import the tool.
    """

    def __init__(self, target: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelnative.tasks.tools.worker", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(threads=1),
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches this process alone, which stops the workers
        )
        self.alive = True
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(self.process.stdout, self._lines), daemon=True).start()
        weakref.finalize(self, _end, self.process)
        if error := self._receive(START).error:
            _end(self.process)
            raise CannotStart(error)

    def call(self, call: tuple[Value, ...], seconds: float) -> CallOutcome:
        """Return the outcome of one call; a worker that exceeds the limit is killed."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # if the process has ended, there is no answer
            self.process.stdin.write(json.dumps(call) + "\n")
            self.process.stdin.flush()
        return self._receive(seconds)

    def _receive(self, seconds: float) -> CallOutcome:
        """Return the next outcome that the process sends."""
        try:
            line, late = self._lines.get(timeout=seconds), False
        except queue.Empty:
            line, late = "", True
        if line.endswith("\n"):
            return CallOutcome(**json.loads(line))
        self.alive = False
        _end(self.process)
        return CallOutcome(None, f"took longer than {seconds:g} s" if late else "ended its process", fault=True)


def _read(pipe: IO[str], lines: queue.Queue[str]) -> None:
    """Put each line of a pipe into a queue; at the end an empty one. Windows cannot wait for a pipe in another way."""
    with pipe:
        for line in pipe:
            lines.put(line)
    lines.put("")


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the process and release its resources; its output is closed by who reads it."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # buffered data cannot be sent any more
            process.stdin.close()
