"""Our tasks as datasets of reasoning-gym: questions with answers that the task's own verifier scores exactly.

Only tasks whose prompts tell all of a problem are questions: `arithmetic`, `expressions` and `countdown`. The other
direction is `modelnative.bridges.reasoning_gym_task`. Needs the extra `reasoning-gym`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from modelnative.errors import UserError, choose
from modelnative.extras import optional
from modelnative.tasks import make_task
from modelnative.tasks.contract.episode import draw
from modelnative.tasks.contract.task import SPLITS, AnyTask, Split

TESTED = ("0.1.25", "0.2")
ANSWERS = {
    "arithmetic": "Answer with the number alone.",
    "expressions": "Answer with the number alone.",
    "countdown": (
        "Answer with an expression that uses each number exactly once, with brackets where they are needed. The result "
        "of every operation must be a whole number from 1 to 999. Do not write the target."
    ),
}
OPERATORS: dict[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


@dataclass
class QuestionConfig:
    """The configuration of a dataset, as reasoning-gym has it.

    Attributes:
        task: the name of a task.
        stage: the name of a stage; empty means the first one.
        split: which problems are drawn.
        options: of the task.
        seed: of the problems.
        size: number of questions.
    """

    task: str = "arithmetic"
    stage: str = ""
    split: Split = "train"
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    size: int = 500

    def validate(self) -> None:
        """Raise a `UserError` unless the task can be asked as questions."""
        choose("task", self.task, ANSWERS)
        choose("split", self.split, SPLITS)
        if self.options.get("feedback") == "paper":
            raise UserError("feedback: 'paper' is not allowed; expected an expression that the prompt shows")


def questions(task: str = "arithmetic", **config: Any) -> Any:
    """Return a `ProceduralDataset` of a task's problems.

    Question i of seed s is drawn by a hash of both, so two seeds share only what chance repeats. (The datasets of
    reasoning-gym draw from `seed + i`: 99 of 100 questions of seed 0 are in seed 1.)

    Args:
        task: `arithmetic`, `expressions` or `countdown`.
        config: the other fields of `QuestionConfig`.

    Raises:
        UserError: a field is not allowed, or reasoning-gym is not installed.
    """
    base = optional("reasoning_gym.dataset", "reasoning-gym", *TESTED, package="reasoning-gym").ProceduralDataset
    given = QuestionConfig(task, **config)
    given.validate()
    return type("Questions", (_Questions, base), {})(given)


class _Questions:
    """The methods of a dataset; `questions` adds the base class, which is optional."""

    def __init__(self, config: QuestionConfig) -> None:
        super().__init__(config=config, seed=config.seed, size=config.size)  # type: ignore[call-arg]
        self.config = config
        self.task: AnyTask = make_task(config.task, **config.options)
        self.stage = self.task.spec.stage_index(config.stage or self.task.spec.stages[0])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.config.size:
            raise IndexError(index)
        problems = draw(self.task, self.stage, self.config.seed, index, self.config.split)
        record = self.task.records(problems, self.task.begin(problems))[0]
        answer = expression_of(record["numbers"], record["solution"]) if "solution" in record else str(record["target"])
        return {
            "question": f"{self.task.prompt(problems, 0)} {ANSWERS[self.config.task]}",
            "answer": answer,
            "metadata": {
                "source_dataset": f"modelnative_{self.config.task}",
                "source_index": index,
                "stage": self.task.spec.stages[self.stage],
                "problem": record["problem"],
                "target": record["target"],
                **({"numbers": record["numbers"]} if "numbers" in record else {}),
            },
        }

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        """Return 1 for a right answer and 0 for any other, whatever it has in common with a right one."""
        facts = entry["metadata"]
        if not isinstance(answer, str):
            return 0.0
        if "numbers" in facts:
            return float(solves(answer, facts["numbers"], facts["target"], self.task.options()["operators"]))
        return float(answer.strip() == str(facts["target"]))


def expression_of(numbers: Sequence[int], solution: Sequence[str]) -> str:
    """Return a program of `countdown` as an expression.

    Example:
        >>> expression_of([1, 3, 4, 6], ["C+D", "B*C", "A-B", "ANS"])
        '(((6+4)*3)-1)'
    """
    slots = [(str(number), number) for number in numbers]
    for key in solution[:-1]:
        a, operator, b = "ABCDEF".index(key[0]), key[1], "ABCDEF".index(key[2])
        (left, x), (right, y) = sorted((slots[a], slots[b]), key=lambda slot: -slot[1])
        value = {"+": x + y, "-": x - y, "*": x * y, "/": x // max(y, 1)}[operator]
        slots[a] = (f"({left}{operator}{right})", value)
    return slots["ABCDEF".index(solution[-2][0])][0]


def solves(answer: str, numbers: Sequence[int], target: int, operators: str = "+-*/", most: int = 999) -> bool:
    """Whether an expression uses each number once, makes the target, and has whole results from 1 to `most` only.

    It is parsed and not evaluated by Python: names, powers and functions are no answers.

    Example:
        >>> solves("(3*(4+6))-1", [1, 3, 4, 6], 29), solves("3!*2", [3, 2], 12), solves("2**3", [2, 3], 8)
        (True, False, False)
    """
    used: list[int] = []

    def value(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            used.append(node.value)
            return Fraction(node.value)
        if not isinstance(node, ast.BinOp) or OPERATORS.get(type(node.op), "?") not in operators:
            raise ValueError(ast.dump(node))
        left, right, sign = value(node.left), value(node.right), OPERATORS[type(node.op)]
        if sign == "/":
            result = left / right
        else:
            result = left + right if sign == "+" else left - right if sign == "-" else left * right
        if result.denominator != 1 or not 1 <= result <= most:
            raise ValueError(result)
        return result

    try:
        found = value(ast.parse(answer.strip()[:500], mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False
    return found == target and sorted(used) == sorted(numbers)
