"""Sweeps as processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from sweeping import environment


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `modelnative …` as a process of its own; whatever is left of it is killed in the end."""
    begun: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "modelnative", *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True)
        begun.append(process)
        return process

    yield run
    for process in begun:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
