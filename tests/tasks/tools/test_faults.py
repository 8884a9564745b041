"""Whatever a tool, a problem or a target is: an outcome for the agent and a line for the author, but no traceback."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal, NewType

import pytest
import toolbox
import torch
from hypothesis import given
from hypothesis import strategies as st

import modelnative as mn
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.tools.execution import Caller
from modelnative.tasks.tools.task import ToolTask
from modelnative.tasks.tools.tool import Kind

HUGE = 10**5000  # Python does not write integers of more than 4,300 digits


class Unwritten:
    """Cannot be written in a message."""

    def __repr__(self) -> str:
        raise ValueError("no")


class Unsaid(Exception):
    """Fails to say what it is about."""

    def __str__(self) -> str:
        raise ValueError("no")


scalars = (
    st.integers()
    | st.integers(4000, 6000).map(lambda n: 10**n)
    | st.integers(4000, 6000).map(lambda n: -(10**n))
    | st.floats()
    | st.booleans()
    | st.text(max_size=20)
    | st.complex_numbers()
    | st.sampled_from([None, b"", int, ValueError, object(), torch.zeros(2), torch.tensor(1e300), torch.tensor(1j)])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)


def refusal(call: Callable[[], Any], error: type[Exception]) -> str:
    """What a call is refused with; empty if it is not."""
    try:
        call()
    except error as refused:
        return str(refused)
    return ""


def keeps_or_refuses(value: object, annotation: Any) -> None:
    kind = Kind.of(annotation)
    assert kind is not None
    why = refusal(lambda: kind.convert(value), TypeError)
    assert len(why) < 600
    if not why:
        kept = kind.convert(value)
        assert type(kept) is kind.type
        assert isinstance(kept, str) or abs(kept) < 10**12
        assert kind.convert(kept) == kept


@given(anything, st.sampled_from([int, float, bool, str, Literal[1, 2], Literal["a"]]))
def test_a_kind_takes_a_value_or_says_why_not(value: object, annotation: Any) -> None:
    keeps_or_refuses(value, annotation)


@pytest.mark.parametrize("value", [Unwritten(), "x" * 1_000_000, [0] * 1_000_000], ids=["unwritten", "text", "list"])
@pytest.mark.parametrize("annotation", [int, str, Literal["a"]])
def test_a_kind_does_not_write_what_is_long_or_cannot_be_written(value: object, annotation: Any) -> None:
    keeps_or_refuses(value, annotation)


@pytest.mark.filterwarnings("ignore:tool any_result:RuntimeWarning")
@given(anything, st.sampled_from([int, float, bool, Literal[1, 2], Literal["a"]]))
def test_any_result_of_a_tool_is_an_outcome(value: object, returned: Any) -> None:
    def any_result(x: int) -> Any:
        return value

    any_result.__annotations__ = {"x": int, "return": returned}
    problems = {"x": range(1, 9)}
    task = ToolTask([any_result], problems, lambda problem: problem["x"], solve="ANS x", calls=1)
    start = task.begin(task.parse(0, "3"))
    called = task.step(start, torch.tensor([task.spec.vocabulary.index("any_result")])).state
    shown = task.step(called, torch.tensor([task.spec.vocabulary.index("x")])).feedback[0, 0]
    fits = Kind.of(returned)
    assert fits is not None
    if task.spec.vocabulary[int(shown)] == "ERROR":
        (note,) = task.notes()
        assert note.startswith("tool any_result: 1 of 1 calls failed: returned")
        assert len(note) < 700
    else:
        assert fits.takes(value)  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.lists(anything, min_size=1, max_size=4), min_size=1), anything)
def test_any_problem_and_target_is_taken_or_refused(values: dict[str, list[Any]], target: object) -> None:
    def play(answer: Callable[[dict[str, Any]], Any]) -> None:
        task = ToolTask([toolbox.double], values, answer)
        problems = task.sample(torch.zeros(4, dtype=torch.int64), torch.Generator().manual_seed(0))
        task.records(problems, task.begin(problems))

    for answer in (lambda problem: next(iter(problem.values())), lambda problem: target):
        assert len(refusal(lambda answer=answer: play(answer), mn.UserError).splitlines()) <= 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (Unsaid(), "Unsaid (test_faults.py, line"),
        (ValueError(HUGE), "ValueError (test_faults.py, line"),
        (ValueError("x" * 10_000), "ValueError: xxx"),
        (GeneratorExit(), "GeneratorExit (test_faults.py"),
    ],
)
def test_any_exception_is_an_outcome(raised: BaseException, said: str) -> None:
    def picky(x: int) -> int:
        raise raised

    (outcome,) = Caller(mn.tool(picky))([(1,)])
    assert outcome.value is None
    assert outcome.error.startswith(said)
    assert len(outcome.error) < 600


@pytest.mark.filterwarnings("ignore:tool steep. returned what its annotation does not allow. inf:RuntimeWarning")
def test_numbers_that_are_too_long_are_errors_and_one_line() -> None:
    @mn.tool
    def power(x: int) -> int:
        return 10 ** (x * 1000)

    @mn.tool
    def steep(x: int) -> float:
        return 1e308 * x

    @mn.tool
    def ten(x: int) -> int:
        return 10**x

    task = ToolTask([power, steep, ten], {"x": range(1, 41)}, lambda problem: problem["x"])
    check_task(task)
    for name in ("power", "steep"):
        state = task.begin(task.parse(0, "9"))
        for token in (name, "x"):
            step = task.step(state, torch.tensor([task.spec.vocabulary.index(token)]))
            state = step.state
        assert task.registers(state, 0)["display"] == "ERROR"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, HUGE], "an input is not allowed: a number of thousands of digits has more than 12 digits"),
        ([1.0, 1e308], r"an input is not allowed: 1e\+308 has more than 12 digits"),
        ([1.0, float("inf")], "an input is not allowed: inf is not finite"),
        ([f"w{i}" for i in range(100)], "tokens' is not allowed; expected at most 99; use fewer strings"),
    ],
)
def test_inputs_that_are_too_large_are_refused(
    values: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelnative.tasks.tools.vocabulary.MOST_TOKENS", 99)
    with pytest.raises(mn.UserError, match=message):
        ToolTask([toolbox.double], {"x": values}, lambda problem: 1)


def test_targets_that_are_too_large_are_refused() -> None:
    with pytest.raises(
        mn.UserError, match=r"target: for x=1 .* a number of thousands of digits has more than 12 digits"
    ):
        ToolTask([toolbox.double], {"x": range(1, 9)}, lambda problem: HUGE)


def test_tens_of_thousands_of_words_are_inputs() -> None:
    task = ToolTask([toolbox.double], {"word": [f"w{i}" for i in range(33_000)]}, lambda p: p["word"], solve="ANS word")
    last = task.parse(0, "w32999")
    assert task.spec.vocabulary[int(last.context[0, 2])] == "'w32999'"
    program = task.oracle(last)[0]
    state = task.begin(last)
    for token in program[:2]:
        step = task.step(state, token[None])
        state = step.state
    assert bool(step.success)


# What a tool raises is told


def test_unreachable_targets_name_what_the_tools_raised() -> None:
    task = toolbox.broken()
    with pytest.raises(
        mn.UserError, match=r"60 of 60 .* calls failed: NameError: name 'rond' is not defined \(toolbox"
    ):
        task.oracle(next(task.enumerate(0)))


def test_certify_tells_what_the_tools_raised() -> None:
    certificate = mn.certify("toolbox:partly_broken", train=False)
    lines = [finding.line() for finding in certificate.findings]
    assert any("tool mistaken: " in line and "NameError: name 'rond' is not defined" in line for line in lines)


def test_errors_are_counted_by_kind() -> None:
    def picky(x: int) -> int:
        if x < 6:
            raise KeyError(x)
        return 1 // (x - 6)

    caller = Caller(mn.tool(picky))
    caller([(i,) for i in range(8)])
    keys, division = caller.notes()
    assert keys.startswith("tool picky: 6 of 8 calls failed: KeyError: 0 (test_faults.py, line")
    assert division.startswith("tool picky: 1 of 8 calls failed: ZeroDivisionError: ")


def test_one_program_for_everything_is_told() -> None:
    task = toolbox.make()
    task.oracle(next(task.enumerate(0)))
    (note,) = task.notes()
    assert note.startswith("stage 'T0': one program solves all 40 problems, 'double x double R1 ANS R2', so that")


# Signatures


async def one_by_one(x: int) -> AsyncIterator[int]:
    yield x


def test_an_asynchronous_generator_is_no_tool() -> None:
    with pytest.raises(mn.UserError, match="tool one_by_one: is async or a generator"):
        mn.tool(one_by_one)


def test_a_tool_cannot_end_the_process() -> None:
    def deadly(x: int) -> int:
        if x == 1:
            os._exit(3)
        return x

    outcomes = Caller(mn.tool(deadly))([(0,), (1,), (2,)])
    assert [outcome.value for outcome in outcomes] == [0, None, 2]
    assert outcomes[1].error.startswith("SystemExit: os._exit(3)")


Metres = NewType("Metres", int)


def test_descriptions_of_parameters() -> None:
    @mn.tool
    def price(
        name: Annotated[Literal["tea", "rice"], "what is bought"],
        grams: Annotated[Annotated[int, "its weight"], ...],
        far: Metres,
    ) -> Annotated[int, "cents"]:
        """The price."""
        return grams

    assert list(price.parameters.values()) == [Kind(str, ("tea", "rice")), Kind(int), Kind(int)]
    assert price.returns == Kind(int)
    assert price.schema()["function"]["parameters"]["properties"] == {
        "name": {"type": "string", "enum": ["tea", "rice"], "description": "what is bought"},
        "grams": {"type": "integer", "description": "its weight"},
        "far": {"type": "integer"},
    }


def test_a_parameter_and_an_input_may_be_called_name() -> None:
    @mn.tool
    def length(name: Literal["tea", "rice"]) -> int:
        return len(name)

    task = ToolTask([length], {"name": ["tea", "rice"], "n": range(20)}, lambda problem: len(problem["name"]))
    check_task(task)
    assert task.render(task.parse(0, "name=tea n=3"), 0) == "T0: name=tea n=3"


bases: Any = st.sampled_from([int, float, bool, str, Literal[1, 2], Literal["a", "b"], Metres])
odd: Any = st.sampled_from([list[int], int | None, None, object, "Nowhere", Literal[1, "a"], Literal[10**20], 3, ...])
annotations = st.recursive(bases, lambda inner: inner.map(lambda kind: Annotated[kind, "words"]), max_leaves=3)


@given(
    st.dictionaries(st.sampled_from(["name", "self", "x", "tool", "seconds"]), annotations | odd, max_size=3),
    annotations | odd,
    st.booleans(),
)
def test_any_signature_is_a_tool_or_refused(parameters: dict[str, Any], returned: Any, batched: bool) -> None:
    def made_up() -> Any:
        return 1

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    listed = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in parameters.items()]
    made_up.__signature__ = inspect.Signature(listed, return_annotation=returned)  # type: ignore[attr-defined]
    if why := refusal(lambda: mn.tool(batched=batched)(made_up), mn.UserError):
        assert why.startswith("tool made_up: ")
    else:
        tool = mn.tool(batched=batched)(made_up)
        assert list(tool.schema()["function"]["parameters"]["properties"]) == list(parameters)


def test_values_with_commas_are_told_apart() -> None:
    words = ["a b", "a,b", "c d", *(f"word {i}" for i in range(9))]
    task = ToolTask([toolbox.double], {"word": words}, lambda problem: problem["word"])
    for word in words:
        for text in (word, f"word={word}"):
            assert task.render(task.parse(0, text), 0) == f"T0: word={word}"
    assert task.render(task.parse(0, " c,d "), 0) == "T0: word=c d", "as it was before, if it can be but one"
    with pytest.raises(mn.UserError, match=r"problem: 'a  b' is not allowed; .* this may be 2 of them"):
        task.parse(0, "a  b")
