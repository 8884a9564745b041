from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import program_length
from modelnative.tasks.hops.permutations import Packing, Shuffles
from modelnative.tasks.hops.task import Hops, HopsProblems


@dataclass
class Reference:
    """The rules for one episode, one key at a time, in plain Python; names for tokens, "" for a blank display."""

    maps: list[list[int]]
    hops: int
    target: int
    tool: str = ""
    display: str = ""
    answer: str | None = None
    calls: int = 0
    done: bool = False
    success: bool = False
    invalid: bool = False

    def __post_init__(self) -> None:
        self.tools = ["NEXT"] if len(self.maps) == 1 else [f"NEXT{k + 1}" for k in range(len(self.maps))]
        if len(self.maps) == 1:
            self.tool = "NEXT"

    def press(self, key: str) -> None:
        self.success = self.invalid = False
        if self.done:
            return
        if key == "EOS":
            self.done, self.display = True, ""
        elif key.startswith("n") and self.tool == "ANS":
            self.done, self.answer, self.display = True, key, key
            self.success = key == f"n{self.target}"
        elif key.startswith("n") and self.tool:
            self.display = f"n{self.maps[self.tools.index(self.tool)][int(key[1:])]}"
            self.calls += 1
        elif key in {*self.tools, "ANS"} - {self.tool}:
            self.tool, self.display = key, ""
        else:
            self.invalid = True


def maps_of(task: Hops, problems: HopsProblems) -> list[list[list[int]]]:
    """Each problem's maps, as its record tells them."""
    records = task.records(problems, task.begin(problems))
    return [[[int(m[f"n{i}"][1:]) for i in range(task.size)] for m in r["maps"].values()] for r in records]


def follow(after: list[int], start: int, hops: int) -> int:
    for _ in range(hops):
        start = after[start]
    return start


DIALS: list[dict[str, object]] = [
    {},
    {"hops": 3, "size": 5, "maps": 3, "count": "shifted", "feedback": "left"},
    {"hops": 12, "size": 19, "count": "digits"},
    {"hops": 20, "size": 128, "maps": 2, "count": "row"},
]


@pytest.mark.parametrize("options", DIALS)
def test_keys_against_the_reference(options: dict[str, object]) -> None:
    task = Hops(**options)
    names, eos = task.spec.vocabulary, task.spec.end
    generator = torch.Generator().manual_seed(0)
    problems = task.sample(torch.arange(200) % task.hops, generator)
    references = [
        Reference(maps, stage + 1, follow(maps[tool], start, stage + 1))
        for maps, stage, tool, start in zip(
            maps_of(task, problems),
            problems.stage.tolist(),
            problems.tool.tolist(),
            problems.start.tolist(),
            strict=True,
        )
    ]
    assert problems.target.tolist() == [r.target for r in references]
    state, answered = task.begin(problems), 0
    for _ in range(30):
        action = torch.randint(len(names), (200,), generator=generator)
        # Answers are tried often, and are often right; few keys end the episode otherwise.
        action = torch.where(torch.rand(200, generator=generator) < 0.1, task.ans, action)
        action = torch.where(torch.rand(200, generator=generator) < 0.3, problems.target, action)
        action = torch.where((action == eos) & (torch.rand(200, generator=generator) < 0.8), 0, action)
        step = task.step(state, action)
        state = step.state
        for reference, key in zip(references, action.tolist(), strict=True):
            reference.press(names[key])
        shown = [[names.index(r.display) if r.display else eos] for r in references]
        if task.shows_left:
            hop = names.index("HOP")
            shown = [[*row, hop if r.calls < r.hops else eos] for row, r in zip(shown, references, strict=True)]
        assert step.feedback.tolist() == shown
        assert step.invalid.tolist() == [r.invalid for r in references]
        assert step.success.tolist() == [r.success for r in references]
        assert step.reward.tolist() == [float(r.success) for r in references]
        assert step.done.tolist() == [r.done for r in references]
        answered += sum(r.success for r in references)
    assert answered > 20
    for i, (record, reference) in enumerate(zip(task.records(problems, state), references, strict=True)):
        assert (record["answer"], record["target"]) == (reference.answer, f"n{reference.target}")
        assert (record["hops"], record["start"]) == (reference.hops, names[int(problems.start[i])])
        assert record["context"] == [names[token] for token in problems.context[i]]
        registers = task.registers(state, i)
        assert registers["display"] == reference.display
        assert registers["hops left"] == str(reference.hops - reference.calls)


@pytest.mark.parametrize("options", DIALS)
def test_the_oracle_makes_each_hop_and_answers(options: dict[str, object]) -> None:
    task = Hops(**options)
    problems = task.sample(torch.arange(100) % task.hops, torch.Generator().manual_seed(1))
    for i, (maps, program) in enumerate(zip(maps_of(task, problems), task.oracle(problems).tolist(), strict=True)):
        hops, tool, start = int(problems.stage[i]) + 1, int(problems.tool[i]), int(problems.start[i])
        path = [follow(maps[tool], start, k) for k in range(hops + 1)]
        keys = [*(f"n{node}" for node in path[:-1]), "ANS", f"n{path[-1]}"]
        keys = keys if task.maps == 1 else [f"NEXT{tool + 1}", *keys]
        keys += ["EOS"] * (task.spec.horizon - len(keys))
        assert [task.spec.vocabulary[token] for token in program] == keys


def least_calls(maps: list[tuple[int, ...]], start: int, hops: int) -> int:
    """Calls that the best strategy needs, at worst, until all maps that fit what it saw end at the same node."""
    if len({follow(list(m), start, hops) for m in maps}) == 1:
        return 0
    size = len(maps[0])
    return 1 + min(
        max(least_calls([m for m in maps if m[x] == y], start, hops) for y in {m[x] for m in maps})
        for x in range(size)
        if len({m[x] for m in maps}) > 1
    )


@pytest.mark.parametrize(("hops", "size"), [(1, 3), (1, 4), (2, 4), (3, 5)])
def test_nobody_can_be_sure_with_fewer_calls_than_the_oracle(hops: int, size: int) -> None:
    orders = [(0, *rest) for rest in itertools.permutations(range(1, size))]
    cycles = [tuple(order[(order.index(i) + 1) % size] for i in range(size)) for order in orders]
    assert least_calls(cycles, 0, hops) == hops
    task = Hops(hops=hops, size=size)
    problems = task.sample(torch.full((50,), hops - 1), torch.Generator().manual_seed(0), "all")
    assert program_length(task.oracle(problems), task.spec.end).tolist() == [hops + 2] * 50


# Problems


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hops": 1, "size": 3},
        {"hops": 4, "size": 6, "feedback": "left"},
        {"hops": 3, "size": 5, "count": "digits"},
        {"hops": 2, "size": 4, "maps": 3, "count": "shifted"},
        {"hops": 10, "size": 24, "maps": 2, "count": "row"},
        {"hops": 15, "size": 70, "count": "digits", "feedback": "left"},
    ],
)
def test_contract(options: dict[str, object]) -> None:
    task = Hops(**options)
    assert {**options, **task.options()} == task.options()
    assert task.spec == Hops(**task.options()).spec
    check_task(task, limit=5_000)


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({"count": "scattered"}, [3, 3, 1]),
        ({"count": "shifted"}, [3, 2, 1]),
        ({"count": "row"}, [1, 1, 1]),
        ({"count": "digits"}, [1, 1, 1]),
        ({"count": "digits", "maps": 2, "size": 5}, [1, 1, 1]),
    ],
)
def test_every_cycle_start_tool_and_way_to_count_is_listed_once(options: dict[str, object], written: list[int]) -> None:
    task = Hops(**{"hops": 3, "size": 6, **options})
    orders = [(0, *rest) for rest in itertools.permutations(range(1, task.size))]
    cycles = [[order[(order.index(i) + 1) % task.size] for i in range(task.size)] for order in orders]
    for stage in range(3):
        problems = HopsProblems.cat(list(task.enumerate(stage, chunk=77)))
        rows = problems.context[:, -1 - task.width : -1].tolist()
        found = list(zip(maps_of(task, problems), problems.start.tolist(), problems.tool.tolist(), rows, strict=True))
        assert all(
            target == follow(m[k], s, stage + 1) for (m, s, k, _), target in zip(found, problems.target, strict=True)
        )
        assert len({tuple(row) for row in rows}) == written[stage]
        if task.count_as == "digits":
            assert rows[0] == [task.first_digit + stage + 1]
        else:
            assert all(row.count(task.hop) == stage + 1 and row.count(task.gap) == 2 - stage for row in rows)
        every = itertools.product(itertools.product(cycles, repeat=task.maps), range(task.size), range(task.maps))
        wanted = {(str(list(m)), s, k) for m, s, k in every}
        assert {(str(m), s, k) for m, s, k, _ in found} == wanted
        assert len(found) == len(wanted) * written[stage] == task.count(stage)
    assert problems.context[:, -1].unique().tolist() == [task.ctx]
    assert torch.equal(problems.context[:, -2 - task.width], problems.start)
    if task.maps > 1:
        assert [task.spec.vocabulary[t] for t in problems.context[:, 0]] == [f"NEXT{k + 1}" for _, _, k, _ in found]


def test_samples_are_uniform() -> None:
    task = Hops(hops=2, size=4, maps=2)
    n = 200_000
    problems = task.sample(torch.zeros(n, dtype=torch.int64), torch.Generator().manual_seed(0))
    counts = problems.key.unique(return_counts=True)[1]
    size = task.count(0, "train")
    assert len(counts) == size
    chi = float(((counts - n / size) ** 2 / (n / size)).sum())
    assert abs(chi - (size - 1)) < 5 * (2 * (size - 1)) ** 0.5


def test_no_answer_is_favoured() -> None:
    task, n = Hops(), 48_000
    problems = task.sample(torch.arange(n) % 6, torch.Generator().manual_seed(0))
    assert not bool((problems.target == problems.start).any())
    away = (problems.target - problems.start) % 16
    for values, kinds in ((problems.target, 16), (away, 15)):
        for stage in range(6):
            counts = values[problems.stage == stage].unique(return_counts=True)[1]
            expected = n / 6 / kinds
            assert len(counts) == kinds
            assert float((counts - expected).abs().max()) < 5 * expected**0.5


@given(st.integers(2, 128), st.integers(1, 5), st.integers(0, 2**32))
def test_maps_of_every_size_are_packed_and_unpacked(size: int, n: int, seed: int) -> None:
    shuffles = Shuffles(size, 2, torch.Generator().manual_seed(seed))
    packing = Packing(size)
    shuffles.draw(n)
    for order in (*shuffles.take(n), *shuffles.take(n + 1)):
        maps = packing.unpacked(packing.map_of(order)).tolist()
        for nodes, after in zip(order.t().tolist(), maps, strict=True):
            assert sorted(nodes) == list(range(size))
            assert [after[node] for node in nodes] == [*nodes[1:], nodes[0]]


def test_parse_and_render() -> None:
    task = Hops(hops=2, size=4, maps=2)
    problem = task.parse(1, "3 2: 1 2 3 0, 2 0 3 1")
    assert task.render(problem, 0) == "start from n3 and follow NEXT2 2 times; where does that end?"
    assert maps_of(task, problem) == [[[1, 2, 3, 0], [2, 0, 3, 1]]]
    assert (problem.start.tolist(), problem.tool.tolist(), problem.target.tolist()) == ([3], [1], [0])
    assert " ".join(task.spec.vocabulary[t] for t in problem.context[0]) == "NEXT2 n3 HOP HOP CTX"
    lone = Hops(hops=1, size=3)
    assert lone.render(lone.parse(0, "2: 2 0 1"), 0) == "start from n2 and follow NEXT 1 time; where does that end?"
    listed = HopsProblems.cat(list(task.enumerate(1)))
    assert bool((listed.key == problem.key).sum() == 1)


@pytest.mark.parametrize(
    "text", ["", "0", "0: 1 2 3", "4: 1 2 3 0", "0: 1 2 3 0 1", "0: 1 0 3 2", "0: 1 2 0 3", "0: 1 2 2 0", "0: 1 2 x 0"]
)
def test_parse_says_what_is_expected(text: str) -> None:
    with pytest.raises(UserError, match=r"problem: .* expected the start node, .* such as '0: 1 2 3 0'"):
        Hops(hops=2, size=4).parse(1, text)
    with pytest.raises(UserError, match=r"the map to follow \(1 to 2\), .* such as '0 1: 1 2 3 0, 1 2 3 0'"):
        Hops(hops=2, size=4, maps=2).parse(1, text)


def test_too_many_to_list() -> None:
    with pytest.raises(
        UserError, match=r"stage: 'H6' has 2.09e\+13 problems, too many to list; expected at most 500,000"
    ):
        Hops().count(5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hops": 0}, "hops: 0 is not allowed; expected 1 to 100"),
        ({"hops": 101, "size": 128}, "hops: 101 is not allowed; expected 1 to 100"),
        ({"hops": 15}, r"size: 16 is not allowed; expected hops \+ 2 = 17 to 128"),
        ({"size": 129}, "size: 129 is not allowed"),
        ({"hops": 13, "size": 32}, "hops: 13 is not allowed; expected at most 12 with count 'scattered'"),
        ({"maps": 0}, "maps: 0 is not allowed; expected 1 to 8"),
        ({"count": "unary"}, "count: unknown value 'unary'"),
        ({"feedback": "none"}, "did you mean 'node'"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Hops(**options)
