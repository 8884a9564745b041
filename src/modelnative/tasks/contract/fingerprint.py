"""What a run remembers of its task, to notice that the task was edited after the training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import torch

from modelnative.errors import UserError
from modelnative.tasks.contract.task import AnyTask

SAMPLED = 8  # problems of each stage


def fingerprint(task: AnyTask) -> dict[str, Any]:
    """Describe a task by its spec, its options and a hash of some problems of each stage; JSON-ready."""
    problems = {}
    for index, name in enumerate(task.spec.stages):
        try:
            drawn = task.sample(torch.full((SAMPLED,), index), torch.Generator().manual_seed(0), "all")
            content = [drawn.context.tolist(), task.records(drawn, task.begin(drawn))]
        except UserError:  # a stage without problems
            content = []
        problems[name] = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    spec = dataclasses.asdict(task.spec)
    if not spec["actions"]:
        del spec["actions"]  # fingerprints written before there was this field
    found = {"spec": spec, "options": task.options(), "problems": problems}
    return dict(json.loads(json.dumps(found, default=str)))  # as it is when it was read from a file


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name what differs between two fingerprints, such as `spec.horizon: 7 instead of 6`."""
    found = []
    for part, values in after.items():
        earlier = before.get(part)
        earlier = earlier if isinstance(earlier, dict) else {}
        for name in sorted({*values, *earlier}):
            old, new = earlier.get(name), values.get(name)
            if old != new:
                brief = len(f"{old}{new}") <= SHOWN and part != "problems"
                found.append(f"{part}.{name}{f': {new!r} instead of {old!r}' if brief else ''}")
    return found


SHOWN = 60  # characters of two values that a message repeats
