"""Checks of the bridge to trl."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from conformance_registry import FAMILIES, check, compare, family, play


@check("trl", "trl", "the same, 100 each, through the environments of `TRLTask`; schemas by `get_json_schema`")
def trl_environments() -> str:
    from transformers.utils import get_json_schema

    from modelnative.bridges.trl import TRLTask

    for name in FAMILIES:
        bridge, chance = TRLTask(family(name), count=100, seed=2), random.Random(1)
        for kind in (None, chance):
            environments = [bridge.environment_factory() for _ in bridge.rows]
            texts = []
            for row, environment in zip(bridge.train_dataset, environments, strict=True):
                environment.reset(**row)
                call = lambda n, a, e=environment: getattr(e, n)(**a)  # noqa: E731
                texts.append(play(call, environment._episode, kind))
            compare(bridge.task, [environment._episode for environment in environments], texts)
        for call in bridge.task.calls():
            schema = get_json_schema(getattr(environments[0], call.name))["function"]["parameters"]
            ours = call.schema()["function"]["parameters"]
            kinds = [{k: v for k, v in p.items() if k != "description"} for p in schema["properties"].values()]
            assert list(schema["properties"]) == list(ours["properties"]), schema
            for theirs, own in zip(kinds, ours["properties"].values(), strict=True):
                assert {*own} >= {*theirs}, (theirs, own)
                assert theirs.get("enum") == own.get("enum"), (theirs, own)
    return "equal"


@check("trl", "trl", "`tiny_llm.py`: 98,000 random parameters learn T0 through `GRPOTrainer`, audited", slow=True)
def trl_learns() -> str:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import tiny_llm

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    found, _ = tiny_llm.run(steps=500, seed=0, until=0.2, target=0.99)
    assert found["held out after"] >= 0.9, found
    assert not found["alarms"], found
    return (
        f"held-out success {found['held out before']:.3f} after the warm start, {found['held out after']:.3f} after "
        f"{found['GRPO steps']} steps of GRPO; {found['audits']} audits, no alarm; {found['seconds']:.0f} s"
    )
