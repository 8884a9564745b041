from __future__ import annotations

import io
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from worlds import SMALL, Scripted

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Count, Evaluation
from modelnative.evidence.explain import ExplainedToken, Explanation, explain
from modelnative.policies.contract import Policy
from modelnative.runs.events import Finished
from modelnative.runs.run import Run
from modelnative.studio import tables
from modelnative.tasks import make_task
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe


def draw(*parts: object, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(token: str, oracle: str, **changes: object) -> ExplainedToken:
    plain = ExplainedToken(token, oracle, 0.9, 0.5, 0.1, "", 0.0, {"entry": "3", "display": "3"}, True)
    return replace(plain, **changes)  # type: ignore[arg-type]


def explanation(
    written: str, oracle: str, answer: int | None, *, success: bool, truncated: bool = False
) -> Explanation:
    words, right = written.split(), oracle.split()
    rows = tuple(row(word, right[t] if t < len(right) else "") for t, word in enumerate(words))
    return Explanation("T0", "a=3", {"answer": answer, "target": 3}, rows, success, truncated, tuple(right))


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        (
            explanation("3 ANS", "3 ANS", 3, success=True),
            "Right: it answered 3, the target, in 2 tokens: the oracle's program, token for token.",
        ),
        (
            explanation("1 3 ANS", "3 ANS", 3, success=True),
            "Right: it answered 3, the target, in 3 tokens, 1 more than the oracle. "
            "It first differs from the oracle at step 1: 1 instead of 3.",
        ),
        (
            explanation("ANS", "3 ANS", 3, success=True),
            "Right: it answered 3, the target, in 1 tokens, 1 fewer than the oracle. "
            "It first differs from the oracle at step 1: ANS instead of 3.",
        ),
        (
            explanation("3 MUL ANS", "3 ANS", 7, success=False),
            "Wrong: it answered 7 after 3 tokens; the target is 3. "
            "It first differs from the oracle at step 2: MUL instead of ANS.",
        ),
        (
            explanation("EOS", "3 ANS", None, success=False),
            "Wrong: it ended without an answer after 1 tokens; the target is 3. "
            "It first differs from the oracle at step 1: EOS instead of 3.",
        ),
        (
            explanation("3 3 3", "3 ANS", None, success=False, truncated=True),
            "Wrong: no answer within the horizon of 3 tokens; the target is 3. "
            "It first differs from the oracle at step 2: 3 instead of ANS.",
        ),
    ],
)
def test_the_verdict_in_words(case: Explanation, sentence: str) -> None:
    assert tables.verdict(case) == sentence


def test_a_trajectory_shows_what_stands_out() -> None:
    rows = (row("3", "3", source="a", copied=0.997), row("RCL", "MUL", valid=False), row("4", ""))
    case = replace(explanation("3", "3 MUL 7 ANS", None, success=False), rows=rows)
    lines = draw(tables.trajectory(case)).splitlines()
    assert "a 100%" in next(line for line in lines if line.split()[:2] == ["1", "3"])
    assert "differs, no effect" in next(line for line in lines if " RCL " in line)
    assert [line.split() for line in lines if line.split()[:1] == ["4"]] == [["4", "ANS"]], (
        "what the oracle went on with"
    )


def test_results_are_exact_when_greedy_and_intervals_when_sampled() -> None:
    counts = (Count("T0", "train", 80, 80), Count("T0", "heldout", 19, 20))
    greedy = draw(tables.results(Evaluation(counts, greedy=True)))
    assert "80/80 1.000" in greedy
    assert "19/20 0.950" in greedy
    assert "99/100 0.990" in greedy
    assert "[" not in greedy
    assert "99/100 0.990 [0.945, 0.999]" in draw(tables.results(Evaluation(counts, greedy=False)))
    alone = draw(tables.results(Evaluation(counts[1:], greedy=True)))
    assert "held-out" in alone
    assert "all" not in alone, "one split has no sum"


def test_the_list_of_tasks() -> None:
    shown = draw(tables.task_list())
    assert "arithmetic" in shown
    assert "tutorial" in shown


def test_the_page_of_a_task() -> None:
    shown = draw(*tables.task_page("worlds:Small"))
    assert f"T2     {2 * SMALL:>8}   {SMALL:>8}".replace(" ", "") in shown.replace(" ", "")
    assert "MUL 5 STO 4 MUL 5 ADD 9 SUB RCL ANS" in shown
    assert "0 1 2 3 4 5 6 7 8 9 CTX MUL ADD SUB ANS STO RCL EOS" in shown
    arithmetic = draw(*tables.task_page("arithmetic"))
    for option in ("feedback", "reward", "horizon", "gamma"):
        assert option in arithmetic
    assert "`none` is open loop" in arithmetic
    assert "(not always right)" in draw(*tables.task_page("tutorial"))
    with pytest.raises(UserError, match="did you mean 'arithmetic'"):
        list(tables.task_page("arithmetc"))


def test_the_page_of_a_task_that_is_made_already_has_no_options() -> None:
    made, function = draw(*tables.task_page("toolbox:TASK")), draw(*tables.task_page("toolbox:make"))
    assert "double x double R1 ANS R2" in made
    assert "option" not in made
    assert function.startswith("toolbox:make: Reach the target by calling tools")
    assert "modelnative train --task toolbox:make --options count=40" in function


@given(st.integers(1, 400_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@example((345_069, 345_761))
@example((19_999, 20_000))
def test_an_interval_contains_its_rate(counts: tuple[int, int]) -> None:
    text = tables.share(Count("T0", "train", *counts), exact=False)
    rate, low, high = map(float, re.fullmatch(r"\d+/\d+ (\S+) \[(\S+), (\S+)\]", text).groups())  # type: ignore[union-attr]
    assert low <= rate <= high
    assert low <= counts[0] / counts[1] <= high


def test_there_is_no_rate_of_nothing() -> None:
    nothing = Count("T0", "heldout", 0, 0)
    assert tables.share(nothing, exact=True) == tables.share(nothing, exact=False) == "–"
    evaluation = Evaluation((Count("T0", "train", 4, 4), nothing), greedy=True)
    assert Evaluation((nothing,), greedy=True).line() == "T0=– (0/0 problems)"
    assert evaluation.as_dict()["counts"][1]["rate"] is None
    assert "0/0" not in draw(tables.results(evaluation))


def finished(changes: dict[str, object], *counts: Count) -> Finished:
    config = with_fields(recipe(), {"task": "worlds:Small", **changes})
    evaluation = Evaluation(counts, greedy=True)
    return Finished(Run(Path("run"), config), evaluation, evaluation, 9, 90, 900, 1.0)


def test_a_training_that_used_up_its_budget_names_remedies_that_are_not_in_use() -> None:
    unsolved = Count("T0", "train", 3, 4)
    text = "\n".join(tables.finished(finished({"loss": {"hint_weight": 1.0}, "minutes": 2.0}, unsolved)))
    assert "the budget is used up and 1 training problems still fail" in text
    assert "--minutes 4" in text
    assert "--policy.reader gru" in text
    assert "--curriculum hints" not in text, "the curriculum gives hints already"
    assert "--loss.hint-weight" not in text
    uniform = "\n".join(tables.finished(finished({"curriculum": "uniform"}, unsolved)))
    assert "--curriculum hints" in uniform
    assert "--minutes" not in uniform


CHOICES = st.fixed_dictionaries(
    {
        "seed": st.sampled_from([0, 2**31 - 1]),
        "updates": st.sampled_from([9, 10, 1_000_000]),
        "minutes": st.sampled_from([0.0, 2.0, 1_000_000.0]),
        "curriculum": st.sampled_from(["hints", "uniform"]),
        "loss": st.fixed_dictionaries({"hint_weight": st.sampled_from([0.0, 0.5, 1.0])}),
        "policy": st.fixed_dictionaries({"width": st.sampled_from([8, 64]), "reader": st.sampled_from(["sum", "gru"])}),
    }
)


@given(CHOICES, st.booleans())
def test_remedies_are_allowed_and_not_in_use(fields: dict[str, Any], has_oracle: bool) -> None:
    config = with_fields(recipe(), fields)
    flags = [flag.removeprefix("--").replace("-", "_").split() for flag in tables.remedies(config, 9, has_oracle)]
    assert len({name for name, _ in flags}) == len(flags)
    for name, value in flags:
        group, _, field = name.rpartition(".")
        number: object = float(value) if value.replace(".", "").isdigit() else value
        number = int(number) if isinstance(number, float) and number.is_integer() else number
        assert with_fields(config, {group: {field: number}} if group else {field: number}) != config
    names = {name for name, _ in flags}
    assert not {"updates", "minutes"} <= names
    assert has_oracle or not names & {"curriculum", "loss.hint_weight"}


def test_printed_commands_can_be_typed() -> None:
    end = finished({}, Count("T0", "train", 3, 4))
    run, trusted = Run(Path("my runs/it's"), end.run.config), ["--trust", "worlds"]
    *_, evaluate, explain = tables.finished(replace(end, run=run))
    assert shlex.split(evaluate.removeprefix("Next: ")) == ["modelnative", "evaluate", "my runs/it's", *trusted]
    words = shlex.split(explain)
    assert words[:5] == ["modelnative", "explain", "my runs/it's", "--stage", "T0"]
    assert words[5] == "--problem"
    assert words[7:] == trusted


def test_the_page_of_a_task_whose_words_look_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(tables.task_page("toolbox:MARKED"))
    assert "[/INST]" in capsys.readouterr().out


def test_a_stage_that_is_only_tested_does_not_count_as_unsolved() -> None:
    counts = Count("T0", "train", 4, 4), Count("T1", "train", 3, 4)
    assert "budget is used up" not in "\n".join(tables.finished(finished({"stages": 1}, *counts)))
    assert "budget is used up" in "\n".join(tables.finished(finished({}, *counts)))


def test_an_explanation_in_colour_says_the_same_in_words() -> None:
    """Green or red, copied or odd: each is also a word, so that nothing is said by colour alone."""
    task = make_task("arithmetic")
    texts = []
    for problem in ("4 7 2", "3 7 2"):  # the second one is given up: its first operand is odd
        explanation = explain(cast(Policy, Scripted(task)), task, task.parse(0, problem))
        plain, coloured = io.StringIO(), io.StringIO()
        for file, system in ((plain, None), (coloured, "truecolor")):
            console = Console(file=file, width=200, color_system=system, force_terminal=system is not None)  # type: ignore[arg-type]
            for part in tables.explanation_page(explanation):
                console.print(part)
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured.getvalue()) == plain.getvalue()
        texts.append(coloured.getvalue())
    assert "\x1b[1;32mRight" in texts[0]
    assert "\x1b[1;31mWrong" in texts[1]
    assert "differs" in texts[1]
