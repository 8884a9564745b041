"""What a person types as a problem: every text is a problem, or is refused in one line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import modelnative as mn
from modelnative.errors import UserError
from modelnative.tasks import TASKS

NUMBERS = st.integers(0, 10**12).map(str) | st.sampled_from(
    ["9" * 5000, "0" * 5000 + "7", "-1", "1e308", "²", "٣", "1_0"]
)
WORDS = st.sampled_from(
    ["a=1", "b=15", "?", "a", "=", ":", ",", "(", ")" * 150, "(" * 150, "+", "-", "*", "//", "**", "[/INST]"]
)
TEXTS = st.lists(NUMBERS | WORDS, max_size=12).map(" ".join) | st.text(max_size=40)
VALUES = [10**5000, -(10**5000), 2**63, -1, "9" * 5000, [1] * 5000, None, float("inf")]
MADE = {name: mn.make(name) for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
@given(text=TEXTS)
@example(text="9" * 5000)
@example(text="3 " + "9" * 5000)
@example(text=f"0: {'9' * 5000}")
@example(text="9" * 5000 + "+1")
@example(text="1" + "+1" * 99)
@example(text="[/INST]")
def test_every_text_is_a_problem_or_is_refused_in_one_line(name: str, text: str) -> None:
    task = MADE[name]
    for stage in range(len(task.spec.stages)):
        with contextlib.suppress(UserError):
            problems = task.parse(stage, text)
            assert len(problems) == 1
            assert task.render(problems, 0)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("arithmetic", "horizon"),
        ("expressions", "operators"),
        ("countdown", "largest"),
        ("countdown", "solutions"),
        ("countdown", "tries"),
        ("hops", "hops"),
        ("recall", "longest"),
        ("dictionary", "pairs"),
        ("tutorial", "horizon"),
    ],
)
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_options_of_any_size_are_judged_before_they_are_used(name: str, option: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^{option}: ") as caught:
        mn.make(name, **{option: value})
    assert len(str(caught.value)) < 500
