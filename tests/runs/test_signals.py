from __future__ import annotations

import signal
import threading

import pytest

from modelnative.runs.signals import collect_signals


def test_signals_are_collected_and_the_handlers_restored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with collect_signals() as received:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGINT, signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_handler_installed_inside_is_kept() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with collect_signals():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_leave_the_handlers_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def collect() -> None:
        with collect_signals() as received:
            seen.append((signal.getsignal(signal.SIGINT), received))

    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    assert seen == [(before, [])]
