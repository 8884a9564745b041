"""Expressions: the machine, the texts, the trees and the oracle, each against a slow one in plain Python."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.tasks import make_task
from modelnative.tasks.arithmetic.problems import VOCABULARY as POCKET
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.calculator import LIMIT, PocketCalculator
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import in_split, program_length
from modelnative.tasks.expressions import trees
from modelnative.tasks.expressions.calculator_oracle import NEVER, program_lengths
from modelnative.tasks.expressions.task import ExpressionProblems, Expressions

OPERATORS = {"MUL": lambda a, b: a * b, "ADD": lambda a, b: a + b, "SUB": lambda a, b: a - b}
SIGNS = {1: "*", 2: "+", 3: "-"}


def words(text: str) -> list[str]:
    return text.split()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The machine


@dataclass
class Reference:
    """The key table of `calculator`, one key of one episode at a time; None is an empty register."""

    memories: int
    digits: int
    entry: int | None = None
    typed: int = 0  # digits of the entry, if it was typed
    accumulator: int | None = None
    pending: str | None = None
    cells: dict[int, int] = field(default_factory=dict)
    done: bool = False
    answer: int | None = None
    invalid: bool = False

    @property
    def value(self) -> int | None:
        if self.pending is not None and self.entry is not None:
            return OPERATORS[self.pending](self.accumulator, self.entry)
        return self.entry if self.entry is not None else self.accumulator

    def enter(self, number: int, typed: int) -> None:
        before = self.entry, self.typed
        self.entry, self.typed = number, typed
        if len(str(abs(self.value))) > 8:
            (self.entry, self.typed), self.invalid = before, True

    def press(self, key: str) -> None:
        self.invalid = False
        if self.done:
            return
        name, cell = key.rstrip("0123456789"), int("0" + key.lstrip("ACDEILMNORSTUBX()"))
        if key in ("ANS", "EOS"):
            self.done, self.answer = True, self.value if key == "ANS" else None
        elif key.isdigit():
            joins = 0 < self.typed < self.digits
            self.enter(10 * self.entry + int(key) if joins else int(key), self.typed + 1 if joins else 1)
        elif name == "RCL" and cell in self.cells:
            self.enter(self.cells[cell], 0)
        elif key in OPERATORS and self.value is not None:
            self.accumulator, self.pending, self.entry, self.typed = self.value, key, None, 0
        elif name == "STO" and self.value is not None:
            self.cells[cell] = self.accumulator = self.value
            self.pending, self.entry, self.typed = None, None, 0
        else:
            self.invalid = True

    @property
    def registers(self) -> dict[str, str]:
        shown = {"entry": self.entry, "accumulator": self.accumulator, "pending": self.pending}
        shown |= {f"memory {k}": self.cells.get(k) for k in range(1, self.memories + 1)} | {"display": self.value}
        return {name: "" if v is None else str(v) for name, v in shown.items()}

    @property
    def display(self) -> list[str]:
        if self.value is None:
            return ["EOS"] * 9
        return ["SUB" if self.value < 0 else "EOS", *("EOS" if c == " " else c for c in f"{abs(self.value):8d}")]


def compare(memories: int, digits: int, programs: list[list[str]]) -> None:
    """Run all programs at once and compare each register after each key with the reference."""
    task = Expressions(operators=1, memories=memories, digits=digits)
    names = task.spec.vocabulary
    problems = task.sample(torch.zeros(len(programs), dtype=torch.int64), seeded())
    state, references = task.begin(problems), [Reference(memories, digits) for _ in programs]
    assert task.feedback(state).tolist() == [[task.spec.end] * 9] * len(programs)
    length = max(map(len, programs))
    padded = [program + ["CTX"] * (length - len(program)) for program in programs]
    for t in range(length):
        running = [not reference.done for reference in references]
        step = task.step(state, torch.tensor(task.spec.token_ids([program[t] for program in padded])))
        state = step.state
        for i, reference in enumerate(references):
            reference.press(padded[i][t])
            assert task.registers(state, i) == reference.registers, padded[i][: t + 1]
            assert [names[k] for k in step.feedback[i]] == reference.display
        assert step.invalid.tolist() == [r.invalid for r in references]
        assert step.done.tolist() == [r.done for r in references]
        right = [
            go and r.done and r.answer == target
            for go, r, target in zip(running, references, problems.target.tolist(), strict=True)
        ]
        assert step.success.tolist() == right
        assert step.reward.tolist() == [float(x) for x in right]
    assert [r["answer"] for r in task.records(problems, state)] == [r.answer for r in references]


@st.composite
def machines(draw: st.DrawFn) -> tuple[int, int, list[list[str]]]:
    memories, digits = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    task = Expressions(operators=1, memories=memories, digits=digits)
    cells = [name for name in task.spec.vocabulary if name[:3] in ("STO", "RCL")]
    # Keys that end the episode are rare, so that long programs are reached.
    going = st.sampled_from([*task.spec.vocabulary[:-1] * 3, *["MUL", "ADD", "SUB", *cells] * 4, "EOS"])
    return memories, digits, draw(st.lists(st.lists(going, min_size=1, max_size=40), min_size=1, max_size=6))


SQUARES = "9 MUL 9 STO1 MUL RCL1 STO1 MUL RCL1 STO1 MUL RCL1 MUL 9 SUB 1 SUB RCL1 SUB RCL1 STO2 MUL RCL2 3 ANS"

HUNDRED_MILLION = "9 ADD 1 STO1 MUL RCL1 STO1 MUL RCL1 STO1 MUL RCL1 SUB 1 ADD 1 ANS"  # the first of nine digits


@given(machines())
@example((1, 1, [words(HUNDRED_MILLION)]))
@example((2, 1, [words(SQUARES), words("RCL2 5 STO2 RCL1 SUB RCL2 ANS 4"), ["ANS"], ["EOS", "1", "ANS"]]))
@example((1, 2, [words("1 2 3 ADD 4 5 RCL1 STO1 6 RCL1 7 8 9 ANS"), words("9 9 MUL 9 9 MUL 9 9 MUL 9 9 MUL 9 9")]))
def test_keys_against_the_reference(machine: tuple[int, int, list[list[str]]]) -> None:
    compare(*machine)


def test_thousands_of_presses_against_the_reference() -> None:
    for memories, digits in ((1, 1), (2, 1), (3, 2), (4, 3)):
        names = Expressions(operators=1, memories=memories, digits=digits).spec.vocabulary
        weights = torch.tensor([0.2 if name in ("ANS", "EOS", "CTX", "(", ")") else 1.0 for name in names])
        weights[11:14] = 4.0
        drawn = torch.multinomial(weights, 60 * 50, replacement=True, generator=seeded()).view(60, 50)
        compare(memories, digits, [[names[key] for key in row] for row in drawn.tolist()])


def test_one_memory_makes_the_calculator_of_arithmetic() -> None:
    """Key by key on random programs, and on squares that leave the display."""
    pocket, task = Arithmetic(), Expressions(memories=1)
    names = {"STO": "STO1", "RCL": "RCL1"}
    ids = torch.tensor(task.spec.token_ids([names.get(name, name) for name in POCKET]))
    weights = torch.tensor([1.0] * 10 + [0.2, 5, 3, 3, 0.1, 4, 4, 0.1])
    programs = torch.multinomial(weights, 200 * 60, replacement=True, generator=seeded()).view(200, 60)
    one = pocket.begin(pocket.sample(torch.zeros(200, dtype=torch.int64), seeded()))
    other = task.begin(task.sample(torch.zeros(200, dtype=torch.int64), seeded()))
    overflows = 0
    for key in programs.unbind(1):
        a, b = pocket.step(one, key), task.step(other, ids[key])
        one, other = a.state, b.state
        assert torch.equal(ids[a.feedback], b.feedback)
        assert torch.equal(a.invalid, b.invalid)
        assert torch.equal(a.done, b.done)
        overflows += int((a.invalid & (key < 10)).sum())
        for i in range(0, 200, 23):
            shown = {
                ("memory" if name == "memory 1" else name): text for name, text in task.registers(other, i).items()
            }
            assert shown == pocket.registers(one, i)
    assert overflows > 0


@given(st.lists(st.integers(1 - LIMIT, LIMIT - 1) | st.integers(-20_000, 20_000), min_size=1))
@example([0, 9_999, 10_000, 10_001, 19_999, 20_000, LIMIT - 1, 99_990_000, 90_000_000, -1, -10_000, 1 - LIMIT])
def test_the_display_of_every_width(values: list[int]) -> None:
    machine = PocketCalculator(1)
    shown = [[machine.vocabulary[token] for token in row] for row in machine.display(torch.tensor(values)).tolist()]
    assert shown == [Reference(1, 1, entry=value).display for value in values]


# Trees and texts: a tree in plain Python is a number, or (operator code, left, right)

Plain = int | tuple[int, "Plain", "Plain"]


def read(text: str) -> Plain:
    """Recursive descent: sums of products of numbers and brackets."""
    rest = list(text)

    def atom() -> Plain:
        head = rest.pop(0)
        if head == "(":
            tree = chain("+-", lambda: chain("*", atom))
            assert rest.pop(0) == ")"
            return tree
        while rest and rest[0].isdigit():
            head += rest.pop(0)
        return int(head)

    def chain(signs: str, part) -> Plain:
        tree = part()
        while rest and rest[0] in signs:
            code = "?*+-".index(rest.pop(0))
            tree = (code, tree, part())
        return tree

    tree = chain("+-", lambda: chain("*", atom))
    assert not rest, text
    return tree


def value(tree: Plain) -> int:
    if isinstance(tree, int):
        return tree
    return [*OPERATORS.values()][tree[0] - 1](value(tree[1]), value(tree[2]))


def size(tree: Plain) -> int:
    return 0 if isinstance(tree, int) else 1 + size(tree[1]) + size(tree[2])


def plain_shapes(n: int) -> list[Plain]:
    """All shapes of n operators (all of code 2, over 1s), in the order of `trees.Shapes`."""
    if n == 0:
        return [1]
    return [
        (2, a, b) for left in range(n) for a, b in itertools.product(plain_shapes(left), plain_shapes(n - 1 - left))
    ]


def bare(tree: Plain) -> Plain:
    return 1 if isinstance(tree, int) else (2, bare(tree[1]), bare(tree[2]))


def splits(tree: Plain) -> list[tuple[int, int]]:
    if isinstance(tree, int):
        return []
    return [(size(tree[1]), size(tree[2])), *splits(tree[1]), *splits(tree[2])]


def reading_order(tree: Plain) -> tuple[list[int], list[int]]:
    """Operator codes, operands."""
    if isinstance(tree, int):
        return [], [tree]
    left, right = reading_order(tree[1]), reading_order(tree[2])
    return [*left[0], tree[0], *right[0]], [*left[1], *right[1]]


def written(tree: Plain) -> str:
    """With the fewest brackets that keep the shape."""

    def part(child: Plain, brackets: bool) -> str:
        return f"({written(child)})" if brackets else written(child)

    if isinstance(tree, int):
        return str(tree)
    code, left, right = tree
    binds = [
        2 if isinstance(child, tuple) and child[0] > 1 else 1 if isinstance(child, tuple) else 0 for child in tree[1:]
    ]
    own = 2 if code > 1 else 1  # less binds more
    return part(left, binds[0] > own) + SIGNS[code] + part(right, binds[1] >= own)


@st.composite
def plain_trees(draw: st.DrawFn, most: int = 12, high: int = 9) -> Plain:
    def grow(n: int) -> Plain:
        if n == 0:
            return draw(st.integers(1, high))
        left = draw(st.integers(0, n - 1))
        return (draw(st.integers(1, 3)), grow(left), grow(n - 1 - left))

    return grow(draw(st.integers(1, most)))


def test_shapes_are_numbered_in_order() -> None:
    for n in range(1, 8):
        numbers = [trees.shape_number(splits(shape)) for shape in plain_shapes(n)]
        assert numbers == list(range(trees.first_shape(n), trees.first_shape(n) + trees.catalan(n)))
    assert [trees.catalan(n) for n in range(1, 13)] == [1, 2, 5, 14, 42, 132, 429, 1430, 4862, 16796, 58786, 208012]
    assert len(trees.all_shapes(7)) == trees.first_shape(8)


@given(st.lists(plain_trees(high=999), min_size=1, max_size=5))
def test_trees_are_evaluated_and_written(given: list[Plain]) -> None:
    task = Expressions(operators=12, memories=4, digits=3)
    for tree in given:
        text = written(tree)
        assert read(text) == tree
        stage = size(tree) - 1
        fits = all(abs(value(part)) < LIMIT for part in parts(tree))
        if not fits:
            with pytest.raises(UserError, match="values under 100,000,000 in every step"):
                task.parse(stage, text)
            continue
        problem = task.parse(stage, text)
        assert task.render(problem, 0) == f"compute {text}"
        codes, operands = reading_order(tree)
        assert problem.operators[0].tolist() == codes + [0] * (12 - len(codes))
        assert problem.operands[0].tolist() == operands + [0] * (13 - len(operands))
        assert int(problem.shape) == trees.shape_number(splits(tree))
        assert int(problem.target) == value(tree)
        tokens = [{"*": "MUL", "+": "ADD", "-": "SUB"}.get(c, c) for c in text] + ["CTX"]
        tokens += ["EOS"] * (task.spec.context_length - len(tokens))
        assert [task.spec.vocabulary[token] for token in problem.context[0]] == tokens


def parts(tree: Plain) -> list[Plain]:
    return [tree] if isinstance(tree, int) else [tree, *parts(tree[1]), *parts(tree[2])]


@given(plain_trees(most=6))
def test_no_pair_of_brackets_is_too_many(tree: Plain) -> None:
    text = written(tree)
    for i, c in enumerate(text):
        if c == "(":
            depth = list(itertools.accumulate((x == "(") - (x == ")") for x in text[i:]))
            j = i + depth.index(0)
            assert read(text[:i] + text[i + 1 : j] + text[j + 1 :]) != tree


# The oracle


def shortest(tree: Plain, cells: int) -> int | None:
    """Keys of the shortest program, ANS included, by breadth-first search over the machine's registers.

    A register may hold any part of the tree and nothing else: parts are told apart by where they stand, not by value.
    The cells are alike, so that only what they hold together is looked at.
    """
    at: dict[tuple, tuple[int, tuple, tuple] | None] = {}  # place of a part -> operator and places of its operands

    def place(part: Plain, here: tuple) -> None:
        at[here] = None if isinstance(part, int) else (part[0], (*here, 0), (*here, 1))
        if not isinstance(part, int):
            place(part[1], (*here, 0))
            place(part[2], (*here, 1))

    place(tree, ())
    results = {}
    for here, inner in at.items():
        if inner:
            code, a, b = inner
            results[code, a, b] = here
            if code != 3:
                results[code, b, a] = here
    leaves = [here for here, inner in at.items() if not inner]
    start = (None, 0, ((),) * cells)  # value, the operator that waits, cells
    seen, front = {start}, [start]
    for length in itertools.count(2):
        ahead = []
        for held, code, kept in front:
            following = []
            for typed in [*leaves, *filter(None, kept)]:
                result = results.get((code, held, typed)) if code else typed
                following.append((result, 0, kept))
            if not code and held is not None:
                following += [(held, operator, kept) for operator in (1, 2, 3)]
                following += [(held, 0, tuple(sorted((*kept[:k], held, *kept[k + 1 :])))) for k in range(cells)]
            for state in following:
                if state[0] is not None and state not in seen:
                    if state[0] == () and not state[1]:
                        return length
                    seen.add(state)
                    ahead.append(state)
        if not ahead:
            return None
        front = ahead
    return None


def labelled(shape: Plain, codes: list[int]) -> Plain:
    if isinstance(shape, int):
        return 7
    left = labelled(shape[1], codes)
    code = codes.pop(0)
    return (code, left, labelled(shape[2], codes))


def check_lengths(forest: list[Plain], cells: int) -> None:
    """`program_lengths` and `cells_needed` of any trees, the inadmissible too, against the search."""
    most = max(map(size, forest))
    rows = trees.all_shapes(most)[torch.tensor([trees.shape_number(splits(tree)) for tree in forest])]
    columns = [reading_order(tree) for tree in forest]
    operators = torch.tensor([codes + [0] * (most - len(codes)) for codes, _ in columns])
    widths = torch.tensor([[1] * len(operands) + [0] * (most + 1 - len(operands)) for _, operands in columns])
    expected = [shortest(tree, cells) for tree in forest]
    keys = program_lengths(rows, operators, widths, cells).tree[:, -1].tolist()
    assert [k + 1 if k < NEVER else None for k in keys] == expected
    assert (trees.cells_needed(rows, operators) <= cells).tolist() == [e is not None for e in expected]


@pytest.mark.parametrize("cells", [0, 1, 2])
def test_no_program_is_shorter_than_the_oracles_for_every_tree_of_up_to_four_operators(cells: int) -> None:
    for n in range(1, 5):
        forest = [
            labelled(shape, list(codes))
            for shape in plain_shapes(n)
            for codes in itertools.product((2, 3), repeat=n)  # MUL commutes as ADD does
        ]
        check_lengths(forest, cells)


# Both operands of a SUB need two cells: three are needed, or the left one goes first.
DEEP = "(1-(2-3)*(4-(5-6)))*(7-(8-9)*(1-(2-3)))"


@given(st.lists(plain_trees(most=9), min_size=1, max_size=3), st.integers(0, 3))
@example([read(DEEP), read("1-2*3"), read("(1+2)*(3+4)-(5-6)")], 2)
@example([read("(2+3)*(4+5)*(1+1)-(1+2)*(3+4)"), read("(9-1)*(2-3)-((1+2)*(3-4)-5*6)")], 1)
def test_no_program_is_shorter_than_the_oracles_for_larger_trees(forest: list[Plain], cells: int) -> None:
    check_lengths(forest, cells)


def run(task: Expressions, problems: ExpressionProblems) -> torch.Tensor:
    """Play the oracle's programs; asserts that every key counts and that all succeed. Their lengths, int64 [n]."""
    program = task.oracle(problems)
    length = program_length(program, task.spec.end)
    state, right = task.begin(problems), torch.zeros(len(problems), dtype=torch.bool)
    for t in range(int(length.max())):
        step = task.step(state, program[:, t])
        state, right = step.state, right | step.success
        assert not bool(step.invalid.any())
        assert torch.equal(step.done, length <= t + 1)
    assert bool(right.all())
    return length


@pytest.mark.parametrize("options", [{}, {"memories": 1}, {"memories": 3, "digits": 2}, {"digits": 3}])
def test_the_oracle_solves_samples_of_every_stage(options: dict[str, int]) -> None:
    task = Expressions(operators=12, **options)
    for split in ("train", "heldout"):
        problems = task.sample(torch.arange(1200) % 12, seeded(), split)
        length = run(task, problems)
        texts = [task.render(problems, i).removeprefix("compute ") for i in range(48)]
        for i, text in enumerate(texts):
            tree = read(text)
            assert value(tree) == int(problems.target[i])
            if size(tree) <= 6:
                more = sum(len(str(operand)) - 1 for operand in reading_order(tree)[1])
                assert int(length[i]) == shortest(tree, task.options()["memories"]) + more


def test_the_programs_of_the_documentation() -> None:
    task = Expressions(operators=5)
    for text, program in (
        ("3*7+2", "3 MUL 7 ADD 2 ANS"),
        ("2+3*7", "3 MUL 7 ADD 2 ANS"),
        ("2-3*7", "3 MUL 7 STO1 2 SUB RCL1 ANS"),
        ("3*7+2-4*5", "4 MUL 5 STO1 3 MUL 7 ADD 2 SUB RCL1 ANS"),
        ("1*2+3*4", "1 MUL 2 STO1 3 MUL 4 ADD RCL1 ANS"),
        ("9-(8-(7-6))", "7 SUB 6 STO1 8 SUB RCL1 STO1 9 SUB RCL1 ANS"),
        ("3*7+(2-4)*(5-6)", "2 SUB 4 STO1 5 SUB 6 MUL RCL1 STO1 3 MUL 7 ADD RCL1 ANS"),
    ):
        tree = read(text)
        tokens = task.oracle(task.parse(size(tree) - 1, text))[0]
        said = " ".join(task.spec.vocabulary[token] for token in tokens if token != task.spec.end)
        assert len(words(said)) == shortest(tree, 2), text
        assert len(words(said)) == len(words(program)), text
        if text != "3*7+(2-4)*(5-6)":
            assert said == program


def test_rearranging_the_terms_may_take_fewer_keys() -> None:
    """The oracle evaluates the expression as it is written; other programs may be shorter."""
    task = Expressions()
    problem = task.parse(1, "9-(3+4)")
    state = task.begin(problem)
    for key in task.spec.token_ids(words("9 SUB 3 SUB 4 ANS")):
        step = task.step(state, torch.tensor([key]))
        state = step.state
    assert bool(step.success)
    assert int(program_length(task.oracle(problem), task.spec.end)) == 8


# Problems


@pytest.mark.parametrize(
    "options",
    [
        {"operators": 2},
        {"operators": 8, "memories": 1},
        {"operators": 7, "memories": 4, "needs": 1, "digits": 2},
        {"operators": 3, "digits": 3, "feedback": "none"},
        {"operators": 4, "shapes": "unseen"},
        {"operators": 4, "shapes": "seen"},
    ],
)
def test_contract(options: dict[str, object]) -> None:
    task = make_task("expressions", **options)
    check_task(task, samples=64, limit=20_000)
    assert task.options().items() >= options.items()
    assert make_task("expressions", **task.options()).spec == task.spec


def test_small_stages_are_listed_whole() -> None:
    task = Expressions()
    for stage, expected in ((0, 3 * 9**2), (1, 2 * 9 * 9**3)):
        listed = ExpressionProblems.cat(list(task.enumerate(stage, chunk=997)))
        assert len(listed) == len(listed.key.unique()) == expected == task.count(stage)
        assert torch.equal(listed.shape.unique(), torch.arange(stage + 1) + stage)
        run(task, listed)
        sides = {split: task.count(stage, split) for split in ("train", "heldout")}
        assert sum(sides.values()) == expected
        assert sides["train"] / expected == pytest.approx(0.8, abs=0.06)
    first = next(task.enumerate(2))
    assert len(first) == 1 << 15
    for stage, options in ((3, {}), (1, {"digits": 2})):
        with pytest.raises(UserError, match="too many to list"):
            next(Expressions(**options).enumerate(stage))


def test_samples_are_of_the_split_and_keys_depend_on_the_problem_alone() -> None:
    task, wide = Expressions(operators=6), Expressions(operators=6)
    for split in ("train", "heldout"):
        problems = task.sample(torch.arange(600) % 6, seeded(), split)
        assert bool(in_split(problems.key, split).all())
        for i in range(0, 600, 37):
            again = wide.parse(i % 6, task.render(problems, i).removeprefix("compute "))
            assert all(torch.equal(a, b) for a, b in zip(problems[i : i + 1].fields(), again.fields(), strict=True))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_shapes_operators_and_operands_are_uniform(split: str) -> None:
    n, task = 60_000, Expressions(operators=5)
    problems = task.sample(torch.full((n,), 4), seeded(), split)
    given = problems.operators[:, 2], problems.operands[:, 5], problems.shape - trees.first_shape(5)
    for column, least, count in zip(given, (1, 1, 0), (3, 9, 42), strict=True):
        counts = (column - least).bincount()
        assert len(counts) == count
        chi = float(((counts - n / count) ** 2 / (n / count)).sum())
        assert abs(chi - (count - 1)) < 5 * (2 * (count - 1)) ** 0.5


def test_rejected_trees_keep_their_shape() -> None:
    """With one memory some shapes are admitted for few operators only; they are as frequent as the others."""
    n, task = 40_000, Expressions(operators=7, memories=1)
    shapes = task.sample(torch.full((n,), 6), seeded()).shape
    fitting = sum(
        shortest(labelled(shape, [2] * 7), 1) is not None for shape in plain_shapes(7)
    )  # if nothing of a shape fits with ADD alone, nothing does
    counts = torch.unique(shapes, return_counts=True)[1]
    assert len(counts) == fitting < trees.catalan(7)
    chi = float(((counts - n / fitting) ** 2 / (n / fitting)).sum())
    assert abs(chi - (fitting - 1)) < 5 * (2 * (fitting - 1)) ** 0.5


def test_unseen_shapes_are_a_fifth_and_never_among_the_seen() -> None:
    stage = torch.arange(30_000) % 6
    drawn = {choice: Expressions(operators=6, shapes=choice).sample(stage, seeded()) for choice in ("seen", "unseen")}
    for n in range(1, 7):
        seen, unseen = (set(drawn[choice].shape[stage == n - 1].tolist()) for choice in ("seen", "unseen"))
        count = trees.catalan(n)
        if count < 5:
            assert seen == unseen
        else:
            assert not seen & unseen
            assert (len(seen), len(unseen)) == (count - count // 5, count // 5)


def test_the_cells_that_are_needed_are_limited() -> None:
    stage = torch.full((3000,), 8)
    tasks = [Expressions(operators=9), Expressions(operators=9, needs=1), Expressions(operators=9, memories=1)]
    found = [task.needed(task.sample(stage, seeded())).unique().tolist() for task in tasks]
    assert found == [[0, 1, 2], [0, 1], [0, 1]]
    assert "STO2" in tasks[1].spec.vocabulary
    with pytest.raises(UserError, match="1 memory cell"):
        tasks[2].parse(6, "(1-2*3)*(4-5*6)-7*8")


def test_no_constant_answer_is_frequent_and_order_matters() -> None:
    task = Expressions(operators=8)
    n = 20_000
    failing = []
    for stage in range(8):
        problems = task.sample(torch.full((n,), stage), seeded())
        most = int(torch.unique(problems.target, return_counts=True)[1].max())
        assert most / n < (0.06 if stage == 0 else 0.035)
        total = problems.operands[:, 0]
        for code, operand in zip(problems.operators.unbind(1), problems.operands[:, 1:].unbind(1), strict=True):
            steps = [total, total * operand, total + operand, total - operand]
            total = torch.stack(steps).gather(0, code[None])[0]
        failing.append(float((total != problems.target).double().mean()))
    assert failing[0] == 0.0  # one operator has no order
    assert failing[1] > 0.28
    assert all(rate > least for rate, least in zip(failing[2:], (0.5, 0.7, 0.8, 0.9, 0.9, 0.9), strict=True)), failing


# What people type


@pytest.mark.parametrize(
    "text",
    ["", "3", "3+", "3+4+5", "3+0", "3/4", "3**4", "3//4", "-3+4", "3+(4", "3(4)", "3+x", "3+12", "3+4²", "03+4"],
)
def test_parse_says_what_is_expected(text: str) -> None:
    with pytest.raises(UserError, match=r"problem: .* expected 1 operator out of .* E1, operands from 1 to 9 .*'3\+7'"):
        Expressions().parse(0, text)


def test_parse_takes_what_people_write() -> None:
    task = Expressions(operators=3, digits=2)
    problem = task.parse(2, " ((12)) × (3 − 4)\t+ 56 ")
    assert task.render(problem, 0) == "compute 12*(3-4)+56"
    assert task.records(problem, task.begin(problem)) == [
        {
            "problem": "12*(3-4)+56",
            "operators": ["*", "-", "+"],
            "operands": [12, 3, 4, 56],
            "shape": int(problem.shape),
            "answer": None,
            "target": 44,
        }
    ]
    with pytest.raises(UserError, match="operands from 1 to 99"):
        task.parse(0, "(" * 150 + "1+2" + ")" * 150)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operators": 0}, "operators: 0 is not allowed; expected 1 to 12"),
        ({"operators": 13}, "operators: 13 is not allowed"),
        ({"memories": 0}, "memories: 0 is not allowed; expected 1 to 4"),
        ({"memories": 5}, "memories: 5 is not allowed"),
        ({"needs": 0}, "needs: 0 is not allowed; expected at least 1"),
        ({"digits": 4}, "digits: 4 is not allowed; expected 1 to 3"),
        ({"shapes": "sen"}, "did you mean 'seen'"),
        ({"feedback": "screen"}, "feedback: unknown value 'screen'"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Expressions(**options)
