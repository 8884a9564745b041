"""Ctrl-C, SIGTERM and SIGHUP as a request to stop at the next safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def collect_signals() -> Iterator[list[int]]:
    """Append each SIGINT, SIGTERM and SIGHUP to a list instead of ending the process.

    A second Ctrl-C raises KeyboardInterrupt. SIGHUP, of a closed terminal, stays ignored where it is, as by `nohup`.
    The previous handlers are restored on exit. Python delivers signals to the main thread only; in any other thread the
    list stays empty.

    Example:
        >>> with collect_signals() as received:
        ...     signal.raise_signal(signal.SIGTERM)
        >>> received == [signal.SIGTERM]
        True
    """
    received: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Windows has none
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, record) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is record:  # a handler that the caller has installed since then stays
                signal.signal(number, handler)
