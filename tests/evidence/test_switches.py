from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from worlds import Scripted

from modelnative.errors import UserError
from modelnative.evidence.carriers import carriers, donors_of, problems_of, zeroed
from modelnative.evidence.episode_choice import KINDS, find_episodes
from modelnative.evidence.explain import explain
from modelnative.evidence.interventions import moments, playback
from modelnative.evidence.switches import BLANK, DONOR, EVERY, MEAN, START, ZERO, Switch, choices, switched
from modelnative.policies.config import PolicyConfig
from modelnative.policies.cores.gru import GRU
from modelnative.policies.cores.transformer import Transformer
from modelnative.policies.policy import TokenPolicy
from modelnative.tasks import make_task
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training.rollout import play

TASK = Arithmetic()
OWN, OTHER = TASK.parse(2, "4 7 2 4 5"), TASK.parse(2, "6 3 9 1 8")


def network(core: Any = GRU, scale: float = 0.5) -> TokenPolicy:
    torch.manual_seed(0)
    policy = TokenPolicy(TASK.spec, PolicyConfig(width=16, heads=2), core)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return policy


def scripted() -> Any:
    """Writes the oracle's program, whatever the tools show: its script is its hidden state."""
    return Scripted(TASK)


def test_without_a_switch_nothing_changes() -> None:
    own = explain(network(), TASK, OWN)
    assert explain(network(), TASK, OWN, hook=lambda t, now: now) == own


def test_a_donor_whose_script_is_the_hidden_state_is_followed() -> None:
    found = switched(scripted(), TASK, OWN, Switch("hidden state", DONOR, 1), OTHER)
    assert found.donor is not None
    assert [row.token for row in found.changed.rows] == [row.token for row in found.donor.rows]
    assert found.departure == next(
        i for i, (a, b) in enumerate(zip(found.own.rows, found.donor.rows, strict=True)) if a.token != b.token
    )
    assert str(found.changed.record["answer"]) == found.predicted == str(found.donor.record["answer"])
    assert found.changed.record["target"] == found.own.record["target"], "the problem is still its own"
    assert "From the exchange on it writes what the donor writes." in found.words()


def test_registers_carry_what_was_computed() -> None:
    """After `d MUL e STO`, the exchanged registers hold the donor's product; the own actions go on from there."""
    found = switched(scripted(), TASK, OWN, Switch("all registers", DONOR, 5), OTHER)
    assert found.departure is None
    assert int(found.changed.record["answer"]) == 4 * 7 + 2 - 1 * 8
    assert found.predicted == str(4 * 7 + 2 - 1 * 8)
    assert "It writes the same tokens" in found.words()


NAMES = ("context", "hidden state", "whole policy state", "last token", "feedback")


@pytest.mark.parametrize(
    ("core", "name", "key"),
    [*((GRU, name, 3) for name in NAMES), (GRU, "hidden state", 1), (Transformer, "hidden state", 3)],
)
def test_an_exchange_is_what_inspect_does(core: Any, name: str, key: int) -> None:
    """Over many pairs, in one batch, the same tokens as one pair at a time here."""
    policy = network(core)
    problems = problems_of(TASK, 2, 40)[:4]
    order = donors_of(problems)
    own = [now.rows(torch.arange(4)) for now, _ in zip(moments(policy, TASK, problems), range(key), strict=False)][-1]
    carrier = next(c for c in carriers(policy, TASK, ()) if c.name == name)
    after = playback(policy, TASK, problems, start=carrier.exchange(own, own.rows(order)), first=key - 1)
    tested = 0
    for i in range(4):
        pair = problems[i : i + 1], problems[order[i] : order[i] + 1]
        if min(len(explain(policy, TASK, problem).rows) for problem in pair) < key:
            continue
        found = switched(policy, TASK, pair[0], Switch(name, DONOR, key), pair[1])
        tokens = [TASK.spec.vocabulary[token] for token in after.action[:, i].tolist() if token >= 0]
        assert [row.token for row in found.changed.rows[key - 1 :]] == tokens
        tested += 1
    assert tested


def test_removals_at_every_action_are_those_of_inspect() -> None:
    policy = network()
    expected = playback(policy, TASK, OWN, lambda t, now: zeroed(policy, now)).action[:, 0].tolist()
    found = switched(policy, TASK, OWN, Switch("hidden state", ZERO, EVERY))
    assert [row.token for row in found.changed.rows] == [TASK.spec.vocabulary[t] for t in expected if t >= 0]
    mean = switched(policy, TASK, OWN, Switch("hidden state", MEAN, EVERY))
    assert [row.probability for row in mean.changed.rows] != [row.probability for row in found.changed.rows]


@pytest.mark.parametrize("core", [GRU, Transformer])
def test_every_choice_can_be_played(core: Any) -> None:
    policy = network(core)
    offered = choices(policy, TASK, OWN)
    assert [name for name, _ in offered][:2] == ["context", "hidden state"]
    assert ("feedback", (DONOR, BLANK)) in offered
    assert ("all registers", (DONOR, START)) in offered
    for name, sources in offered:
        for source in sources:
            found = switched(policy, TASK, OWN, Switch(name, source, 1), OTHER)
            assert found.as_dict()["switch"] == {"carrier": name, "source": source, "key": 1}
            assert found.own == explain(policy, TASK, OWN)
            assert (found.donor is not None) == (source == DONOR)


@pytest.mark.parametrize("name", ["hops", "dictionary", "recall", pytest.param("expressions", marks=pytest.mark.slow)])
def test_families(name: str) -> None:
    task = make_task(name)
    policy = TokenPolicy(task.spec, PolicyConfig(width=16))
    own, other = (task.sample(torch.tensor([0]), torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for carrier, sources in choices(policy, task, own):
        for source in sources:
            words = switched(policy, task, own, Switch(carrier, source, 1), other).words()
            assert words.startswith("Undisturbed it answers ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"carrier": "soul"}, "carrier: unknown value 'soul'"),
        ({"source": "soul"}, "source: unknown value 'soul'"),
        ({"carrier": "context", "source": ZERO}, "source: unknown value 'zero'. Allowed: donor"),
        ({"key": 13}, "key: 13 is not allowed; expected 0 to 1[0-2], the actions of the episodes"),
        ({"key": -1}, "key: -1 is not allowed"),
        ({"carrier": "memory register", "key": 6}, "cannot be exchanged there, because other registers are filled"),
    ],
)
def test_what_cannot_be_exchanged(changes: dict[str, Any], message: str) -> None:
    other = TASK.parse(0, "4 2 3") if "memory" in message or "filled" in message else OTHER
    switch = dataclasses.replace(Switch("hidden state", DONOR, 1), **changes)
    with pytest.raises(UserError, match=message):
        switched(scripted() if switch.key == 6 else network(), TASK, OWN, switch, other)


def test_a_donor_is_needed() -> None:
    with pytest.raises(UserError, match="donor: None is not allowed; expected a problem of the same stage"):
        switched(network(), TASK, OWN, Switch("feedback", DONOR, 1))


def test_an_exchanged_context_is_shown() -> None:
    found = switched(network(), TASK, OWN, Switch("context", DONOR, 1), OTHER)
    assert [token for _, token in found.changed.context] == ["4 → 6", "7 → 3", "2 → 9", "4 → 1", "5 → 8", "CTX"]


# Episodes by kind


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_of_a_kind_are_of_it(kind: str) -> None:
    policy = network(scale=0.3)
    stage = 0
    found, played = find_episodes(policy, TASK, stage, kind)
    problems = next(iter(TASK.enumerate(stage)))
    rollout = play(policy, TASK, problems)
    assert played == len(problems) == 1000
    expected = {
        "right": int(rollout.success.sum()),
        "wrong": int((~rollout.success).sum()),
        "longest": 1000,
        "invalid": int((rollout.invalid & rollout.running).any(0).sum()),
    }
    if kind in expected:
        assert len(found) == min(50, expected[kind])
    for episode in found:
        explanation = explain(policy, TASK, episode.problem)
        assert (len(explanation.rows), explanation.success) == (episode.length, episode.success)
        assert sum(not row.valid for row in explanation.rows) == episode.invalid
        assert explanation.departure == (None if episode.departure is None else episode.departure - 1)
    if kind == "longest":
        assert [episode.length for episode in found] == sorted(rollout.length.tolist(), reverse=True)[: len(found)]


def test_a_script_departs_where_it_leaves_the_oracle() -> None:
    """Where the first operand is odd it ends early, and where it is 8 it does not end."""
    found, played = find_episodes(scripted(), TASK, 0, "departs")
    assert (played, len(found)) == (1000, 50)
    first = [int(str(TASK.records(e.problem, TASK.begin(e.problem))[0]["problem"])[0]) for e in found]
    assert all(a % 2 or a == 8 for a in first)
    for episode in found:
        assert explain(scripted(), TASK, episode.problem).departure == (episode.departure or 0) - 1
