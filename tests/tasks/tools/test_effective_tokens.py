"""Searches over programs leave out tokens without an effect, and find the same."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.evidence.programs import ExactSearch
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.tools.task import ToolTask


@st.composite
def tool_tasks(draw: st.DrawFn) -> ToolTask:
    """A small task: two or three of four tools, problems that lack inputs, tools that fail."""

    def twice(x: int) -> int:
        return 2 * x

    def less(x: int, y: int) -> int:
        return x - y

    def fails(x: int) -> int:
        return 6 // (x - draw_from)

    def named(unit: Literal["F", "K"], x: int) -> int:
        return x if unit == "F" else x + 1

    draw_from = draw(st.integers(0, 3))
    tools = draw(st.lists(st.sampled_from([twice, less, fails, named]), min_size=1, max_size=3, unique=True))
    inputs = st.fixed_dictionaries({"a": st.integers(0, 4)}, optional={"b": st.integers(0, 4), "u": st.just("K")})
    problems = draw(st.lists(inputs, min_size=6, max_size=9, unique_by=str))
    targets = {str(problem): draw(st.integers(0, 6)) for problem in problems}
    try:
        return ToolTask(tools, problems, lambda problem: targets[str(problem)], calls=2)
    except UserError:  # all problems are held out
        return ToolTask([twice], {"a": range(9)}, lambda problem: 4, calls=2)


@given(tool_tasks(), st.lists(st.floats(0, 0.999), min_size=9, max_size=9), st.integers(0, 2**31))
def test_tokens_that_are_left_out_have_no_effect(task: ToolTask, keys: list[float], seed: int) -> None:
    problems = Batch.cat(list(task.enumerate(0)))
    generator = torch.Generator().manual_seed(seed)
    state, words = task.begin(problems), len(task.spec.vocabulary)
    for key in keys:
        running = state[~state.done]
        if not len(running):
            return
        effective = task.effective_tokens(running)
        for token in range(words):
            step = task.step(running, torch.full((len(running),), token))
            assert bool((~step.invalid).any()) == (token in effective), task.spec.vocabulary[token]
        # Some episodes go their own way, so that they are in different modes.
        chosen = torch.full((len(state),), effective[int(key * len(effective))])
        apart = torch.rand(len(state), generator=generator) < 0.2
        other = torch.randint(words, (len(state),), generator=generator)
        state = task.step(state, torch.where(apart, other, chosen)).state


@given(tool_tasks())
@settings(max_examples=8)
def test_the_best_fixed_program_is_that_of_the_plain_search(task: ToolTask) -> None:
    problems = Batch.cat(list(task.enumerate(0)))
    found = {}
    for effective in (type(task).effective_tokens, lambda self, state: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ToolTask, "effective_tokens", effective)
            search = ExactSearch(task, problems, 4, set(), 10**5)
            assert search.run()
            found[effective] = (search.best, search.best_successes)
    assert len(set(found.values())) == 1


def test_a_call_that_many_episodes_make_is_looked_up_once() -> None:
    table = ToolTask([doubled], {"x": range(50)}, lambda problem: 2 * problem["x"]).interpreter.calls
    asked: list[int] = []
    plain = table.results

    def counted(calls: Any) -> list[int]:
        asked.append(len(calls))
        return plain(calls)

    table.results = counted  # type: ignore[method-assign]
    ids = torch.tensor([table.values.intern(x) for x in (3, 1, 3, 2, 1, 3)])[:, None]
    results = table(torch.zeros(6, dtype=torch.int64), ids)
    assert [table.values.objects[i] for i in results.tolist()] == [6, 2, 6, 4, 2, 6]
    assert asked == [3]


def doubled(x: int) -> int:
    return 2 * x
