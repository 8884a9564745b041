from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from modelnative.bench.processes import Began, Memory, Note, Told, Work, across, main, measure, product_name
from modelnative.bench.training import Rate
from modelnative.errors import UserError
from modelnative.evidence import ranks
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

FIELDS = {"task": "worlds:Small", "episodes": 16, "threads": 1, "policy": {"width": 8}}
WORK = Work(with_fields(recipe(), FIELDS), 0.02)
NAMES = [product_name(64), product_name(8), "environment", "rollout", "update", "training"]


def rates(told: list[Told]) -> list[Rate]:
    return [one for one in told if isinstance(one, Rate)]


def test_everything_in_this_process() -> None:
    told = list(measure(WORK))
    assert [rate.name for rate in rates(told)] == NAMES
    assert all((rate.processes, rate.threads) == (1, 1) for rate in rates(told))
    assert all(min(rate.rates) > 0 for rate in rates(told))
    assert isinstance(told[0], Began)
    assert isinstance(told[-1], Memory)
    assert told[-1].peak > 2**20


def test_threads_may_share_a_product() -> None:
    told = measure(dataclasses.replace(WORK, share=2))
    shared = [next(told) for _ in range(4)][3]
    told.close()
    torch.set_num_threads(1)
    assert isinstance(shared, Rate)
    assert (shared.name, shared.processes, shared.threads) == (product_name(64), 1, 2)


def test_without_a_compiler_there_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ranks.environment_speed

    def without(*arguments: object, compiled: bool = False) -> object:
        if compiled:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n\nSet …")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ranks, "environment_speed", without)
    told = list(measure(dataclasses.replace(WORK, compiled=True)))
    reason = "torch.compile does not work here (InvalidCxxCompiler: No working C++ compiler found)"
    assert told[-1] == Note(f"environment, compiled: {reason}")


def test_a_process_prints_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([json.dumps(dataclasses.asdict(WORK))]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines if line["kind"] == "Rate"] == NAMES


@pytest.mark.slow
def test_two_processes_add_up() -> None:
    told: list[Told] = []
    across(dataclasses.replace(WORK, config=with_fields(WORK.config, {"episodes": 128})), 2, told.append)
    assert [rate.name for rate in rates(told)] == NAMES
    assert all((rate.processes, rate.threads) == (2, 1) for rate in rates(told))
    (memory,) = [one for one in told if isinstance(one, Memory)]
    assert memory.processes == 2
    assert memory.peak > 2 * 2**20


def test_what_a_process_refuses_is_said() -> None:
    work = dataclasses.replace(WORK, config=with_fields(WORK.config, {"options": {"feedback": "loud"}}))
    with pytest.raises(UserError, match="feedback: unknown value 'loud'"):
        across(work, 1, lambda told: None)


def test_a_dead_process_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"a measuring process ended with exit code 1 \(without a word\)"):
        across(WORK, 1, lambda told: None)


def test_the_cause_of_a_death_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho '[rank0]: MemoryError: too big\nChildFailedError: FAILED' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(ranks.sys, "executable", str(program))
    with pytest.raises(UserError, match=r"ended with exit code 3 \(MemoryError: too big\)"):
        across(WORK, 1, lambda told: None)


def test_an_interruption_ends_the_process() -> None:
    def stop(told: Told) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        across(dataclasses.replace(WORK, seconds=600), 1, stop)
