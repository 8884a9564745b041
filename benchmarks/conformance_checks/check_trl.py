"""Checks of the bridge to trl."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from conformance_registry import EPISODES, FAMILIES, KINDS, check, family, reference

FAULTS = {
    "none": set[str](),
    "tool answers in the loss": {"tokens_after_the_end"},
    "mask shifted by one": {"tokens_after_the_end", "last_actions_left_out"},
    "advantages with the wrong sign": {"verdict_correlation"},
    "advantages of other groups": {"group_mean", "weight_by_length"},
}


def planted(fault: str, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch of the trainer with a fault."""
    mask, advantages = batch["tool_mask"], batch["advantages"]
    if fault == "tool answers in the loss":
        return {**batch, "tool_mask": torch.ones_like(mask)}
    if fault == "mask shifted by one":
        return {**batch, "tool_mask": torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)}
    if fault == "advantages with the wrong sign":
        return {**batch, "advantages": -advantages}
    return {**batch, "advantages": advantages.roll(3)} if fault == "advantages of other groups" else batch


@check("trl", "trl", "the same, through the environments of `TRLTask`; schemas by `get_json_schema`", slow=True)
def trl_environments() -> str:
    from transformers.utils import get_json_schema

    from modelnative.bridges.trl import TRLTask

    for name in FAMILIES:
        bridge = TRLTask(family(name), count=EPISODES, seed=1)
        rows = list(bridge.train_dataset)
        for kind in KINDS:
            environments = [bridge.environment_factory() for _ in rows]
            for row, environment, played in zip(rows, environments, reference(name, kind), strict=True):
                environment.reset(**row)
                assert row["prompt"][-1]["content"] == played.opening, (row, played)
                texts = [getattr(environment, call)(**arguments) for call, arguments in played.calls]
                assert texts == played.texts, (texts, played)
            rewards = bridge.reward_funcs[0](environments=environments)
            assert rewards == [played.score for played in reference(name, kind)], name
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
    found, _ = tiny_llm.run(steps=3000, seed=0, until=0.3, target=0.99)
    before, after = (found[f"held out {name}"]["sampled"] for name in ("before", "after"))
    greedy = found["held out after"]["greedy"]
    assert after >= 0.95, found
    assert greedy >= 0.98, found
    assert not found["alarms"], found
    return (
        f"held-out success {before:.3f} after the warm start, {after:.3f} (greedy {greedy:.3f}) after "
        f"{found['GRPO steps']} steps of GRPO; {found['audits']} audits, no alarm; "
        f"{found['processor seconds']:.0f} processor seconds"
    )


@check(
    "trl", "trl", "four faults in a `GRPOTrainer`, and none, also of completions that are cut off, audited", slow=True
)
def trl_faults() -> str:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import tempfile

    import tiny_llm

    from modelnative.bridges.trl import TRLTask
    from modelnative.bridges.trl_audit import audit_trainer

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    task = TRLTask("arithmetic", stages=["T0"], count=400, seed=0)
    model, tokenizer = tiny_llm.random_model(task, 0)
    tiny_llm.warm_start(model, tokenizer, task, 0.2, 0)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # Of 16 tokens nearly all completions are cut off, and the trainer leaves those out.
    for (fault, expected), length in [*((each, 64) for each in FAULTS.items()), (("none", set[str]()), 16)]:
        model.load_state_dict(start)
        with tempfile.TemporaryDirectory() as folder:
            trainer = tiny_llm.trainer_for(model, tokenizer, task, task, 2, 0, folder, length=length)
            healthy = trainer._generate_and_score_completions
            trainer._generate_and_score_completions = lambda rows, h=healthy, f=fault: planted(f, h(rows))
            audit = audit_trainer(trainer, on_alarm=lambda alarm: None)
            trainer.train()
        found = {alarm.check for alarm in audit.alarms}
        assert found >= expected, (fault, found)
        assert found == expected or fault != "none", found
    return f"found: {', '.join(list(FAULTS)[1:])}; no alarm without a fault, nor of completions that are left out"


@check("trl", "trl", "transcripts of every family through `datasets`, from memory and from a file, unchanged")
def trl_transcripts() -> str:
    import tempfile

    from datasets import Dataset, load_dataset

    import modelnative as mn

    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            rows = mn.transcripts(family(name), count=20, file=f"{folder}/rows.jsonl")
            file = load_dataset("json", data_files=f"{folder}/rows.jsonl", split="train", cache_dir=folder)
            for dataset in (Dataset.from_list(rows, on_mixed_types="use_json"), file):
                for row, read in zip(rows, dataset, strict=True):
                    assert plain(read["messages"]) == plain(row["messages"]), (name, read["messages"])
                    assert read["tools"] == row["tools"], (name, read["tools"])
    return "equal"


def plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages without the columns that other rows have."""
    return [{name: value for name, value in message.items() if value is not None} for message in messages]
