from __future__ import annotations

import itertools
from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import program_length
from modelnative.tasks.countdown.solver import LIMIT, OPERATORS, solve
from modelnative.tasks.countdown.task import Countdown, CountdownProblems


def outcome(a: int, operator: str, b: int) -> int | None:
    """The result of an operation, None where the rules forbid it."""
    if operator == "/":
        return a // b if a % b == 0 else None
    result = a + b if operator == "+" else a - b if operator == "-" else a * b
    return result if 1 <= result <= LIMIT else None


@cache
def trees(numbers: tuple[int, ...], operators: str) -> Counter[int]:
    """How many expressions of all the numbers have each value: by splitting the numbers in two in every way."""
    if len(numbers) == 1:
        return Counter(numbers)
    first, *others = range(len(numbers))
    found: Counter[int] = Counter()
    for size in range(len(others)):
        for chosen in itertools.combinations(others, size):
            left = trees(tuple(numbers[i] for i in (first, *chosen)), operators)
            right = trees(tuple(numbers[i] for i in others if i not in chosen), operators)
            for (a, m), (b, n), operator in itertools.product(left.items(), right.items(), operators):
                results = {outcome(a, operator, b)} if operator in "+*" else set()
                if operator in "-/":
                    results = {outcome(a, operator, b), outcome(b, operator, a)}  # one of them, or 1 twice
                for result in results - {None}:
                    found[result] += m * n
    return found


@given(
    st.lists(st.integers(1, 12) | st.integers(1, 99), min_size=2, max_size=4),
    st.sets(st.sampled_from(OPERATORS), min_size=1),
)
def test_what_is_reached_and_in_how_many_ways(numbers: list[int], chosen: set[str]) -> None:
    operators = "".join(chosen)
    batch = torch.tensor([numbers, sorted(numbers), [1] * len(numbers)])
    reached = solve(batch, operators)
    for row, ways in zip(batch.tolist(), reached.ways.tolist(), strict=True):
        assert {v: w for v, w in enumerate(ways) if w} == trees(tuple(row), operators)
    rows, values = reached.ways.nonzero(as_tuple=True)
    for row, value, steps in zip(rows.tolist(), values.tolist(), reached.programs(rows, values).tolist(), strict=True):
        slots: list[int | None] = list(batch[row].tolist())
        for left, operator, right in steps:
            a, b = slots[left], slots[right]
            assert a is not None
            assert b is not None
            assert left != right
            assert OPERATORS[operator] in operators
            slots[left] = slots[right] = None
            slots.append(outcome(a, OPERATORS[operator], b))
        assert [slot for slot in slots if slot is not None] == [value]


def test_six_numbers() -> None:
    numbers = torch.tensor([[1, 2, 3, 4, 5, 6], [3, 6, 25, 50, 75, 99]])
    reached = solve(numbers, "+-*/")
    assert {v: w for v, w in enumerate(reached.ways[0].tolist()) if w} == trees((1, 2, 3, 4, 5, 6), "+-*/")
    rows, values = reached.ways.nonzero(as_tuple=True)
    slots = torch.cat([numbers[rows], torch.zeros(len(rows), 5, dtype=torch.int64)], 1)
    for k, step in enumerate(reached.programs(rows, values).unbind(1)):
        a, b = slots.gather(1, step[:, :1])[:, 0], slots.gather(1, step[:, 2:])[:, 0]
        assert bool((a > 0).all() and (b > 0).all())
        slots.scatter_(1, step[:, ::2], 0)
        options = torch.stack([a + b, a - b, a * b, torch.where(a % b == 0, a // b, 0)], 1)
        result = options.gather(1, step[:, 1:2])[:, 0]
        assert bool(((result >= 1) & (result <= LIMIT)).all())
        slots[:, 6 + k] = result
    assert torch.equal(slots[:, -1], values)
    assert not bool(slots[:, :-1].any())


# Episodes


class Reference:
    """The rules for one episode, one key at a time, in plain Python."""

    def __init__(self, numbers: list[int], target: int, searches: bool = False) -> None:
        self.target, self.searches, self.display = target, searches, 0
        self.slots = dict(zip("ABCDEF", numbers, strict=False))
        self.before: list[dict[str, int]] = []  # the slots before each operation that stands
        self.tried: list[set[str]] = [set()]
        self.slips = 0
        self.done = self.success = self.invalid = False
        self.answer: int | None = None

    @property
    def rest(self) -> str:
        return str(self.target - self.display) if self.display else ""

    def press(self, key: str) -> None:
        self.success, self.invalid, without_effect = False, False, False
        if self.done:
            return
        if key in ("ANS", "EOS"):
            self.done = True
            if key == "ANS" and len(self.slots) == 1:
                self.answer = self.slots["A"]
                self.success = self.answer == self.target
        elif key[1:2] and key[1] in OPERATORS:
            low, high = sorted(self.slots.get(slot, 0) for slot in (key[0], key[2]))
            again = self.searches and key in self.tried[-1]
            result = outcome(high, key[1], low) if low and not again else None
            without_effect = result is None and (again or not self.searches)
            self.tried[-1].add(key)
            if result is not None:
                self.before.append(dict(self.slots))
                self.tried.append(set())
                del self.slots[key[2]]
                self.slots[key[0]] = self.display = result
        elif key == "BACK" and self.before:
            self.slots, self.display = self.before.pop(), 0
            self.tried.pop()
        else:
            without_effect = True
        self.invalid = without_effect and not self.searches
        self.slips += without_effect and self.searches
        self.done = self.done or self.slips == 16


DIALS: list[dict[str, object]] = [
    {},
    {"numbers": 3, "largest": 99, "targets": 999, "operators": "*/", "solutions": 100},
    {"numbers": 5, "largest": 6, "operators": "-+", "solutions": 1000},
    {"numbers": 6, "largest": 4, "targets": 50, "solutions": 5000},
    {"numbers": 4, "tries": 3, "operators": "+-*"},
    {"numbers": 3, "targets": 999, "tries": 2, "feedback": "tried"},
    {"numbers": 5, "largest": 6, "solutions": 1000, "tries": 4, "feedback": "tried"},
    {"numbers": 4, "operators": "*+", "feedback": "board"},
    {"numbers": 3, "largest": 30, "tries": 5, "feedback": "board"},
]


def spelled(value: int, blank: int) -> list[int]:
    return [*map(int, f"{value:03d}")] if value else [blank] * 3


@pytest.mark.parametrize("options", DIALS)
def test_keys_against_the_reference(options: dict[str, object]) -> None:
    task = Countdown(**options)
    names, n = task.spec.vocabulary, 300
    generator = torch.Generator().manual_seed(0)
    problems = task.sample(torch.arange(n) % len(task.spec.stages), generator)
    references = [
        Reference([x for x in numbers if x], target, task.tries > 1)
        for numbers, target in zip(problems.numbers.tolist(), problems.target.tolist(), strict=True)
    ]
    assert [sum(1 for x in row if x) for row in problems.numbers.tolist()] == (problems.stage + 3).tolist()
    state, plan, successes, computed, refused = task.begin(problems), task.oracle(problems), 0, 0, 0
    for t in range(40):
        action = torch.randint(10, len(names), (n,), generator=generator)
        ends = (action == task.ans) | (action == task.eos)
        action = torch.where(ends & (torch.rand(n, generator=generator) < 0.8), 3, action)
        if t < task.most:  # a third of the episodes go as they should
            action = torch.where(torch.arange(n) < 100, plan[:, t], action)
        if task.tries > 1:  # as does this, once all was taken back, unless that was begun with before
            undoes = torch.tensor(10 <= t < 14).expand(n) | (torch.rand(n, generator=generator) < 0.3)
            action = torch.where(torch.arange(n) >= 200, torch.where(undoes, task.undo, action), action)
            if 14 <= t < 14 + task.most:
                action = torch.where(torch.arange(n) >= 200, plan[:, t - 14], action)
        step = task.step(state, action)
        state = step.state
        for i, (reference, key) in enumerate(zip(references, action.tolist(), strict=True)):
            made, running = len(reference.before), not reference.done
            reference.press(names[key])
            computed += len(reference.before) > made
            refused += running and names[key][1:2] in OPERATORS and len(reference.before) == made
            registers = task.registers(state, i)
            slots = {name: registers.pop(name) for name in "ABCDEF"[: task.most]}
            assert {name: int(value) for name, value in slots.items() if value} == reference.slots
            expected = {"display": str(reference.display or "")}
            if task.shown != "last":
                expected["rest"] = reference.rest
            if task.shown == "tried":
                expected["tried"] = " ".join(key for key in names if key in reference.tried[-1])
            assert registers == expected
        shown = []
        for reference in references:
            shown.append(spelled(reference.display, task.eos))
            if task.shown != "last":
                sign = names.index("-") if reference.rest.startswith("-") else task.eos
                digits = map(int, reference.rest.lstrip("-").rjust(3, "0"))
                shown[-1] += [sign, *digits] if reference.rest else [task.eos] * 4
                for slot in "ABCDEF"[: task.most]:
                    shown[-1] += spelled(reference.slots.get(slot, 0), task.eos)
            if task.shown == "tried":
                keys = [key for key in names if key[1:2] and key[1] in OPERATORS]
                shown[-1] += [names.index(key) if key in reference.tried[-1] else task.eos for key in keys]
                shown[-1] += map(int, f"{reference.slips:02d}")
        assert step.feedback.tolist() == shown
        assert step.invalid.tolist() == [r.invalid for r in references]
        assert step.success.tolist() == [r.success for r in references]
        assert step.reward.tolist() == [float(r.success) for r in references]
        assert step.done.tolist() == [r.done for r in references]
        successes += sum(r.success for r in references)
    assert successes >= (100 if task.tries == 1 else 150)
    assert computed > 250
    assert refused > 50
    for record, reference in zip(task.records(problems, state), references, strict=True):
        assert (record["answer"], record["target"]) == (reference.answer, reference.target)


@pytest.mark.parametrize("options", DIALS)
def test_the_solution_in_a_record_can_be_replayed(options: dict[str, object]) -> None:
    task = Countdown(**options)
    problems = task.sample(torch.arange(100) % len(task.spec.stages), torch.Generator().manual_seed(2), "heldout")
    for record in task.records(problems, task.begin(problems)):
        reference = Reference(record["numbers"], record["target"])
        for key in record["solution"]:
            reference.press(key)
            assert not reference.invalid
        assert reference.success
        assert record["answer"] is None


def test_no_success_is_shorter_than_the_oracle_s() -> None:
    """Exhaustive search over all keys, from several problems of the first stage."""
    task = Countdown()
    problems = task.sample(torch.zeros(20, dtype=torch.int64), torch.Generator().manual_seed(0))
    assert program_length(task.oracle(problems), task.eos).tolist() == [3] * 20
    keys = torch.arange(10, task.eos)
    state, owner = task.begin(problems), torch.arange(20)
    for length in range(1, 4):
        state = state[torch.arange(len(state)).repeat_interleave(len(keys))]
        owner = owner.repeat_interleave(len(keys))
        step = task.step(state, keys.repeat(len(owner) // len(keys)))
        assert bool(step.success.any()) == (length == 3)
        if length == 3:
            assert owner[step.success].unique().tolist() == list(range(20))
        going = ~step.invalid & ~step.done
        state, owner = step.state[going], owner[going]


def test_division_by_multiplication_is_exact() -> None:
    task = Countdown()
    reciprocal = task.tables(torch.device("cpu")).reciprocal
    a, b = torch.arange(1, LIMIT + 1)[:, None], torch.arange(1, LIMIT + 1)
    assert torch.equal(a * reciprocal[1:] >> 20, a // b)


# Problems


@pytest.mark.parametrize(
    "options",
    [*DIALS, {"operators": "+"}, {"numbers": 3, "operators": "-", "largest": 30}, {"largest": 60, "targets": 120}],
)
def test_contract(options: dict[str, object]) -> None:
    task = Countdown(**options)
    assert task.spec == Countdown(**task.options()).spec
    check_task(task, limit=20_000)


@pytest.mark.parametrize(
    "options",
    [{"numbers": 3}, {"largest": 5, "operators": "-*+", "solutions": 3}, {"largest": 12, "targets": 10, "numbers": 3}],
)
def test_the_problems_are_all_that_can_be_solved(options: dict[str, object]) -> None:
    task = Countdown(**options)
    for stage in range(len(task.spec.stages)):
        wanted = {
            (numbers, target)
            for numbers in itertools.combinations_with_replacement(range(1, task.space.largest + 1), stage + 3)
            for target, ways in trees(numbers, task.operators).items()
            if target <= task.space.targets and target not in numbers and ways <= task.space.solutions
        }
        chunks = list(task.enumerate(stage, chunk=100))
        assert all(len(chunk) == 100 for chunk in chunks[:-1])
        problems = CountdownProblems.cat(chunks)
        found = list(zip(problems.numbers.tolist(), problems.target.tolist(), strict=True))
        assert {(tuple(x for x in numbers if x), target) for numbers, target in found} == wanted
        assert len(found) == len(wanted) == task.count(stage)


def test_the_usual_stages() -> None:
    task = Countdown()
    assert task.spec.stages == ("C3", "C4")
    assert [task.count(stage) for stage in range(2)] == [1_925, 19_003]


def test_where_there_are_too_many_choices_some_stand_for_all() -> None:
    task = Countdown(numbers=3, largest=99, targets=999)
    problems = CountdownProblems.cat(list(task.enumerate(0)))
    choices = problems.numbers.unique(dim=0)
    assert 7_000 < len(choices) <= 8_192
    assert set(choices.flatten().tolist()) == set(range(1, 100))
    again = CountdownProblems.cat(list(Countdown(numbers=3, largest=99, targets=999).enumerate(0)))
    assert torch.equal(problems.key, again.key)


def test_the_context() -> None:
    task = Countdown(largest=12, targets=150)
    for stage, text, context in (
        (0, "12 3 7 = 57", "0 5 7 CTX 0 3 0 7 1 2 EOS EOS"),
        (1, "1 2 3 10 = 63", "0 6 3 CTX 0 1 0 2 0 3 1 0"),
    ):
        problem = task.parse(stage, text)
        assert " ".join(task.spec.vocabulary[token] for token in problem.context[0]) == context
    assert [task.spec.position_name(i) for i in range(8)] == ["target"] * 3 + ["CTX", *"AABB"]


def test_samples_are_uniform() -> None:
    task, n = Countdown(), 200_000
    problems = task.sample(torch.zeros(n, dtype=torch.int64), torch.Generator().manual_seed(0))
    counts = problems.key.unique(return_counts=True)[1]
    size = task.count(0, "train")
    assert len(counts) == size
    chi = float(((counts - n / size) ** 2 / (n / size)).sum())
    assert abs(chi - (size - 1)) < 5 * (2 * (size - 1)) ** 0.5


def test_no_constant_program_solves_a_stage() -> None:
    """Exact search over all orders of operations of three numbers; its results are in the docstring of the class."""
    task = Countdown()
    problems = CountdownProblems.cat(list(task.enumerate(0)))
    numbers = problems.numbers[:, :3].tolist()
    best = 0.0
    for i, j in itertools.combinations(range(3), 2):
        for one, two in itertools.product(OPERATORS, repeat=2):
            solved = 0
            for row, target in zip(numbers, problems.target.tolist(), strict=True):
                result = outcome(max(row[i], row[j]), one, min(row[i], row[j]))
                rest = row[3 - i - j]
                if result is not None:
                    solved += target == outcome(max(rest, result), two, min(rest, result))
            best = max(best, solved / len(problems))
    assert best == pytest.approx(0.0857, abs=1e-4)


@pytest.mark.parametrize(
    "text", ["", "7", "3 4 5", "3 4 5 6", "3 4 5 6 7 8", "3 4 5 x = 30", "0 4 5 6 = 30", "3 4 5 10 = 30"]
)
def test_parse_says_what_is_expected(text: str) -> None:
    with pytest.raises(
        UserError, match=r"expected 4 numbers from 1 to 9 and a target for stage C4, such as '1 2 3 4 = 10'"
    ):
        Countdown().parse(1, text)


@pytest.mark.parametrize(
    "text", ["3 4 5 6 = 4", "1 1 1 1 = 9", "3 4 5 6 = 0", "9 9 9 9 = 999", "1 1 1 1 = 1025", "1 1 2 2 = 4"]
)
def test_parse_refuses_what_is_no_problem(text: str) -> None:
    with pytest.raises(UserError, match=r"problem: .* not among the numbers, that 1 to 20 expressions reach"):
        Countdown().parse(1, text)


def test_parse_and_render() -> None:
    task = Countdown(operators="+*-")
    problem = task.parse(0, "7, 2, 3 = 27")
    assert task.render(problem, 0) == "make 27 from 2 3 7, each used once, with + - *"
    assert (problem.numbers.tolist(), problem.target.tolist()) == ([[2, 3, 7, 0]], [27])
    assert " ".join(task.spec.vocabulary[t] for t in task.oracle(problem)[0]) == "A+C A*B ANS EOS"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": 2}, "numbers: 2 is not allowed; expected 3 to 6"),
        ({"numbers": 7}, "numbers: 7 is not allowed; expected 3 to 6"),
        ({"largest": 3}, "largest: 3 is not allowed; expected 4 to 99"),
        ({"targets": 1000}, "targets: 1000 is not allowed; expected 10 to 999"),
        ({"operators": ""}, r"operators: '' is not allowed; expected some of \+-\*/, each once"),
        ({"operators": "+^"}, "operators: '\\+\\^' is not allowed"),
        ({"operators": "++"}, "operators: '\\+\\+' is not allowed"),
        ({"tries": 0}, "tries: 0 is not allowed; expected 1 to 1000"),
        ({"tries": 1, "feedback": "tried"}, "tries: 1 is not allowed; expected 2 to 1000 with feedback=tried"),
        ({"feedback": "tired"}, "did you mean 'tried'"),
        ({"solutions": 0}, "solutions: 0 is not allowed; expected 1 to 1,000,000"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Countdown(**options)


def test_options_that_leave_no_problem() -> None:
    task = Countdown(numbers=3, largest=4, operators="/")
    assert task.count(0) == 1  # 4 / 2 / 2
    empty = "heldout" if task.count(0, "train") else "train"
    with pytest.raises(UserError, match=f"split: '{empty}' has no problem of stage 'C3'"):
        task.sample(torch.zeros(3, dtype=torch.int64), torch.Generator(), empty)
