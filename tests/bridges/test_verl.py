"""verl: rows, rewards and audits, which need no verl. benchmarks/conformance_checks has what needs it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import modelnative as mn
from modelnative.bridges import verl
from modelnative.errors import UserError


def test_rows_name_their_problem_for_every_function() -> None:
    rows = verl.rows("countdown", stages=["C3", "C4"], count=4, seed=3, split="heldout")
    for index, row in enumerate(rows):
        kwargs = row["extra_info"]["tools_kwargs"]
        where = {"stage": ["C3", "C4"][index % 2], "seed": 3, "index": index, "split": "heldout"}
        assert kwargs == {name: {"create_kwargs": where} for name in ("combine", "answer")}
        episode = mn.Episode("countdown")
        opening = episode.begin(where["stage"], seed=3, index=index, split="heldout")
        assert [message["content"] for message in row["prompt"]] == [episode.rules, opening]
    with pytest.raises(UserError, match="count: 0 is not allowed"):
        verl.rows("countdown", count=0)


def test_the_configuration_has_a_tool_for_each_function() -> None:
    tools = verl.tool_config("dictionary", {"store": True})["tools"]
    assert [tool["config"]["call"] for tool in tools] == ["next", "answer", "put", "get"]
    assert {tool["class_name"] for tool in tools} == {"modelnative.bridges.verl.EpisodeTool"}
    with pytest.raises(AttributeError, match="no attribute 'Tool'"):
        _ = verl.Tool  # type: ignore[attr-defined]


@pytest.mark.parametrize("spoiled", [False, True])
def test_the_score_is_that_of_the_episode(spoiled: bool) -> None:
    episode = mn.Episode(mn.make("arithmetic", reward="milestone"))
    episode.begin("T1", seed=2)
    for name, arguments in episode.plan():
        keys = arguments["keys"].split()
        episode.call(name, {"keys": " ".join(["ANS", *keys] if spoiled else keys)})
    stored = {"task": "arithmetic", "options": {"reward": "milestone"}, "episode": episode.to_json()}
    extra = {verl.STORED: json.loads(json.dumps(stored)), "num_turns": 3}
    found = verl.compute_score("modelnative/arithmetic", "", "", extra)
    assert found["score"] == pytest.approx(episode.score)
    assert found["acc"] == float(episode.success) == float(not spoiled)
    assert found["keys"] == len(episode.keys)
    none = verl.compute_score("modelnative/arithmetic", "I think so.", "", {})
    assert (none["score"], {*none}) == (0.0, {*found})


def batch(n: int = 32, size: int = 8, width: int = 20) -> dict[str, Any]:
    """A healthy batch with GRPO's advantages: calls, answers of the tools between them, padding after them."""
    generator = torch.Generator().manual_seed(0)
    length = torch.randint(9, width + 1, (n,), generator=generator)
    place = torch.arange(width)
    written = place < length[:, None]
    mask = written & ~((place >= 4) & (place < 7))
    won = torch.rand(n, generator=generator) < 0.5
    rewards = torch.zeros(n, width)
    rewards[torch.arange(n), length - 1] = won.float()
    score = won.float().view(-1, size)
    advantages = ((score - score.mean(1, keepdim=True)) / (score.std(1, keepdim=True) + 1e-6)).view(-1, 1) * mask
    logs = -torch.rand(n, width, generator=generator)
    prompts = torch.arange(n // size).repeat_interleave(size)[:, None].expand(-1, 5)
    return {
        "response_mask": mask.long(),
        "attention_mask": torch.cat([torch.ones(n, 5), written], 1).long(),
        "prompts": prompts,
        "advantages": advantages,
        "token_level_rewards": rewards,
        "rollout_log_probs": logs,
        "old_log_probs": logs + 1e-6,
        "uid": [f"uid-{i // size}" for i in range(n)],
    }


def test_a_healthy_batch_raises_no_alarm_and_every_reading_is_taken() -> None:
    audit = verl.audit_batch(batch())
    assert audit.alarms == []
    assert {*audit.readings} == {
        "log_prob_gap_mean",
        "log_prob_gap_max",
        "effective_sample_size",
        "tokens_after_the_end",
        "group_mean",
        "weight_by_length",
        "verdict_correlation",
    }


def faults() -> dict[str, tuple[dict[str, Any], set[str]]]:
    one, other = batch(), torch.Generator().manual_seed(1)
    shuffled = [one["uid"][i] for i in torch.randperm(32, generator=other).tolist()]
    noise = one["old_log_probs"] + 0.1 * torch.randn(32, 20, generator=other)
    return {
        "padding in the loss": ({"response_mask": torch.ones(32, 20)}, {"tokens_after_the_end"}),
        "another sign": ({"advantages": -one["advantages"]}, {"verdict_correlation"}),
        "another engine": (
            {"old_log_probs": noise},
            {"log_prob_gap_mean", "log_prob_gap_max", "effective_sample_size"},
        ),
        "another group": ({"advantages": one["advantages"].roll(3, 0)}, {"group_mean", "weight_by_length"}),
        "other names of groups": ({"uid": shuffled}, {"weight_by_length"}),
    }


@pytest.mark.parametrize("name", faults())
def test_a_planted_fault_is_found(name: str) -> None:
    change, expected = faults()[name]
    assert {alarm.check for alarm in verl.audit_batch({**batch(), **change}).alarms} >= expected


def test_a_loss_that_divides_by_the_length_is_found() -> None:
    found = verl.audit_batch(batch(), loss_agg_mode="seq-mean-token-mean").alarms
    assert [alarm.check for alarm in found] == ["weight_by_length"]


def test_log_probabilities_of_another_forward_pass() -> None:
    one = batch()
    assert not verl.audit_batch(one, new_log_probs=one["old_log_probs"]).alarms
    found = verl.audit_batch(one, new_log_probs=one["old_log_probs"] * 1.3).alarms
    assert "log_prob_gap_mean" in {alarm.check for alarm in found}
    without = {name: value for name, value in one.items() if name != "rollout_log_probs"}
    assert "log_prob_gap_mean" not in verl.audit_batch(without).readings


def test_advantages_of_a_critic_are_in_no_group() -> None:
    one = {name: value for name, value in batch().items() if name != "uid"}
    assert "group_mean" not in verl.audit_batch(one, grouped=False).readings
    with pytest.raises(UserError, match="uid: the batch lacks it"):
        verl.audit_batch(one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"advantages": torch.zeros(32)}, r"advantages: \[32\] is not allowed; expected the shape \[32, 20\]"),
        ({"uid": ["a"]}, "uid: 1 is not allowed; expected 32 names"),
        ({"response_mask": torch.zeros(32, 20)}, "response_mask: no token is in the loss"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        verl.audit_batch({**batch(), **change})
    with pytest.raises(UserError, match="advantages: the batch lacks it"):
        verl.audit_batch({"response_mask": torch.ones(1, 1)})
