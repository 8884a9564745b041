"""Who calls a tool: a watched thread while it is quick, worker processes once it is slow or has hung.

Wherever a call runs, it has its tool's time limit: nothing that a tool does can stop a training. A thread cannot be
killed, so a call that overruns there is asked to stop, which ends a loop of Python but not a call that waits in C, and
is tried again in a worker process, which can be killed. Tools that no other process can import (in a notebook, or
within a function) stay in threads, and what hangs there is left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from modelnative.tasks.tools.tool import Outcome, Tool, Value

Q = TypeVar("Q")
O = TypeVar("O")  # noqa: E741

SLOW = 1e-3  # seconds a call from which on worker processes are worth their messages
PROVEN = 0.1  # seconds of calls after which it is known how slow they are
START = 60.0  # seconds that a worker may take to import the tool
MOST = 8  # worker processes of a tool


class Caller:
    """Makes the calls of one tool.

    Attributes:
        crew: the worker processes, once there are any.
    """

    def __init__(self, tool: Tool[..., Any]) -> None:
        self.tool = tool
        self.crew: Crew | None = None
        self._alone = tool.batched  # no other process can help
        self._calls, self._seconds = 0, 0.0
        self._said: set[str] = set()

    def __call__(self, calls: Sequence[tuple[Value, ...]]) -> list[Outcome]:
        """The outcome of each call, in their order; not to be entered by two threads at once."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(calls):
            rest = calls[len(outcomes) :]
            outcomes += self._here(rest) if self.crew is None else self._elsewhere(self.crew, rest)
        for outcome in outcomes:
            if outcome.fault:
                self._warn(outcome.error, "the agent is shown an error")
        return outcomes

    def _here(self, calls: Sequence[tuple[Value, ...]]) -> list[Outcome]:
        """In a thread; of as many calls as it comes to before one hangs."""
        tool = self.tool
        if tool.batched and len(calls) > 1:
            whole = in_thread(tool.attempt_all, [calls], tool.seconds)
            if whole and any(outcome.value is not None for outcome in whole[0]):
                return whole[0]
            # If one of them raises or hangs, all have failed; the others need not.
        outcomes = in_thread(self._timed, calls, tool.seconds)
        if len(outcomes) < len(calls):
            if not self._recruit():
                outcomes.append(Outcome(None, f"took longer than {tool.seconds:g} s", fault=True))
            return outcomes
        if self._seconds > PROVEN and self._seconds > SLOW * self._calls and not self._alone:
            self._recruit()
        return outcomes

    def _timed(self, call: tuple[Value, ...]) -> Outcome:
        start = time.perf_counter()
        outcome = self.tool.attempt(call)
        self._calls, self._seconds = self._calls + 1, self._seconds + time.perf_counter() - start
        return outcome

    def _elsewhere(self, crew: Crew, calls: Sequence[tuple[Value, ...]]) -> list[Outcome]:
        try:
            return crew(calls)
        except CannotStart as error:
            self.crew, self._alone = None, True
            self._warn(
                f"cannot be called in another process ({error})", "so a call that hangs cannot be ended for sure"
            )
            return []

    def _recruit(self) -> bool:
        """Have worker processes from now on; false where there can be none."""
        target = None if self._alone else self.tool.target
        self._alone = target is None
        if target is not None:
            self.crew = Crew(target, self.tool.seconds)
        return target is not None

    def _warn(self, problem: str, so: str) -> None:
        """Say so once; of several values that it should not have returned, the first."""
        kind = problem.split(":")[0]
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(f"tool {self.tool.name}: {problem}; {so}", RuntimeWarning, stacklevel=2)


def in_thread(function: Callable[[Q], O], questions: Sequence[Q], seconds: float) -> list[O]:
    """What `function` says to each question, up to the first on which it takes longer than `seconds`, at most twice."""
    answers: list[O] = []
    over = threading.Event()

    def work() -> None:
        with contextlib.suppress(SystemExit):  # by which it is ended, below
            for question in questions:
                answer = function(question)
                if over.is_set():
                    return
                answers.append(answer)

    thread = threading.Thread(target=work, name="tool", daemon=True)
    thread.start()
    while thread.is_alive():
        known = len(answers)
        thread.join(seconds)
        if thread.is_alive() and len(answers) == known:
            over.set()
            # Raises SystemExit there, at the next step of Python.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
            return answers[:known]
    return answers


class CannotStart(Exception):
    """The tool cannot be imported in another process; says why."""


class Crew:
    """Worker processes of one tool, each started when it is first needed.

    Args:
        target: `module:name` of the tool.
        seconds: that a call may take.
    """

    def __init__(self, target: str, seconds: float) -> None:
        self.target, self.seconds = target, seconds
        self.workers: list[Worker | None] = [None] * min(MOST, os.cpu_count() or 1)

    def __call__(self, calls: Sequence[tuple[Value, ...]]) -> list[Outcome]:
        """As `Caller`.

        Raises:
            CannotStart: there can be no worker.
        """
        hands = min(len(self.workers), len(calls))

        def work(hand: int) -> list[Outcome]:
            return [self._ask(hand, call) for call in calls[hand::hands]]

        with ThreadPoolExecutor(hands) as threads:
            shares = list(threads.map(work, range(hands)))
        return [shares[i % hands][i // hands] for i in range(len(calls))]

    def _ask(self, hand: int, call: tuple[Value, ...]) -> Outcome:
        worker = self.workers[hand]
        if worker is None:
            worker = self.workers[hand] = Worker(self.target)
        answer = worker.ask(call, self.seconds)
        if answer is None:
            self.workers[hand] = None
            late = f"took longer than {self.seconds:g} s" if worker.late else "ended its process"
            return Outcome(None, late, fault=True)
        return Outcome(**answer)


class Worker:
    """One worker process.

    Raises:
        CannotStart: it did not find the tool.
    """

    def __init__(self, target: str) -> None:
        # It imports what this process could: a tool in the folder that the command was called in, say.
        path = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelnative.tasks.tools.worker", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
        self.late = False
        weakref.finalize(self, _end, self.process)
        said = self._read(START)
        if said is None or said["error"]:
            _end(self.process)
            raise CannotStart(
                said["error"] if said else f"{target} was not imported within {START:g} s, or ended Python"
            )

    def ask(self, call: tuple[Value, ...], seconds: float) -> dict[str, Any] | None:
        """The outcome of one call; None if it did not come in time, and the worker was killed."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(call) + "\n")
            self.process.stdin.flush()
        except OSError:  # it is gone
            _end(self.process)
            return None
        answer = self._read(seconds)
        if answer is None:
            _end(self.process)
        return answer

    def _read(self, seconds: float) -> dict[str, Any] | None:
        """Its next line; None if that does not come, and the process is killed."""
        assert self.process.stdout is not None

        def kill() -> None:
            self.late = True
            self.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line.endswith("\n"):
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Kill it and take it away."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not yet sent cannot be sent any more
                pipe.close()
