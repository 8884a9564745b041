"""Checks of the bridge to verl: its tools, its tool loop, its reward manager's call, its advantages and its batches."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from conformance_registry import check, reference, summary

from modelnative.bridges.verl import STORED, audit_batch, compute_score, rows, tool_config


@check(
    "verl",
    "verl",
    "1,000 oracle and 1,000 spoiled episodes of two families through its tool loop's calls and `compute_score`",
    slow=True,
)
def verl_tools() -> str:
    import yaml
    from verl.experimental.agent_loop.tool_agent_loop import AgentData, ToolAgentLoop
    from verl.experimental.agent_loop.tool_parser import FunctionCall
    from verl.tools.tool_registry import initialize_tools_from_config

    won = {}
    for name in ("countdown", "hops"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "tools.yaml")
            file.write_text(yaml.safe_dump(tool_config(name)))
            tools = {tool.name: tool for tool in initialize_tools_from_config(str(file))}
        loop = object.__new__(ToolAgentLoop)  # its constructor wants a cluster with an engine; the calls need neither
        loop.tools, loop.max_tool_response_length, loop.tool_response_truncate_side = tools, 4096, "middle"

        async def play(played: Any, loop: Any = loop, name: str = name) -> tuple[list[Any], dict[str, Any]]:
            row = rows(name, stages=[played.stage], count=1)[0]
            kwargs = row["extra_info"]["tools_kwargs"]
            for each in kwargs.values():
                each["create_kwargs"].update(stage=played.stage, seed=played.seed, index=played.index)
            data = AgentData([], [], [], None, None, {}, "id", kwargs)
            data.extra_fields["max_global_steps"] = 1  # as the engine's answer leaves it
            shown = []
            for call, arguments in played.calls:
                request = FunctionCall(name=call, arguments=json.dumps(arguments))
                shown.append(await loop._call_tool(request, kwargs, data))
            assert not any(tool.problems for tool in loop.tools.values()), "an instance is not released"
            return shown, data.extra_fields

        for kind in ("oracle", "spoiled"):
            for played in reference(name, kind):
                shown, fields = asyncio.run(play(played))
                assert [response.text for response, _, _ in shown] == played.texts, played
                assert abs(sum(reward for _, reward, _ in shown) - played.score) < 1e-5, played
                found = compute_score(f"modelnative/{name}", "", "", {"num_turns": 1, **json.loads(json.dumps(fields))})
                assert (found["score"], found["acc"]) == (played.score, float(played.success)), (found, played)
                assert STORED in fields
                won[name] = won.get(name, 0) + played.success
    return "equal; " + summary({name: (count, 2000) for name, count in won.items()})


@check("verl", "verl", "the options of the command in `docs/howto/verl.md`, composed with its configuration files")
def verl_options() -> str:
    import verl.trainer
    from hydra import compose, initialize_config_dir

    page = Path(__file__).resolve().parents[2] / "docs" / "howto" / "verl.md"
    command = page.read_text().partition("python -m verl.trainer.main_ppo ")[2].partition("```")[0]
    overrides = command.replace("\\\n", " ").split()
    assert len(overrides) > 10, overrides
    folder = str(Path(verl.trainer.__file__).parent / "config")
    with initialize_config_dir(config_dir=folder, version_base=None):
        config = compose(config_name="ppo_trainer", overrides=overrides)
    turns = config.actor_rollout_ref.rollout.multi_turn
    assert (turns.tool_config_path, config.reward.custom_reward_function.name) == ("tools.yaml", "compute_score")
    return f"{len(overrides)} options are known"


@check("verl", "verl", "`audit_batch` on a `DataProto` with its own GRPO advantages: healthy, and four planted faults")
def verl_audits() -> str:
    import numpy as np
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    def made() -> Any:
        chance, size, width = random.Random(0), 8, 24
        lengths = [chance.randint(9, width) for _ in range(64)]
        place = torch.arange(width)
        written = place < torch.tensor(lengths)[:, None]
        rewards = torch.zeros(64, width)
        for i, length in enumerate(lengths):
            rewards[i, length - 1] = float(chance.random() < 0.5)
        logs = -torch.rand(64, width, generator=torch.Generator().manual_seed(0))
        tensors = {
            "prompts": torch.arange(8).repeat_interleave(size)[:, None].expand(-1, 5).contiguous(),
            "responses": torch.ones(64, width, dtype=torch.int64),
            "attention_mask": torch.cat([torch.ones(64, 5), written], 1).long(),
            "response_mask": (written & ~((place > 3) & (place < 7))).long(),
            "token_level_scores": rewards,
            "token_level_rewards": rewards.clone(),
            "rollout_log_probs": logs,
            "old_log_probs": logs + 1e-6,
        }
        uid = np.array([f"u{i // size}" for i in range(64)], dtype=object)
        return DataProto.from_dict(tensors, non_tensors={"uid": uid})

    def advantages(data: Any) -> Any:
        return compute_advantage(data, "grpo")

    healthy = audit_batch(advantages(made()))
    assert not healthy.alarms, healthy.alarms
    faults = {}
    data = made()
    del data.batch["response_mask"]  # verl then takes all written tokens, answers of the tools included
    data = advantages(data)
    data.batch["response_mask"] = torch.ones_like(data.batch["response_mask"])
    faults["padding in the loss"] = (data, "tokens_after_the_end")
    data = made()
    data.non_tensor_batch["uid"] = np.roll(data.non_tensor_batch["uid"], 3)
    faults["groups of other prompts"] = (advantages(data), "group_mean")
    data = advantages(made())
    data.batch["advantages"] *= -1
    faults["wrong sign"] = (data, "verdict_correlation")
    data = advantages(made())
    data.batch["old_log_probs"] = data.batch["old_log_probs"] * 1.1
    faults["another engine"] = (data, "log_prob_gap_mean")
    for name, (batch, expected) in faults.items():
        found = {alarm.check for alarm in audit_batch(batch).alarms}
        assert expected in found, (name, found)
    by_length = {alarm.check for alarm in audit_batch(advantages(made()), loss_agg_mode="seq-mean-token-mean").alarms}
    assert by_length == {"weight_by_length"}, by_length
    return f"no alarm on the healthy batch; found: {', '.join(faults)}, division by length"
