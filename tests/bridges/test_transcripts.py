"""Transcripts: their calls, made again, lead to the same texts and verdicts, for every family and for agents."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bill
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import modelnative as mn
from modelnative import cli
from modelnative.errors import UserError
from modelnative.tasks import TASKS
from modelnative.tasks.contract.task import AnyTask

MADE: dict[str, AnyTask] = {
    **{name: mn.make(name) for name in TASKS if name not in ("recall", "dictionary")},
    "countdown, search": mn.make("countdown", tries=3, feedback="tried"),
    "hops, two maps": mn.make("hops", hops=3, size=6, maps=2, feedback="left"),
    "dictionary": mn.make("dictionary", pairs=4, store=True),
    "recall": mn.make("recall", longest=4, width=2),
    "tools": bill.make(solve=True),
}


def replayed(task: AnyTask, row: dict[str, Any]) -> mn.Episode:
    """Make the calls of a transcript in a new episode, and compare every text."""
    episode = mn.Episode(task)
    opening = episode.begin(*[row["stage"]], **{name: row[name] for name in ("seed", "index", "split")})
    system, user, *messages = row["messages"]
    assert (system["role"], system["content"]) == ("system", episode.rules)
    assert (user["role"], user["content"]) == ("user", opening)
    if episode.over or (messages and not messages[-1].get("tool_calls") and messages[-1]["role"] == "assistant"):
        assert messages.pop() == {"role": "assistant", "content": "Done."}
    for said, answer in zip(messages[::2], messages[1::2], strict=True):
        (call,) = said["tool_calls"]
        shown = episode.call(call["function"]["name"], call["function"]["arguments"])
        assert (answer["role"], answer["name"], answer["content"]) == ("tool", call["function"]["name"], shown.text)
        assert not shown.refused
    return episode


@pytest.mark.parametrize("name", MADE)
def test_the_oracle_s_transcripts_give_the_same_verdict_again(name: str) -> None:
    task = MADE[name]
    rows = mn.transcripts(task, count=12, seed=3)
    assert len(rows) == 12
    for row in json.loads(json.dumps(rows)):
        episode = replayed(task, row)
        assert (episode.success, episode.over) == (row["success"], True)
        assert row["success"] or name == "tutorial"
        assert row["tools"] == episode.tools


@pytest.mark.parametrize("name", MADE)
@given(chosen=st.lists(st.integers(0, 99), max_size=9), seed=st.integers(0, 99))
def test_messages_of_any_episode_give_the_same_verdict_again(name: str, chosen: list[int], seed: int) -> None:
    task = MADE[name]
    episode = mn.Episode(task)
    row = {"stage": task.spec.stages[seed % len(task.spec.stages)], "seed": seed, "index": 0, "split": "train"}
    episode.begin(row["stage"], seed=seed)
    for number in chosen:
        keys = episode.valid()
        if keys:
            episode.press([keys[number % len(keys)]])
    if "press" in episode._calls:
        messages = episode.messages()
    else:  # valid keys may be those of no call, such as the end without an answer
        try:
            messages = episode.messages()
        except UserError:
            return
    again = replayed(task, {**row, "messages": messages})
    assert (again.success, again.over, again.score) == (episode.success, episode.over, pytest.approx(episode.score))


def test_held_out_problems_are_not_in_it_unless_they_are_asked_for() -> None:
    task = mn.make("arithmetic")

    def openings(split: Any) -> set[str]:
        rows = mn.transcripts(task, stages=["T0"], count=300, split=split)
        assert {row["split"] for row in rows} == {split}
        return {row["messages"][1]["content"] for row in rows}

    trained, held = openings("train"), openings("heldout")
    assert not trained & held
    assert openings("all") & held


class Half(torch.nn.Module):
    """Writes the oracle's program for T0 if the first operand is even, and otherwise answers at once."""

    def __init__(self, task: AnyTask) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.task = task

    def initial_state(self, problems: Any) -> dict[str, torch.Tensor]:
        vocabulary = list(self.task.spec.vocabulary)
        program = self.task.oracle(problems)
        odd = problems.context[:, 0] % 2 == 1
        program[odd, 0] = vocabulary.index("ANS")
        return {"program": program, "at": torch.zeros(len(program), dtype=torch.int64)}

    def forward(self, tokens: torch.Tensor, feedback: torch.Tensor, state: dict[str, torch.Tensor]) -> mn.PolicyOutput:
        next_token = state["program"].gather(1, state["at"][:, None].clamp_max(state["program"].shape[1] - 1))[:, 0]
        logits = torch.nn.functional.one_hot(next_token, len(self.task.spec.vocabulary)).float()[None] * 100
        value = torch.zeros(logits.shape[:2])
        return mn.PolicyOutput(logits=logits, value=value, state={**state, "at": state["at"] + 1})


def test_an_agent_s_episodes(tmp_path: Path) -> None:
    task = mn.make("arithmetic")
    run: Any = None
    agent = mn.Agent(Half(task), task, run)  # type: ignore[arg-type]
    rows = mn.transcripts(agent, stages=["T0"], count=40, file=tmp_path / "new" / "rows.jsonl")
    odd = [int(row["messages"][1]["content"][2]) % 2 == 1 for row in rows]
    assert [row["success"] for row in rows] == [not each for each in odd]
    assert 5 < sum(odd) < 35
    assert [replayed(task, row).success for row in rows] == [row["success"] for row in rows]
    kept = mn.transcripts(agent, stages=["T0"], count=40, only_successes=True)
    assert kept == [row for row in rows if row["success"]]
    written = (tmp_path / "new" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows
    sampled = mn.transcripts(agent, stages=["T0"], count=5, sampled=True)
    assert sampled == mn.transcripts(agent, stages=["T0"], count=5, sampled=True)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["modelnative", "transcripts", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    assert run("hops", "--count", "3", "--out", str(file)) == (0, f"{file}: 3 episodes\n", "")
    assert len(file.read_text().splitlines()) == 3
    code, _, error = run("hops", "--out", str(file))
    assert (code, "expected a file that does not exist" in error) == (2, True)
    assert run("--out", "x")[2] == (
        "modelnative: error: TASK, --from: expected one of the two, a task or the run folder of an agent\n"
    )
    assert "count: 0 is not allowed" in run("hops", "--count", "0", "--out", str(tmp_path / "x"))[2]
    assert "expected a trained agent" in run("hops", "--sampled", "--out", str(tmp_path / "x"))[2]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
