"""Tasks made of plain functions: against a slow interpreter of the same rules, and against exhaustive search."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st

import modelnative as mn
from modelnative.speed.environment import EpisodeLoop
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import in_split, program_length
from modelnative.tasks.tools.task import ToolTask

Value = int | float | bool | str
CALLS, DIGITS, DECIMALS = 2, 4, 1
SIZES = Literal["small", "large"]


def plus(a: int, b: int) -> int:
    return a + b


def half(x: float) -> float:
    return x / 2


def size(x: int) -> SIZES:
    return "large" if x > 4 else "small"


def amount(word: SIZES) -> int:
    return 7 if word == "large" else 1


def choose(flag: bool, a: int, b: int) -> int:
    return a if flag else b


def even(x: int) -> bool:
    return x % 2 == 0


def times(x: int, by: Literal[2, 10, -3]) -> int:
    return x * by


def picky(x: int) -> int:
    if x % 3 == 0:
        raise ValueError("not this one")
    return x - 1


def power(x: int) -> int:
    return x**7  # soon too long to be shown


def seven() -> int:
    return 7


def careless(x: float) -> int:
    return x  # type: ignore[return-value]  # a float, whatever it says


POOL: dict[str, Callable[..., Value]] = {
    f.__name__: f for f in (plus, half, size, amount, choose, even, times, picky, power, seven, careless)
}
TYPES: dict[str, tuple[list[Any], Any]] = {
    "plus": ([int, int], int),
    "half": ([float], float),
    "size": ([int], SIZES),
    "amount": ([SIZES], int),
    "choose": ([bool, int, int], int),
    "even": ([int], bool),
    "times": ([int, Literal[2, 10, -3]], int),
    "picky": ([int], int),
    "power": ([int], int),
    "seven": ([], int),
    "careless": ([float], int),
}
INPUTS: dict[str, list[Value]] = {
    "x": [0, 1, 3, 8, -12],
    "y": [5, 6],
    "r": [0.5, 2.0, 3.25],
    "word": ["small", "large"],
    "flag": [True, False],
}


def takes(kind: Any, value: Value) -> bool:
    if choices := get_args(kind):
        return any(type(value) is type(c) and value == c for c in choices)
    return type(value) is kind or (kind is float and type(value) is int)


class Slow:
    """One episode in plain Python, from the rules in the docstring of `ToolTask`."""

    def __init__(self, tools: list[str], inputs: dict[str, Value], target: Value) -> None:
        self.tools, self.inputs, self.target = tools, inputs, target
        self.results: list[Value] = []
        self.under_way: tuple[str, list[Value]] | None = None
        self.last: Value | None = None
        self.failed = self.over = False
        self.answer: Value | None = None

    def slot(self, token: str) -> Value | None:
        if token in self.inputs:
            return self.inputs[token]
        if token[0] == "R" and token[1:].isdigit() and int(token[1:]) <= len(self.results):
            return self.results[int(token[1:]) - 1]
        return None

    def argument(self, tool: str, place: int, token: str) -> Value | None:
        kind = TYPES[tool][0][place]
        value = self.slot(token)
        for constant in (False, True) if kind is bool else get_args(kind):
            if repr(constant) == token:
                value = constant
        return value if value is not None and takes(kind, value) else None

    def press(self, token: str) -> bool:
        """Whether it had an effect."""
        if self.over:
            return False
        if token == "EOS":
            self.over, self.under_way = True, None
            return True
        if self.under_way is None:
            if token != "ANS" and (token not in self.tools or len(self.results) == CALLS):
                return False
            self.under_way = (token, [])
        else:
            tool, given = self.under_way
            value = self.slot(token) if tool == "ANS" else self.argument(tool, len(given), token)
            if value is None:
                return False
            given.append(value)
        tool, given = self.under_way
        if tool == "ANS" and given:
            self.answer, self.over, self.under_way = given[0], True, None
        elif tool != "ANS" and len(given) == len(TYPES[tool][0]):
            self.under_way = None
            self.call(tool, given)
        return True

    def call(self, tool: str, given: list[Value]) -> None:
        kinds, returned = TYPES[tool]
        try:
            result = POOL[tool](*(float(v) if k is float else v for k, v in zip(kinds, given, strict=True)))
            self.failed = not takes(returned, result) or self.shown(result) is None
        except ValueError:
            self.failed = True
        if self.failed:
            self.last = None
        else:
            self.last = result
            self.results.append(result)

    @staticmethod
    def shown(value: Value) -> list[str] | None:
        if isinstance(value, (bool, str)):
            return [repr(value), *["EOS"] * (1 + DIGITS)]
        if isinstance(value, float):
            text = f"{abs(value):.{DECIMALS}f}".replace(".", "").lstrip("0") or "0"
            sign = "-" if value < 0 and text != "0" else "EOS"
        else:
            text, sign = str(abs(value)), "-" if value < 0 else "EOS"
        if len(text) > DIGITS:
            return None
        return ["FLOAT" if isinstance(value, float) else "INT", sign, *["EOS"] * (DIGITS - len(text)), *text]

    @property
    def feedback(self) -> list[str]:
        if self.under_way is None and self.failed:
            return ["ERROR", *["EOS"] * (1 + DIGITS)]
        if self.under_way is None and self.last is not None:
            return self.shown(self.last) or []
        return ["EOS"] * (2 + DIGITS)

    @property
    def success(self) -> bool:
        return self.answer is not None and same(self.answer, self.target)


def same(a: Value, b: Value) -> bool:
    if isinstance(a, (bool, str)) or isinstance(b, (bool, str)):
        return type(a) is type(b) and a == b
    return f"{a:.{DECIMALS}f}" == f"{b:.{DECIMALS}f}"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[str], ToolTask]:
    tools = draw(st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=4, unique=True))
    names = draw(st.lists(st.sampled_from(sorted(INPUTS)), min_size=1, max_size=3, unique=True))
    extra = draw(st.lists(st.sampled_from(sorted(INPUTS)), min_size=1, max_size=2, unique=True))
    wanted = draw(st.sampled_from(["first", 7, 2.5, True]))
    # Symbols are known if an input or a tool has them, and a target must be known.
    if wanted is True and not ({"flag"} & {*names, *extra} or {"choose", "even"} & {*tools}):
        wanted = 7

    def target(problem: dict[str, Value]) -> Value:
        return next(iter(problem.values())) if wanted == "first" else wanted

    functions = [POOL[name] for name in tools]
    by_stage = {
        "one": {name: INPUTS[name] for name in names},
        "two": {name: INPUTS[name] for name in extra},
    }
    try:
        return tools, ToolTask(functions, by_stage, target, calls=CALLS, digits=DIGITS, decimals=DECIMALS)
    except mn.UserError:  # of so few problems, all may be held out
        reject()


def everything(task: ToolTask) -> Any:
    parts = [part for stage in range(len(task.spec.stages)) for part in task.enumerate(stage)]
    return type(parts[0]).cat(parts)


def likely(task: ToolTask, slow: Slow, chance: random.Random) -> str:
    """A token that is due more often than not."""
    names = task.spec.vocabulary
    if chance.random() < 0.2:
        return chance.choice(names)
    if slow.under_way is None:
        return chance.choice([*slow.tools, *slow.tools, *slow.tools, "ANS"])
    return chance.choice([*slow.inputs, *(f"R{k + 1}" for k in range(CALLS)), *(n for n in names if n[0] in "'TF12-")])


@pytest.mark.filterwarnings("ignore:tool careless:RuntimeWarning")
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_episodes_are_those_of_the_interpreter(data: st.DataObject, seed: int) -> None:
    tools, task = data.draw(worlds())
    names, chance = task.spec.vocabulary, random.Random(seed)
    problems = everything(task)
    state = task.begin(problems)
    slow = [Slow(tools, record["inputs"], record["target"]) for record in task.records(problems, state)]
    won = [False] * len(slow)
    assert task.feedback(state).tolist() == [[names.index(t) for t in s.feedback] for s in slow]
    for _ in range(task.spec.horizon + 2):
        tokens = [likely(task, s, chance) for s in slow]
        was_over = [s.over for s in slow]
        valid = [s.press(token) for s, token in zip(slow, tokens, strict=True)]
        step = task.step(state, torch.tensor([names.index(token) for token in tokens]))
        state = step.state
        assert step.done.tolist() == [s.over for s in slow]
        assert step.invalid.tolist() == [not v and not o for v, o in zip(valid, was_over, strict=True)]
        assert step.success.tolist() == [s.success and not o for s, o in zip(slow, was_over, strict=True)]
        assert torch.equal(step.reward, step.success.float())
        assert [[names[t] for t in row] for row in step.feedback.tolist()] == [s.feedback for s in slow]
        won = [w or x for w, x in zip(won, step.success.tolist(), strict=True)]
        shown = task.registers(state, 0)
        assert [shown[f"R{k + 1}"] for k in range(len(slow[0].results))] == [str(v) for v in slow[0].results]
    assert won == [s.success for s in slow]
    rounded = [round(s.answer, DECIMALS) if isinstance(s.answer, float) else s.answer for s in slow]
    assert [record["answer"] for record in task.records(problems, state)] == rounded


def programs(tools: list[str], inputs: dict[str, Value]) -> Iterator[list[str]]:
    """All programs of up to CALLS calls, whatever they do."""
    for calls in range(CALLS + 1):
        for chosen in itertools.product(tools, repeat=calls):
            places = []
            for k, tool in enumerate(chosen):
                for kind in TYPES[tool][0]:
                    constants = (False, True) if kind is bool else get_args(kind)
                    places.append([*inputs, *(f"R{i + 1}" for i in range(k)), *map(repr, constants)])
            for arguments in itertools.product(*places):
                rest, tokens = iter(arguments), []
                for tool in chosen:
                    tokens += [tool, *(next(rest) for _ in TYPES[tool][0])]
                for answer in (*inputs, *(f"R{i + 1}" for i in range(calls))):
                    yield [*tokens, "ANS", answer]


@pytest.mark.filterwarnings("ignore:tool careless:RuntimeWarning")
@given(
    tools=st.lists(st.sampled_from(sorted(POOL.keys() - {"choose"})), min_size=1, max_size=3, unique=True),
    names=st.lists(st.sampled_from(["x", "y", "r"]), min_size=1, max_size=2, unique=True),
    wanted=st.sampled_from([0, 1, 4, 7, 10, 16, 2.5, 0.8]),
)
def test_the_oracle_solves_what_any_program_solves(tools: list[str], names: list[str], wanted: Value) -> None:
    """Against all programs: it solves the same problems, and by one program, the shortest, if one solves all."""
    listed = [dict(zip(names, c, strict=True)) for c in itertools.product(*(INPUTS[name][:3] for name in names))]

    def solves(program: list[str], inputs: dict[str, Value]) -> bool:
        slow = Slow(tools, inputs, wanted)
        for token in program:
            slow.press(token)
        return slow.success

    whole = list(programs(tools, listed[0]))
    solvable = [inputs for inputs in listed if any(solves(program, inputs) for program in whole)]
    universal = [len(program) for program in whole if all(solves(program, inputs) for inputs in solvable)]

    def task_of(problems: list[dict[str, Value]]) -> ToolTask:
        functions = [POOL[name] for name in tools]
        # With solvable problems to learn from, or the training split may be empty.
        return ToolTask(functions, problems, lambda problem: wanted, calls=CALLS, digits=DIGITS, decimals=DECIMALS)

    try:
        task, everything_listed = task_of(solvable) if solvable else None, task_of(listed)
    except mn.UserError:  # of so few problems, all may be held out
        reject()
    if task is not None:
        found = task.oracle(everything(task))
        check_task(task, samples=16)
        # A program with more calls is not looked for where fewer calls solve everything.
        if universal and min(universal) == int(program_length(found, task.spec.end).min()):
            assert len(found.unique(dim=0)) == 1
            assert program_length(found, task.spec.end).tolist() == [min(universal)] * len(found)
    if len(solvable) < len(listed):
        missing = len(listed) - len(solvable)
        with pytest.raises(mn.UserError, match=f"target: {missing} of {len(listed)} problems of stage 'T0' cannot"):
            everything_listed.oracle(everything(everything_listed))


# A task as one writes it


def celsius(f: int) -> int:
    """Fahrenheit to Celsius, rounded."""
    return round((f - 32) * 5 / 9)


def metres(feet: int) -> int:
    return round(feet * 0.3048)


def two_stages(**options: Any) -> ToolTask:
    return ToolTask(
        tools=[celsius, metres, plus],
        problems={"one": {"f": range(100)}, "two": {"f": range(60, 90), "feet": range(40, 60)}},
        target={
            "one": lambda problem: celsius(problem["f"]),
            "two": lambda problem: celsius(problem["f"]) + metres(problem["feet"]),
        },
        **options,
    )


def program(task: ToolTask, text: str, stage: int) -> str:
    tokens = task.oracle(task.parse(stage, text))[0].tolist()
    return " ".join(task.spec.vocabulary[t] for t in tokens if t != task.spec.end)


def test_a_worked_episode() -> None:
    task = two_stages(digits=3)
    names = task.spec.vocabulary
    assert task.spec.stages == ("one", "two")
    problems = task.parse(1, "f=70 feet=50")
    assert [names[t] for t in problems.context[0]] == ["?two", "f", "EOS", "7", "0", "feet", "EOS", "5", "0"]
    assert task.render(problems, 0) == "two: f=70 feet=50"
    state = task.begin(problems)
    seen = []
    for token in ("celsius", "f", "metres", "R2", "feet", "plus", "R1", "R2", "celsius", "ANS", "R3"):
        step = task.step(state, torch.tensor([names.index(token)]))
        state = step.state
        seen.append((token, bool(step.invalid[0]), task.registers(state, 0)["display"]))
    assert seen == [
        ("celsius", False, ""),
        ("f", False, "21"),
        ("metres", False, ""),
        ("R2", True, ""),
        ("feet", False, "15"),
        ("plus", False, ""),
        ("R1", False, ""),
        ("R2", False, "36"),
        ("celsius", True, "36"),
        ("ANS", False, ""),
        ("R3", False, "36"),
    ]
    assert bool(step.success[0])
    assert task.records(problems, state) == [
        {"problem": "f=70 feet=50", "inputs": {"f": 70, "feet": 50}, "answer": 36, "target": 36}
    ]
    assert task.registers(task.step(task.begin(problems), torch.tensor([names.index("plus")])).state, 0) == {
        **dict.fromkeys(("R1", "R2", "R3", "display"), ""),
        "f": "70",
        "feet": "50",
        "call": "plus",
    }


def test_the_contract_holds() -> None:
    check_task(two_stages())


@pytest.mark.parametrize("stage", [0, 1])
def test_a_wide_toolset_fulfils_the_contract(stage: int) -> None:
    tools = [f for name, f in POOL.items() if name not in ("careless", "choose")]
    inputs = [
        {"x": range(-9, 30), "word": ["small", "large"]},
        {"x": range(30), "r": [0.5, 1.5], "flag": [True, False]},
    ]
    check_task(ToolTask(tools, inputs[stage], lambda problem: problem["x"] * 10, digits=5))


OTHER = ["metres", "feet", "celsius", "f", "plus", "R2", "R1", "ANS", "R3"]


def test_the_shortest_program_is_found_or_given() -> None:
    assert program(two_stages(), "f=70 feet=50", 1) == "celsius f metres feet plus R1 R2 ANS R3"
    assert program(two_stages(), "f=70", 0) == "celsius f ANS R1"
    told = {"one": "celsius f ANS R1", "two": lambda problem: OTHER}
    task = two_stages(solve=told)
    assert program(task, "f=70 feet=50", 1).split() == OTHER
    check_task(task)
    assert not any(call[0] == 2 for call in two_stages().interpreter.calls._by_ids), (
        "nothing is called before somebody asks"
    )


def test_a_given_program_that_is_wrong_is_caught_by_the_check() -> None:
    with pytest.raises(AssertionError, match=r"oracle: fails on .* of one, such as 'one: f="):
        check_task(two_stages(solve={"one": "celsius f ANS f", "two": "plus f feet ANS R1"}))


def test_keys_and_splits_depend_on_the_content_alone() -> None:
    small = ToolTask([celsius], {"f": range(50)}, lambda problem: celsius(problem["f"]))
    large = ToolTask([plus, celsius], {"f": range(100)}, lambda problem: celsius(problem["f"]))
    assert small.listed.keys() == large.listed.keys()[:50]
    held = in_split(torch.tensor(large.listed.keys()), "heldout")
    assert 5 < int(held.sum()) < 40
    assert large.count(0, "heldout") == int(held.sum())
    assert len(set(two_stages().listed.keys())) == 100 + 30 * 20


def test_the_same_problem_is_listed_once() -> None:
    task = ToolTask(
        [celsius], [{"f": 1}, {"f": 2}, {"f": 1}, *({"f": i} for i in range(40))], lambda problem: problem["f"]
    )
    assert task.count(0) == 40


def test_a_stage_of_floats_compares_them_as_shown() -> None:
    def third(x: float) -> float:
        return x / 3

    task = ToolTask([third], {"x": [0, 0.5, 1, 2, 4, 5, 7]}, lambda problem: round(problem["x"] / 3, 2), decimals=2)
    check_task(task)
    problems = task.parse(0, "2.0")
    state = task.begin(problems)
    for token in ("third", "x", "ANS", "R1"):
        state = task.step(state, torch.tensor([task.spec.vocabulary.index(token)])).state
    assert task.records(problems, state) == [{"problem": "x=2.0", "inputs": {"x": 2.0}, "answer": 0.67, "target": 0.67}]


def test_decimals_are_those_that_are_written() -> None:
    alphabet = two_stages().vocabulary
    assert [alphabet.scaled(k / 100) for k in range(-2000, 2000)] == list(range(-2000, 2000))
    assert (alphabet.scaled(3), alphabet.scaled(10**30)) == (300, 10**32)


def test_each_function_is_called_once_for_each_tuple_of_arguments() -> None:
    seen: list[tuple[int, int]] = []

    def minus(a: int, b: int) -> int:
        seen.append((a, b))
        return a - b

    task = ToolTask([minus], {"x": range(10), "y": range(10)}, lambda problem: problem["x"] - problem["y"])
    generator = torch.Generator().manual_seed(0)
    play = EpisodeLoop(task, 256, generator)
    for _ in range(100):
        play.advance()
    task.oracle(everything(task))
    assert len(seen) == len(set(seen)) >= 90


def test_a_tool_over_tensors_is_called_with_whole_batches() -> None:
    sizes: list[int] = []

    @mn.tool(batched=True)
    def twice(x: int) -> int:
        sizes.append(len(x))  # type: ignore[arg-type]
        return 2 * x

    task = ToolTask([twice], {"x": range(50)}, lambda problem: 4 * problem["x"])
    assert program(task, "3", 0) == "twice x twice R1 ANS R2"
    assert max(sizes) > 20
    check_task(task)


def test_ids_differ_between_two_tasks_and_nothing_else_does() -> None:
    """Values are numbered as they come up, which depends on who plays what first: only ids may show it."""
    first, second = two_stages(), two_stages()
    first.oracle(everything(first))
    problems = first.sample(torch.arange(512) % 2, torch.Generator().manual_seed(1))
    states = [task.begin(problems) for task in (first, second)]
    generator = torch.Generator().manual_seed(2)
    for _ in range(first.spec.horizon):
        action = torch.randint(len(first.spec.vocabulary), (512,), generator=generator)
        steps = [task.step(state, action) for task, state in zip((first, second), states, strict=True)]
        states = [step.state for step in steps]
        for field in ("feedback", "reward", "done", "success", "invalid"):
            assert torch.equal(getattr(steps[0], field), getattr(steps[1], field))
    assert first.records(problems, states[0]) == second.records(problems, states[1])


# Bad input


def fails(problem: dict[str, Value]) -> Value:
    raise KeyError("feet")


GOOD: dict[str, Any] = {
    "tools": [celsius],
    "problems": {"f": range(50)},
    "target": lambda problem: celsius(problem["f"]),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": []}, "tools: .* expected a list of at least one function"),
        ({"tools": celsius}, "tools: .* expected a list of at least one function"),
        ({"tools": [celsius, celsius]}, "different names; 'celsius' occurs twice"),
        ({"problems": []}, "problems: .* expected at least one problem, such as problems={'easy'"),
        ({"problems": {}}, "expected at least one problem"),
        ({"problems": {"f": []}}, "at least one problem in every stage"),
        ({"problems": {"one": {"f": range(9)}, "f": range(9)}}, "either inputs with their values, or stages"),
        ({"problems": {"f": 3}}, "problems: f: 3 is not allowed; expected values to choose from"),
        ({"problems": {"f": "abc"}}, "problems: f: 'abc' is not allowed; expected values to choose from"),
        ({"problems": {"f": itertools.count()}}, "problems: f: .* at most 1000000"),
        ({"problems": {"f": range(2000), "g": range(2000)}}, "4000000 combinations.* at most 1000000"),
        ({"problems": [{"f": 1}, 3]}, "problems: T0: 3 is not allowed; expected a dictionary of inputs"),
        ({"problems": {"f": [1, None]}}, "problems: T0: an input is not allowed: None is not int, float, bool or str"),
        ({"problems": {"f": [1, "a"]}}, "problems: input f: 'int and str' is not allowed; expected values of one type"),
        (
            {"problems": {"a b": range(9)}, "target": lambda p: 1},
            "an input: 'a b' is not allowed; expected a name that is a valid identifier",
        ),
        ({"problems": {"R1": range(9)}, "target": lambda p: 1}, "a result: 'R1' is .* already the name of an input"),
        (
            {"problems": {"celsius": range(9)}, "target": lambda p: 1},
            "a tool: 'celsius' is .* already the name of an input",
        ),
        ({"problems": {"ANS": range(9)}, "target": lambda p: 1}, "an input: 'ANS' is .* the name of a sign"),
        ({"target": fails}, "target: for f=0 of stage 'T0' it raised KeyError: 'feet'"),
        ({"target": 3}, "target: 3 is not allowed; expected a function from a problem"),
        ({"target": lambda p: None}, "target: for f=0 of stage 'T0' it is not allowed: None is not int"),
        ({"target": lambda p: float("nan")}, "target: for f=0 of stage 'T0' it is not allowed: nan is not finite"),
        (
            {"target": lambda p: "hot"},
            "target: for f=0: 'hot' is not allowed; expected a string that a tool may return",
        ),
        ({"target": lambda p: 10**7}, "target: for f=0: 10000000 is not allowed; expected at most 6 digits"),
        ({"target": {"T1": celsius}}, "target: stage: unknown value 'T1'"),
        ({"target": {}}, "every stage, 'T0' too"),
        ({"calls": 0}, "calls: 0 is not allowed; expected a whole number from 1"),
        ({"calls": 2.5}, "calls: 2.5 is not allowed"),
        ({"digits": 0}, "digits: 0 is not allowed"),
        ({"decimals": -1}, "decimals: -1 is not allowed"),
        ({"tools": [choose], "calls": 20}, "calls: 20 is not allowed; expected episodes of at most 64 tokens"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(mn.UserError, match=message):
        ToolTask(**{**GOOD, **changes})


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        ("celcius f ANS R1", "solve: token: unknown value 'celcius'; did you mean 'celsius'"),
        (3, "solve: 3 is not allowed; expected a program"),
        ("", "solve: '' is not allowed"),
        (fails, "solve: for f=0 of stage 'T0' it raised KeyError"),
        (lambda problem: ["celsius"] * 20, "expected 1 to 8 tokens"),
    ],
)
def test_a_program_that_is_none(solve: Any, message: str) -> None:
    task = ToolTask(**GOOD, solve=solve)
    with pytest.raises(mn.UserError, match=message):
        task.oracle(everything(task))


def test_targets_that_nobody_can_reach_are_named() -> None:
    task = ToolTask(
        [celsius], {"f": range(50)}, lambda problem: 500 if problem["f"] in (7, 9) else celsius(problem["f"])
    )
    for _ in range(2):
        with pytest.raises(
            mn.UserError, match=r"2 of 50 .* such as f=7 \(target 500\), f=9 .* no program of up to 3 calls"
        ):
            task.oracle(everything(task))


def test_a_search_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnative.tasks.tools.search.BUDGET", 5)
    task = ToolTask([plus, picky], {"x": range(50)}, lambda problem: 5 * problem["x"] + 7)
    with pytest.raises(mn.UserError, match="the search for a program gave up; give the programs with `solve`"):
        task.oracle(everything(task))


def test_other_problems_are_no_problems() -> None:
    task = two_stages()
    assert task.render(task.parse(1, "70, 50"), 0) == "two: f=70 feet=50"
    with pytest.raises(
        mn.UserError, match=r"problem: 'f=100' is not allowed; expected one of the 100 problems of .* 'f=0'"
    ):
        task.parse(0, "f=100")


def test_a_split_may_be_empty() -> None:
    listed = [{"f": i} for i in range(60)]
    keys = ToolTask([celsius], listed, lambda problem: problem["f"]).listed.keys()
    training = [p for p, held in zip(listed, in_split(torch.tensor(keys), "heldout").tolist(), strict=True) if not held]
    held_out = [p for p in listed if p not in training]
    task = ToolTask([celsius], training, lambda problem: problem["f"])
    assert list(task.enumerate(0, "heldout")) == []
    with pytest.raises(mn.UserError, match="split: 'heldout' has no problem of stage 'T0'"):
        task.sample(torch.tensor([0]), torch.Generator(), "heldout")
    check_task(task)
    with pytest.raises(mn.UserError, match="more problems in this stage: all are held out"):
        ToolTask([celsius], held_out, lambda problem: problem["f"])
