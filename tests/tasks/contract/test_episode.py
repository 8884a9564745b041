"""An episode by calls is the same as its keys in the batched task, for every family."""

from __future__ import annotations

import json
import random
from typing import Any

import bill
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import modelnative as mn
from modelnative.errors import UserError
from modelnative.tasks import TASKS
from modelnative.tasks.contract.calls import Call
from modelnative.tasks.contract.episode import Episode, Shown, draw
from modelnative.tasks.contract.task import AnyTask

MADE: dict[str, AnyTask] = {
    **{name: mn.make(name) for name in TASKS if name != "recall"},
    "arithmetic, milestones": mn.make("arithmetic", reward="milestone", feedback="none"),
    "expressions, paper": mn.make("expressions", operators=3, feedback="paper"),
    "expressions, two digits": mn.make("expressions", operators=2, digits=2),
    "countdown, search": mn.make("countdown", tries=3, feedback="tried"),
    "countdown, board": mn.make("countdown", feedback="board"),
    "hops, two maps": mn.make("hops", hops=3, size=6, maps=2, feedback="left"),
    "hops, digits": mn.make("hops", hops=3, size=6, count="digits"),
    "dictionary, store": mn.make("dictionary", pairs=4, store=True),
    "recall": mn.make("recall", longest=4, width=2),
    "tools": bill.make(solve=True),
}
ALIKE = ["countdown", "countdown, search", "countdown, board", "tools"]  # equal values may have another name


def played(task: AnyTask, episode: Episode, stage: int) -> tuple[float, bool, bool, list[str]]:
    """The rewards, success, end and shown texts of an episode's keys, in a batch with other problems."""
    others = task.sample(torch.full((2,), stage), torch.Generator().manual_seed(1))
    problems = type(others).cat([others, episode._begun()])
    state, score, success, shown = task.begin(problems), 0.0, False, list[str]()
    for token in task.spec.token_ids(episode.keys):
        step = task.step(state, torch.full((3,), token))
        state, score, success = step.state, score + float(step.reward[2]), success or bool(step.success[2])
        shown.append(task.show(step.feedback[2].tolist()) if task.spec.feedback_width else "")
    return score, success, bool(state.done[2]), shown


def any_arguments(call: Call, chance: random.Random, values: list[Any]) -> dict[str, Any]:
    """Arguments that mostly fit the call."""
    given: dict[str, Any] = {}
    for name, argument in call.arguments.items():
        choices = [choice for kind in argument.kinds for choice in kind.choices]
        given[name] = chance.choice([*(choices or values), *values[:1]])
    return given


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("spoiled", [False, True], ids=["oracle", "spoiled"])
def test_calls_are_keys_of_the_batched_task(name: str, spoiled: bool) -> None:
    task, chance = MADE[name], random.Random(0)
    for number in range(4):
        stage = number % len(task.spec.stages)
        episode = Episode(task)
        opening = episode.begin(task.spec.stages[stage], seed=7, index=number)
        assert opening == episode.opening
        plan, answers = episode.plan(), list[Shown]()
        values = [value for _, arguments in plan for value in arguments.values()] or ["x", 1]
        for planned in plan:
            call, arguments = planned
            if spoiled and chance.random() < 0.4:
                other = chance.choice(episode.calls)
                call, arguments = other.name, any_arguments(other, chance, [*values, 3])
            before = json.dumps({**episode.to_json(), "refused": 0})
            answers.append(episode.call(call, arguments))
            if answers[-1].refused:
                assert json.dumps({**episode.to_json(), "refused": 0}) == before
                assert answers[-1].text.startswith("Refused: ")
                assert answers[-1].reward == 0
        score, success, done, shown = played(task, episode, stage)
        assert (episode.score, episode.success, episode.done) == (pytest.approx(score, abs=1e-6), success, done)
        assert episode.score == pytest.approx(sum(answer.reward for answer in answers), abs=1e-6)
        assert episode.truncated == (not done and len(episode.keys) == task.spec.horizon)
        made = [answer for answer in answers if not answer.refused]
        if made and shown[-1] and not episode.done:
            assert made[-1].text.splitlines()[-1].endswith(shown[-1]) or episode.truncated
        if not spoiled:
            program = [task.spec.vocabulary[t] for t in task.oracle(episode._begun())[0] if t != task.spec.end]
            assert episode.keys == program or name in ALIKE
            assert episode.success or task.spec.solvable
        again = Episode.of(json.loads(json.dumps(episode.to_json())), task)
        assert again.to_json() == episode.to_json()
        assert (again.score, again.over, again.valid()) == (episode.score, episode.over, episode.valid())


@pytest.mark.parametrize("name", [name for name in MADE if "press" in [call.name for call in MADE[name].calls()]])
@given(keys=st.lists(st.integers(0, 99), max_size=14), seed=st.integers(0, 99))
def test_pressed_keys_show_what_the_batched_task_shows(name: str, keys: list[int], seed: int) -> None:
    task = MADE[name]
    episode = Episode(task)
    episode.begin(task.spec.stages[0], seed=seed)
    words = [task.spec.vocabulary[key % len(task.spec.vocabulary)] for key in keys]
    answer = episode.call("press", {"keys": " ".join(words)})
    score, success, done, shown = played(task, episode, 0)
    assert (answer.reward, answer.success) == (pytest.approx(score, abs=1e-6), success)
    assert answer.refused == (not words)
    assert episode.keys == words[: len(episode.keys)]
    assert answer.over == (done or len(episode.keys) == task.spec.horizon)
    lines = [line.removesuffix(" (no effect)") for line in answer.text.splitlines()]
    assert all(f"{key}: {text}" in lines for key, text in zip(episode.keys, shown, strict=True) if text)


@pytest.mark.parametrize("name", MADE)
def test_a_key_that_is_not_valid_is_of_no_use_and_the_oracle_s_are_valid(name: str) -> None:
    task = MADE[name]
    episode = Episode(task)
    episode.begin(task.spec.stages[0], seed=0)
    for _, planned in zip(range(4), Episode.of(episode.to_json(), task).plan(), strict=False):
        keys = episode._calls[planned[0]].keys(episode._state, planned[1])
        assert keys[0] in episode.valid()
        episode.call(*planned)
    episode.press(["EOS"] if "EOS" in task.spec.vocabulary and name != "tutorial" else ["ANS"])
    assert episode.valid() == []


def test_what_is_hidden_is_in_no_text() -> None:
    """Problems with the same context and another cue, map or pair have one prompt (`check_task` swaps the rest)."""
    for name, first, second in (
        ("recall", "11 5", "22 9"),
        ("dictionary", "a=1 ? a", "b=2 ? b"),
        ("hops", "0: 1 2 3 4 5 0", "0: 2 3 4 5 1 0"),
    ):
        task = {"recall": MADE["recall"], "dictionary": mn.make("dictionary", pairs=1)}.get(name) or mn.make(
            "hops", hops=4, size=6
        )
        one, other = (task.prompt(task.parse(0, text), 0) for text in (first, second))
        assert one == other


def test_two_seeds_share_no_sequence() -> None:
    task = mn.make("arithmetic")
    keys = [[int(draw(task, 2, seed, index).key) for index in range(40)] for seed in range(3)]
    assert keys[0] == [int(draw(task, 2, 0, index).key) for index in range(40)]
    assert all(len(set(one) & set(other)) <= 1 for one, other in ((keys[0], keys[1]), (keys[1], keys[2])))
    train, held = (draw(task, 0, 0, 0, split).key for split in ("train", "heldout"))
    assert train != held


def test_refusals_say_why() -> None:
    episode = Episode("countdown")
    with pytest.raises(UserError, match="begin first"):
        episode.call("answer")
    episode.begin("C4", problem="1 3 4 6 = 29")
    for name, arguments, message in (
        ("comb", {}, "unknown function 'comb'; did you mean 'combine'?"),
        ("combine", {"first": 4}, "the argument 'operator' is missing"),
        ("combine", {"first": 4, "operator": "+", "second": "6"}, "second: '6' is not int"),
        ("combine", {"first": 4, "operator": "^", "second": 6}, "operator: '^' is none of '+', '-', '*', '/'"),
        ("combine", {"first": 5, "operator": "+", "second": 6}, "first: 5 is none of your numbers, which are 1 3 4 6"),
        ("combine", {"first": 4, "operator": "+", "second": 4}, "second: you have the number 4 only once"),
        ("combine", {"first": 6, "operator": "/", "second": 4}, "6 / 4 is not possible"),
        ("answer", {"value": 3}, "unknown argument 'value'. Allowed: none"),
        ("answer", "{", "the arguments are no JSON"),
        ("answer", [], "expected arguments by name: none"),
    ):
        answer = episode.call(name, arguments)  # type: ignore[arg-type]
        assert answer.refused
        assert message in answer.text
    assert (episode.keys, episode.refused, episode.score) == ([], 10, 0.0)


def test_json_names_no_module_to_import() -> None:
    episode = Episode(MADE["tools"])
    episode.begin("T0", problem="item=mug n=9 code=member currency=USD")
    with pytest.raises(UserError, match="task: unknown value 'tools'"):
        Episode.of(episode.to_json())
    with pytest.raises(UserError, match="expected an episode of the task"):
        Episode.of(episode.to_json(), mn.make("arithmetic"))
    with pytest.raises(UserError, match=r"what Episode.to_json returns"):
        Episode.of({"task": "arithmetic"})
    episode = Episode("arithmetic")
    episode.begin("T0", problem="1 2 3")
    with pytest.raises(UserError, match="none after its end"):
        Episode.of({**episode.to_json(), "keys": ["ANS", "ANS"]})
    with pytest.raises(UserError, match="token: unknown value 'AN'"):
        Episode.of({**episode.to_json(), "keys": ["AN"]})


def test_values_of_tools_are_refused_unless_they_are_at_hand() -> None:
    episode = Episode(MADE["tools"])
    assert episode.begin("T0", problem="item=mug n=9 code=member currency=USD") == (
        "T0: item=mug n=9 code=member currency=USD"
    )
    assert "8" in episode.call("price", {"item": "mug"}).text
    assert (
        "neither given nor a result; at hand are mug, 9, member, USD, 8" in episode.call("times", {"a": 8, "b": 7}).text
    )
    assert "is none of" in episode.call("price", {"item": "cup"}).text
    assert episode.call("answer", {"value": True}).refused
    assert episode.call("answer", {"value": 8}).over
    assert "the episode is over" in episode.call("price", {"item": "mug"}).text
