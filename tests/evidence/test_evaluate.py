from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

import pytest
import torch
from bare import Bare
from worlds import SMALL, Scripted, Small, calculate

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Count, Evaluation, episodes, evaluate
from modelnative.policies.config import PolicyConfig
from modelnative.policies.contract import Policy
from modelnative.policies.policy import TokenPolicy
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import in_split
from modelnative.training.rollout import Rollout


def scripted(task: Arithmetic) -> Policy:
    return cast(Policy, Scripted(task))


def naive(policy: Policy, task: Arithmetic, stage: int, split: Any) -> int:
    """Successes, one episode after the other, without batches or rollouts."""
    wins = 0
    for problems in task.enumerate(stage, split):
        for i in range(len(problems)):
            problem = problems[i : i + 1]
            state, memory = task.begin(problem), policy.initial_state(problem)
            token, feedback = torch.tensor([task.spec.start]), task.feedback(state)
            for _ in range(task.spec.horizon):
                output = policy(token[None], feedback[None], memory)
                memory, token = output.state, output.logits[0].argmax(-1)
                step = task.step(state, token)
                state, feedback = step.state, step.feedback
                if step.done:
                    wins += bool(step.success)
                    break
    return wins


@pytest.mark.parametrize("kind", ["scripted", "network"])
def test_counts_equal_a_naive_loop(kind: str) -> None:
    task = Small()
    policy = scripted(task) if kind == "scripted" else TokenPolicy(task.spec, PolicyConfig(width=16))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(3.0)  # a new network would always choose the same token
        for count in evaluate(policy, task).counts:
            stage = task.spec.stage_index(count.stage)
            assert count.problems == SMALL
            assert count.successes == naive(policy, task, stage, count.split)


def test_every_problem_is_played_once_and_counted_right() -> None:
    task = Arithmetic()
    lines: list[dict[str, Any]] = []

    def keep(rollout: Rollout) -> None:
        lines.extend(episodes(task, rollout))

    evaluation = evaluate(scripted(task), task, stages=["T0", "T1"], on_rollout=keep)
    assert Counter((line["stage"], *line["operands"]) for line in lines).most_common(1)[0][1] == 1
    assert len(lines) == 11_000 == evaluation.total().problems
    assert all(line["success"] == Scripted.succeeds(line["operands"]) for line in lines)
    assert evaluation.total("T0").successes == 4 * 100
    assert evaluation.total("T1").successes == 4 * 1000
    held = int(in_split(torch.arange(1000), "heldout").sum())
    assert evaluation.total("T0", "heldout").problems == held


def test_episode_records_can_be_replayed() -> None:
    task = Small()
    policy = TokenPolicy(task.spec, PolicyConfig(width=16))
    generator = torch.Generator().manual_seed(0)
    lines: list[dict[str, Any]] = []
    for player, draws in ((scripted(task), None), (policy, generator)):
        evaluate(player, task, generator=draws, on_rollout=lambda rollout: lines.extend(episodes(task, rollout)))
    assert len(lines) == 2 * 6 * SMALL
    ends = Counter(line["actions"][-1] for line in lines)
    assert {"ANS", "EOS"} < set(ends), "all ways to end an episode occur, the horizon among them"
    for line in lines:
        a, b, c, d, e = (line["operands"] + [0, 0])[:5]
        assert line["target"] == a * b + c - (d * e if line["stage"] == "T2" else d)
        answered, value = calculate(line["actions"])
        assert line["answer"] == (value if answered else None)
        assert line["success"] == (answered and value == line["target"])


def test_a_record_is_as_documented() -> None:
    task = Small()
    lines: list[dict[str, Any]] = []
    evaluate(scripted(task), task, stages=["T2"], on_rollout=lambda rollout: lines.extend(episodes(task, rollout)))
    line = next(line for line in lines if line["success"])
    assert list(line) == ["stage", "problem", "operands", "actions", "answer", "target", "success"]
    _, b, c, d, e = line["operands"]
    assert line["actions"] == [*f"{d} MUL {e} STO {line['operands'][0]} MUL {b} ADD {c} SUB RCL ANS".split()]


def test_one_split_is_counted_alone() -> None:
    task = Small()
    evaluation = evaluate(scripted(task), task, stages=["T1"], split="heldout")
    assert [(count.stage, count.split, count.problems) for count in evaluation.counts] == [("T1", "heldout", SMALL)]


def test_sampling_is_reproducible_and_says_so() -> None:
    task = Small()
    policy = TokenPolicy(task.spec, PolicyConfig(width=16))
    runs = [evaluate(policy, task, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert not runs[0].greedy
    assert evaluate(policy, task).greedy


def test_a_rate_is_rounded_down() -> None:
    nearly = Evaluation((Count("T0", "train", 99_999, 100_000),), greedy=True)
    assert nearly.line() == "T0=0.999 (99999/100000 problems)"
    assert not nearly.perfect


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": ["T3"]}, "stage: unknown value 'T3'"),
        ({"split": "held"}, "split: unknown value 'held'; did you mean"),
    ],
)
def test_bad_names(arguments: dict[str, Any], message: str) -> None:
    task = Small()
    with pytest.raises(UserError, match=message):
        evaluate(scripted(task), task, **arguments)


def test_large_stages_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnative.evidence.evaluate.LISTED", 900)
    monkeypatch.setattr("modelnative.evidence.evaluate.DRAWN", 300)
    task, seen = Arithmetic(), []
    results = [
        evaluate(scripted(task), task, split="heldout", on_rollout=lambda rollout: seen.append(rollout.problems))
        for _ in range(2)
    ]
    assert results[0] == results[1], "the same problems every time"
    assert [(count.stage, count.problems, count.whole) for count in results[0].counts] == [
        ("T0", task.count(0, "heldout"), True),
        ("T1", 300, False),
        ("T2", 300, False),
    ]
    assert all(bool(in_split(problems.key, "heldout").all()) for problems in seen)
    assert results[0].line().endswith(" problems, some drawn)")
    assert Evaluation.of(results[0].as_dict()) == results[0]


def test_reaches_requires_all_listed_and_most_sampled_problems() -> None:
    whole, drawn = Count("a", "train", 99, 100), Count("b", "train", 99, 100, whole=False)
    assert not Evaluation((whole, drawn), greedy=True).reaches(0.9)
    assert Evaluation((drawn,), greedy=True).reaches(0.99)
    assert not Evaluation((drawn,), greedy=True).reaches(0.995)
    assert not Evaluation((drawn,), greedy=True).perfect


def test_a_task_without_enumerate_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnative.evidence.evaluate.DRAWN", 300)
    task, lines = Bare(), []
    evaluation = evaluate(TokenPolicy(task.spec, PolicyConfig(width=8)), task, progress=lines.append)
    assert lines == ["E, train: 300 problems, drawn", "E, heldout: 300 problems, drawn"]
    assert evaluation.line().endswith("/600 problems, some drawn)")


def test_the_mean_return_is_shown_where_it_is_not_the_success_rate() -> None:
    counts = (Count("a", "train", 1, 2, False, 10.0), Count("a", "heldout", 0, 6, False, 2.0))
    evaluation = Evaluation(counts, greedy=True)
    assert evaluation.total("a").mean_return == 4.0
    assert evaluation.line() == "a=0.125 (return 4) (1/8 problems, some drawn)"
    assert (
        Evaluation.of(json.loads(json.dumps({"counts": evaluation.as_dict()["counts"], "greedy": True}))) == evaluation
    )
    assert Evaluation((Count("a", "train", 1, 2, True, 0.5),), greedy=True).line() == "a=0.500 (1/2 problems)"
    assert Evaluation((Count("a", "train", 1, 2),), greedy=True).total().mean_return is None
