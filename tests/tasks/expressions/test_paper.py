"""Expressions on paper: the sheet and its window against lists in plain Python, and the programs on every shape."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from modelnative.errors import UserError
from modelnative.tasks import make_task
from modelnative.tasks.calculator import LIMIT
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import program_length
from modelnative.tasks.expressions import trees
from modelnative.tasks.expressions.paper import VOCABULARY
from modelnative.tasks.expressions.task import Expressions, ExpressionState

OPERATORS = {"MUL": lambda a, b: a * b, "ADD": lambda a, b: a + b, "SUB": lambda a, b: a - b}
NAMES = {"*": "MUL", "+": "ADD", "-": "SUB"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Reference:
    """One sheet: items as dictionaries in a list, one of which is the value."""

    def __init__(self, text: str, cells: int, keys: int) -> None:
        self.items: list[dict[str, Any]] = []
        opens = 0
        for c in text:
            if c == "(":
                opens += 1
            elif c == ")":
                self.items[-1]["closes"] += 1
            elif c in NAMES:
                self.items[-1]["sign"] = NAMES[c]
            else:
                self.items.append({"kind": "NUM", "value": int(c), "opens": opens, "closes": 0, "sign": None})
                opens = 0
        self.cursor, self.cells, self.keys_left = 0, cells, keys
        self.pending: str | None = None
        self.answer: int | None = None

    @property
    def value(self) -> dict[str, Any] | None:
        return next((item for item in self.items if item["kind"] == "VAL"), None)

    def press(self, key: str) -> bool:
        """Whether it had an effect."""
        self.keys_left -= 1
        value = self.value
        aside = {"PREV": -1, "LEFT": -1, "NEXT": 1, "RIGHT": 1}.get(key, 0)
        place = self.cursor + aside
        if key in ("ANS", "EOS"):
            self.keys_left = 0
            if key == "ANS" and value is not None:
                self.answer = value["value"]
            return True
        if key in ("PREV", "NEXT"):
            if 0 <= place < len(self.items):
                self.cursor = place
                return True
            return False
        if key in OPERATORS:
            if value is None or self.pending:
                return False
            self.pending = key
            return True
        if key == "STO":
            if value is None or not self.cells:
                return False
            value["kind"], self.pending = "MEM", None
            self.cells -= 1
            return True
        if key in ("HERE", "LEFT", "RIGHT"):
            if not 0 <= place < len(self.items) or self.items[place]["kind"] not in ("NUM", "MEM"):
                return False
            return self.enter(place, value)
        return False

    def enter(self, place: int, value: dict[str, Any] | None) -> bool:
        item = self.items[place]
        result = OPERATORS[self.pending](value["value"], item["value"]) if self.pending else item["value"]
        if abs(result) >= LIMIT:
            return False
        self.cells += item["kind"] == "MEM"
        pending, self.pending = self.pending, None
        if pending and value is not None and abs(place - self.items.index(value)) == 1:
            left = min(place, self.items.index(value))
            a, b = self.items[left : left + 2]
            opens, closes = a["opens"] + b["opens"], a["closes"] + b["closes"]
            pairs = min(opens, closes)
            joined = {"opens": opens - pairs, "closes": closes - pairs, "sign": b["sign"]}
            self.items[left : left + 2] = [{"kind": "VAL", "value": result, **joined}]
            self.cursor = left
            return True
        if value is not None:
            value["kind"] = "LOST"
        item["kind"], item["value"], self.cursor = "VAL", result, place
        return True

    @property
    def window(self) -> list[str]:
        def look(place: int) -> list[str]:
            if not 0 <= place < len(self.items):
                return ["EOS", "EOS", "EOS"]
            item = self.items[place]
            bracket = "(" if item["opens"] else ")" if item["closes"] else "EOS"
            return [bracket, item["kind"], item["sign"] or "EOS"]

        return [word for place in range(self.cursor - 2, self.cursor + 2) for word in look(place)][2:]


def test_random_keys_against_the_reference() -> None:
    chance = random.Random(0)
    # Without ANS and EOS but rarely, and with what often has an effect.
    keys = [*VOCABULARY, *("HERE", "LEFT", "RIGHT", "MUL", "ADD", "SUB") * 5, *("STO", "PREV", "NEXT") * 3]
    keys = [key for key in keys if key not in ("ANS", "EOS")] * 3 + ["ANS", "EOS"]
    joined = 0
    for memories in (0, 1, 3):
        task = Expressions(operators=7, memories=memories, feedback="paper")
        problems = task.sample(torch.arange(140) % 7, seeded(memories))
        texts = [task.render(problems, i).removeprefix("compute ") for i in range(len(problems))]
        sizes = [int(stage) + 1 for stage in problems.stage]
        sheets = [Reference(text, memories or 1 + n // 3, 6 * n) for text, n in zip(texts, sizes, strict=True)]
        state = task.begin(problems)
        for _ in range(task.spec.horizon):
            assert [[VOCABULARY[token] for token in row] for row in task.feedback(state)] == [s.window for s in sheets]
            pressed = [chance.choice(keys) for _ in sheets]
            step = task.step(state, torch.tensor(task.spec.token_ids(pressed)))
            state = step.state
            for i, (sheet, key) in enumerate(zip(sheets, pressed, strict=True)):
                if sheet.keys_left == 0:
                    assert not bool(step.invalid[i] | step.success[i])
                    continue
                before = len(sheet.items)
                sheet.press(key)
                joined += len(sheet.items) < before
                value = sheet.value
                right = key == "ANS" and value is not None and value["value"] == int(problems.target[i])
                assert bool(step.success[i]) is right
                shown = task.registers(state, i)
                assert shown["display"] == ("" if value is None else str(value["value"]))
                assert (shown["pending"], shown["free cells"]) == (sheet.pending or "", str(sheet.cells))
                assert shown["keys left"] == str(sheet.keys_left)
            assert step.done.tolist() == [sheet.keys_left == 0 for sheet in sheets]
        assert [record["answer"] for record in task.records(problems, state)] == [sheet.answer for sheet in sheets]
    assert joined > 200


def plays(task: Expressions, problems: Any) -> torch.Tensor:
    """Play the programs; asserts that all succeed. Their lengths."""
    program = task.oracle(problems)
    length = program_length(program, task.spec.end)
    state: ExpressionState = task.begin(problems)
    right = torch.zeros(len(problems), dtype=torch.bool)
    for t in range(int(length.max())):
        step = task.step(state, program[:, t])
        state, right = step.state, right | step.success
    assert bool(right.all())
    return length


@pytest.mark.parametrize("memories", [0, 1, 2, 3, 4])
def test_the_programs_work_for_every_shape_of_up_to_six_operators(memories: int) -> None:
    task = Expressions(operators=6, memories=memories, feedback="paper")
    shapes, first, longest = trees.all_shapes(6), 0, []
    for n in range(1, 7):
        count = trees.catalan(n)
        for signs in ([3] * n, [2] * n, [1 + i % 3 for i in range(n)], [3 - i % 3 for i in range(n)]):
            operators = torch.tensor(signs + [0] * (6 - n)).repeat(count, 1)
            operands = torch.tensor([1] * (n + 1) + [0] * (6 - n)).repeat(count, 1)
            stage, shape = torch.full((count,), n - 1), torch.arange(first, first + count)
            problems, _ = task._checked(stage, shape, operators, operands, "all")
            enough = task.needed(problems) <= (memories or 1 + n // 3)
            assert memories != 0 or bool(enough.all())
            longest.append((int(plays(task, problems[enough]).max()), 6 * n))
        first += count
    assert all(length <= allowed for length, allowed in longest)
    assert len(shapes) == first


@pytest.mark.parametrize("options", [{"memories": 0}, {"memories": 1}, {"memories": 2}, {"memories": 4, "digits": 3}])
def test_the_programs_work_for_twelve_operators(options: dict[str, int]) -> None:
    task = Expressions(operators=12, feedback="paper", **options)
    for split in ("train", "heldout"):
        problems = task.sample(torch.arange(6000) % 12, seeded(), split)
        length = plays(task, problems)
        assert bool((length <= 6 * (problems.stage + 1)).all())


@pytest.mark.parametrize("text", ["9-(3*4-8*(2+5))", "2+3*7", "(1-2)*(3-(4+5))"])
def test_what_a_person_sees(text: str) -> None:
    task = Expressions(feedback="paper")
    problem = task.parse(sum(c in "+-*" for c in text) - 1, text)
    assert task.render(problem, 0) == f"compute {text}"
    state = task.begin(problem)
    assert task.registers(state, 0)["paper"].replace("[", "").replace("]", "") == text
    assert task.records(problem, state)[0]["problem"] == text


def test_the_text_is_on_the_paper_alone() -> None:
    task = Expressions(feedback="paper")
    problems = task.sample(torch.arange(100) % 5, seeded())
    assert problems.context.tolist() == [[task.spec.start]] * 100


@pytest.mark.parametrize("options", [{}, {"memories": 0, "operators": 8}, {"digits": 2, "memories": 1}])
def test_contract(options: dict[str, Any]) -> None:
    task = make_task("expressions", feedback="paper", **options)
    check_task(task)
    assert make_task("expressions", **task.options()).spec == task.spec


def test_no_memories_only_on_paper() -> None:
    with pytest.raises(UserError, match="memories: 0 is not allowed; expected 1 to 4"):
        Expressions(memories=0)
    with pytest.raises(UserError, match=r"memories: -1 is not allowed; expected 0 \(on paper\) to 4"):
        Expressions(memories=-1, feedback="paper")
