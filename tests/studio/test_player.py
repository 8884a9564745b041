from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import Scripted, Small

from modelnative.evidence import episode_choice
from modelnative.evidence.episode_choice import choose_episodes
from modelnative.evidence.explain import ExplainedToken, Explanation, explain
from modelnative.policies.config import PolicyConfig
from modelnative.policies.contract import Policy
from modelnative.policies.policy import TokenPolicy
from modelnative.studio import player
from modelnative.tasks.contract.board import SHOWN, BoardField


def explanation(word: str) -> Explanation:
    token = ExplainedToken(
        word, word, 0.5, float("nan"), 0.5, word, 0.9, {word: word}, True, board=(BoardField(word, word),)
    )
    return Explanation(word, word, {"answer": word, "target": word}, (token,), True, False, (word,))


@given(st.text())
def test_any_text_survives_in_a_script_element(word: str) -> None:
    text = player.data([(word, [player.Episode(word, explanation(word))])])
    assert not re.search("[<>&]", text)
    (episode,) = json.loads(text)
    assert (episode["problem"], episode["why"], episode["tokens"][0]["token"]) == (word, word, word)
    assert episode["tokens"][0]["board"] == [{"label": word, "value": word[:SHOWN]}]
    assert episode["tokens"][0]["value"] is None, "a number that is not finite is no JSON"


def test_episodes_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = [player.Episode("", explanation("x")) for _ in range(3)]
    monkeypatch.setattr(player, "BUDGET", 2 * len(json.dumps(episodes[0].as_dict())))
    assert len(json.loads(player.data([("x", episodes)]))) == 2


def test_only_these_scripts_run() -> None:
    digest = base64.b64encode(hashlib.sha256("é".encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in player.content_policy("é")
    assert "script-src 'none';" in player.content_policy()
    script = player.asset("player.js")
    assert "</script" not in script
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_right_wrong_and_longest() -> None:
    task = Small()
    stages = player.chosen(cast(Policy, Scripted(task)), task, None)
    assert [stage for stage, _ in stages] == list(task.spec.stages)
    for _, episodes in stages:
        found = {word: episode.explanation for episode in episodes for word in episode.why.split(", ")}
        assert set(found) == {"wrong", "right", "longest"}
        assert not episodes[0].explanation.success, "failures come first"
        assert found["right"].success
        assert len(found["longest"].rows) == task.spec.horizon, "a problem whose a is 8 never ends"
        assert len(episodes) == 2 + (found["wrong"] != found["longest"])


def test_a_rare_failure_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_choice, "PLAYED", 1)
    task = Small()
    policy = cast(Policy, Scripted(task))
    monkeypatch.setattr(episode_choice, "unseen_problems", lambda *_: task.parse(0, "2 3 4"))
    assert [why for why, _ in choose_episodes(policy, task, 0, failures=False)] == ["right, longest"]
    (why, problem), *_ = choose_episodes(policy, task, 0, failures=True)
    assert (why, explain(policy, task, problem).success) == ("wrong", False)


def test_a_long_board_is_cut() -> None:
    field = BoardField("tape", tuple(map(str, range(10 * SHOWN))), marked=3)
    shown = field.as_dict()
    assert len(shown["value"]) == SHOWN
    assert shown["marked"] == 3
    assert BoardField("x", "y" * 10 * SHOWN).as_dict() == {"label": "x", "value": "y" * SHOWN}


def test_temperature_draws_from_the_flattened_distribution() -> None:
    task = Small()
    problem = task.parse(0, "2 3 4")
    policy = TokenPolicy(task.spec, PolicyConfig(width=8))
    generator = torch.Generator().manual_seed(0)
    played = [explain(policy, task, problem, temperature=10.0, generator=generator) for _ in range(20)]
    assert len({tuple(row.token for row in each.rows) for each in played}) > 1
    assert all(each.temperature == 10.0 for each in played)
