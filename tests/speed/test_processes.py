from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from modelnative.errors import UserError
from modelnative.speed import processes
from modelnative.speed.processes import (
    PLAN_JSON,
    BenchMessage,
    MeasurementEvent,
    MeasurementPlan,
    PeakMemory,
    main,
    matmul_name,
    measure,
    measure_in_processes,
)
from modelnative.speed.throughput import Throughput
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

FIELDS = {"task": "worlds:Small", "episodes": 16, "threads": 1, "policy": {"width": 8}}
PLAN = MeasurementPlan(with_fields(recipe(), FIELDS), 0.02)
NAMES = [matmul_name(64), matmul_name(8), "environment", "rollout", "update", "training"]


def rates(events: list[MeasurementEvent]) -> list[Throughput]:
    return [event for event in events if isinstance(event, Throughput)]


def test_all_measurements_in_one_process() -> None:
    events = list(measure(PLAN))
    assert [rate.name for rate in rates(events)] == NAMES
    assert all((rate.processes, rate.threads) == (1, 1) for rate in rates(events))
    assert all(min(rate.rates) > 0 for rate in rates(events))
    assert isinstance(events[0], BenchMessage)
    assert isinstance(events[-1], PeakMemory)
    assert events[-1].peak > 2**20


def test_a_matrix_product_with_threads() -> None:
    events = measure(dataclasses.replace(PLAN, threads=2))
    threaded = [next(events) for _ in range(4)][3]
    events.close()  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    assert isinstance(threaded, Throughput)
    assert (threaded.name, threaded.processes, threaded.threads) == (matmul_name(64), 1, 2)


def test_without_a_compiler_the_measurement_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = processes.environment_speed

    def without(*arguments: object, compiled: bool = False) -> object:
        if compiled:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n\nSet …")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(processes, "environment_speed", without)
    events = list(measure(dataclasses.replace(PLAN, compiled=True)))
    reason = "torch.compile does not work here (InvalidCxxCompiler: No working C++ compiler found)"
    assert events[-1] == BenchMessage("skipped", f"environment, compiled: {reason}")


def test_a_process_prints_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([PLAN_JSON.dump_json(PLAN).decode()]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines if "rates" in line] == NAMES


@pytest.mark.slow
def test_two_processes_add_up() -> None:
    events: list[MeasurementEvent] = []
    measure_in_processes(
        dataclasses.replace(PLAN, config=with_fields(PLAN.config, {"episodes": 128})), 2, events.append
    )
    assert [rate.name for rate in rates(events)] == NAMES
    assert all((rate.processes, rate.threads) == (2, 1) for rate in rates(events))
    (memory,) = [event for event in events if isinstance(event, PeakMemory)]
    assert memory.processes == 2
    assert memory.peak > 2 * 2**20


def test_a_user_error_of_a_process_is_raised() -> None:
    plan = dataclasses.replace(PLAN, config=with_fields(PLAN.config, {"options": {"feedback": "loud"}}))
    with pytest.raises(UserError, match="feedback: unknown value 'loud'"):
        measure_in_processes(plan, 1, lambda event: None)


def test_a_failed_process_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"a measuring process ended with exit code 1 \(no message\)"):
        measure_in_processes(PLAN, 1, lambda event: None)


def test_the_error_of_a_failed_process_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho '[rank0]: MemoryError: too big\nChildFailedError: FAILED' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(processes.sys, "executable", str(program))
    with pytest.raises(UserError, match=r"ended with exit code 3 \(MemoryError: too big\)"):
        measure_in_processes(PLAN, 1, lambda event: None)


def test_an_interruption_ends_the_process() -> None:
    def stop(event: MeasurementEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_in_processes(dataclasses.replace(PLAN, seconds=600), 1, stop)
