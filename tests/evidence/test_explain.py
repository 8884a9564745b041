from __future__ import annotations

import json
from typing import cast

import pytest
import torch
from bare import Bare
from worlds import Scripted

from modelnative.errors import UserError
from modelnative.evidence.explain import Explanation, explain
from modelnative.policies.config import PolicyConfig
from modelnative.policies.contract import Policy
from modelnative.policies.policy import TokenPolicy
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training.rollout import play

TASK = Arithmetic()


def network(copy: bool = True) -> Policy:
    policy = TokenPolicy(TASK.spec, PolicyConfig(width=16, copy_head=copy))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return policy


def explained(policy: Policy, stage: str, problem: str) -> Explanation:
    return explain(policy, TASK, TASK.parse(TASK.spec.stage_index(stage), problem))


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("text", ["3 7 2 4 5", "0 0 0 0 0", "9 8 7 6 5"])
def test_it_agrees_with_play(text: str, copy: bool) -> None:
    policy = network(copy)
    explanation = explained(policy, "T2", text)
    rollout = play(policy, TASK, TASK.parse(2, text))
    length = int(rollout.length[0])
    names = [TASK.spec.vocabulary[token] for token in rollout.action[:length, 0].tolist()]
    assert [row.token for row in explanation.rows] == names
    assert explanation.success == bool(rollout.success[0])
    assert explanation.truncated == bool(rollout.truncated[0])
    assert [row.probability for row in explanation.rows] == pytest.approx(
        rollout.behavior_log_prob[:length, 0].exp().tolist(), rel=1e-4
    )
    assert [row.value for row in explanation.rows] == pytest.approx(rollout.value[:length, 0].tolist(), abs=1e-5)
    assert [not row.valid for row in explanation.rows] == rollout.invalid[:length, 0].tolist()
    assert all(row.entropy >= 0 and 0 <= row.copied <= 1 + 1e-6 for row in explanation.rows)
    assert all((row.source == "") == (row.copied <= 0.5) for row in explanation.rows)
    if not copy:
        assert all(row.copied == 0 for row in explanation.rows)


def test_the_oracle_explained() -> None:
    explanation = explained(cast(Policy, Scripted(TASK)), "T2", "4 7 2 4 5")
    assert explanation.success
    assert not explanation.truncated
    assert " ".join(row.token for row in explanation.rows) == "4 MUL 5 STO 4 MUL 7 ADD 2 SUB RCL ANS"
    assert [row.token for row in explanation.rows] == [row.oracle for row in explanation.rows]
    assert [row.registers["display"] for row in explanation.rows] == [
        "4",
        "4",
        "20",
        "20",
        "4",
        "4",
        "28",
        "28",
        "30",
        "30",
        "10",
        "10",
    ]
    assert [row.registers["memory"] for row in explanation.rows][2:5] == ["", "20", "20"]
    assert explanation.record == {"problem": "4 7 2 4 5", "operands": [4, 7, 2, 4, 5], "answer": 10, "target": 10}
    assert explanation.problem == "a=4 b=7 c=2 d=4 e=5; compute (a*b + c) - d*e"


def test_sources_are_positions_of_the_problem() -> None:
    policy = network()
    for stage, text, places in (("T0", "3 7 2", {"a", "b", "c", "CTX"}), ("T2", "3 7 2 4 5", {*"abcde", "CTX"})):
        rows = explained(policy, stage, text).rows
        assert {row.source for row in rows} <= places | {""}
        for row in rows:
            if row.source in tuple("abcde"):
                assert row.token == text.split()["abcde".index(row.source)]


def test_failures_explained() -> None:
    unanswered = explained(cast(Policy, Scripted(TASK)), "T0", "3 7 2")
    assert (unanswered.success, unanswered.truncated) == (False, False)
    assert unanswered.record["answer"] is None
    endless = explained(cast(Policy, Scripted(TASK)), "T0", "8 7 2")
    assert (endless.success, endless.truncated) == (False, True)
    assert not any(row.valid for row in endless.rows), "STO has no effect without a value"
    assert endless.rows[-1].oracle == "", "the oracle had ended before"


@pytest.mark.parametrize(
    ("stage", "problem", "message"),
    [
        ("T5", "1 2 3", "stage: unknown value 'T5'"),
        ("T2", "3 7 2 4 15", "problem: '3 7 2 4 15' is not allowed; expected 5 operands from 0 to 9"),
        ("T2", "3 7 2 4", "problem"),
        ("T0", "a b c", "problem"),
    ],
)
def test_bad_problems(stage: str, problem: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        explained(network(), stage, problem)


def test_a_task_with_the_required_methods_alone() -> None:
    task = Bare()
    policy = TokenPolicy(task.spec, PolicyConfig(width=8))
    problem = task.sample(torch.tensor([0]), torch.Generator().manual_seed(0))
    explanation = explain(policy, task, problem)
    assert explanation.problem == " ".join(str(digit) for digit in problem.context[0].tolist())
    assert explanation.oracle == ()
    assert {row.oracle for row in explanation.rows} == {None}
    with pytest.raises(UserError, match="parse"):
        task.parse(0, "37")


@pytest.mark.parametrize("copy", [True, False])
def test_what_the_player_shows(copy: bool) -> None:
    explanation = explained(network(copy), "T1", "9 8 7 6")
    assert explanation.context == (("a", "9"), ("b", "8"), ("c", "7"), ("d", "6"), ("", "CTX"))
    assert [field.label for field in explanation.board] == list(explanation.rows[0].registers)
    for row in explanation.rows:
        assert dict(row.top)[row.token] == max(probability for _, probability in row.top) == row.top[0][1]
        assert [(field.label, field.value) for field in row.board] == list(row.registers.items())
        assert len(row.weights) == (len(explanation.context) if copy else 0)
        assert sum(row.weights) <= 1 + 1e-5
    assert (
        json.loads(json.dumps(explanation.as_dict(), allow_nan=False))["tokens"][0]["token"]
        == explanation.rows[0].token
    )


def test_where_it_departs_from_the_oracle() -> None:
    right = explained(cast(Policy, Scripted(TASK)), "T2", "4 7 2 4 5")
    wrong = explained(cast(Policy, Scripted(TASK)), "T2", "3 7 2 4 5")
    assert right.departure is None
    assert wrong.departure == len(wrong.rows) - 1, "it ends with EOS instead of ANS"


def test_a_drawn_episode_follows_the_generator() -> None:
    policy, problem = network(), TASK.parse(0, "3 7 2")

    def tokens(seed: int, temperature: float = 1.0) -> list[str]:
        generator = torch.Generator().manual_seed(seed)
        return [r.token for r in explain(policy, TASK, problem, temperature=temperature, generator=generator).rows]

    assert tokens(3) == tokens(3)
    assert len({tuple(tokens(seed)) for seed in range(5)}) > 1
    assert tokens(3, 1e-6) == [row.token for row in explain(policy, TASK, problem).rows]
    with pytest.raises(UserError, match="temperature: -1"):
        explain(policy, TASK, problem, temperature=-1)
