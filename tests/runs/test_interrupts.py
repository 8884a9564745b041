"""A training that is disturbed at each of its writes, and resumed, ends as one that was not: nothing lost or twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fingerprints import fingerprint

HELPERS = Path(__file__).parents[1] / "helpers"
SOURCE = Path(__file__).parents[2] / "src"
WAYS = ("kill", "full", "interrupt", "callback", "fail once", "terminate", "hangup")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trainings are forks")
@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_disturbed_at_a_write_and_resumed_is_as_undisturbed(tmp_path: Path, step: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(SOURCE), str(HELPERS)])}
    command = [sys.executable, str(HELPERS / "interrupts.py"), str(tmp_path), str(step), *WAYS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert {report["how"] for report in reports} == set(WAYS)
    assert sum(len(report["ends"]) > 1 for report in reports) > len(reports) / 2, "most were disturbed"
    whole = fingerprint(tmp_path / "whole")
    for report in reports:
        assert fingerprint(tmp_path / f"{report['how']} at {report['place']}") == whole, report
        assert not list((tmp_path / f"{report['how']} at {report['place']}").rglob("*.partial")), report
