"""Everything that a run has learned, as hashes that two runs can be compared by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from modelnative.runs.files import read_json, read_tensors
from modelnative.runs.run import Run


def fingerprint(path: Path) -> dict[str, str]:
    """Hashes of all that a run has learned: weights, optimizer, curriculum, counters, metrics, verdict."""
    run = Run.open(path)

    def digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    tensors, about = read_tensors(run.checkpoints()[-1])
    hashes = {name: digest(tensor.numpy().tobytes()) for name, tensor in tensors.items()}
    hashes["counters"] = json.dumps(about["counters"])
    hashes["progress"] = json.dumps({k: v for k, v in about["progress"].items() if k != "elapsed"})
    hashes["best weights"] = digest(run.weights_path.read_bytes())
    metrics = run.metrics()
    assert [line["update"] for line in metrics] == list(range(1, len(metrics) + 1)), "each update once, in order"
    for line in metrics:
        del line["timing"]
        hashes[f"metrics {line['update']}"] = digest(json.dumps(line).encode())
    result = read_json(run.result_path)
    hashes["result"] = json.dumps({k: v for k, v in result.items() if k not in ("seconds", "machine")})
    return hashes
