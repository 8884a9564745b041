from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks import make_task
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import in_split, program_length
from modelnative.tasks.dictionary.tables import KEYS, VALUES, VOCABULARY
from modelnative.tasks.dictionary.task import Dictionary, DictionaryProblems, DictionaryState

IDS = {name: i for i, name in enumerate(VOCABULARY)}


@dataclass
class Reference:
    """One episode in plain Python, a key at a time."""

    pairs: list[tuple[str, int]]
    queries: list[str]
    store: bool
    shown: int = 0  # pairs gone by
    answers: list[int] = field(default_factory=list)
    cells: dict[str, int] = field(default_factory=dict)
    call: tuple[str, ...] = ()
    done: bool = False
    success: bool = False

    @property
    def querying(self) -> bool:
        return self.shown == len(self.pairs)

    @property
    def display(self) -> tuple[str, ...]:
        if self.call:
            if len(self.call) == 2 and self.call[0] == "GET":
                key = self.call[1]
                return (key, str(self.cells[key])) if key in self.cells else (key,)
            return ()
        if not self.querying:
            return self.pairs[self.shown][0], str(self.pairs[self.shown][1])
        return self.queries[min(len(self.answers), len(self.queries) - 1)], "ASK"

    def press(self, key: str) -> None:
        self.success = False
        if self.done:
            return
        if not self.call and not self.querying and key == "NEXT":
            self.shown += 1
        elif not self.store:
            if self.querying and key in VALUES:
                self.answer(int(key))
            else:
                self.done = True
        elif not self.querying:
            expected = {(): ("PUT",), ("PUT",): KEYS}.get(self.call, VALUES)
            self.done = key not in expected
            self.call = () if self.done else (*self.call, key)
            if len(self.call) == 3:
                self.cells[self.call[1]] = int(key)
                self.call = ()
        elif key == "GET" and self.call != ("GET",):
            self.call = ("GET",)
        elif self.call == ("GET",) and key in KEYS:
            self.call = ("GET", key)
        elif self.display == (self.queries[len(self.answers)], key):
            self.call = ()
            self.answer(int(key))
        else:
            self.done, self.call = True, ()

    def answer(self, value: int) -> None:
        query = self.queries[len(self.answers)]
        self.answers.append(value)
        right = value == dict(self.pairs)[query]
        self.success = right and len(self.answers) == len(self.queries)
        self.done = self.success or not right


@st.composite
def episodes(draw: st.DrawFn) -> tuple[Dictionary, list[tuple[int, Reference, list[str]]]]:
    store = draw(st.booleans())
    pairs = draw(st.sampled_from([1, 2, 3, 4, 7, 8, 9, 13, 16]))
    task = Dictionary(pairs, queries=draw(st.integers(1, 4)), store=store)
    batch = []
    for _ in range(draw(st.integers(1, 4))):
        stage = draw(st.integers(0, len(task.pairs) - 1))
        count, query_count = task.pairs[stage], task.queries[stage]
        keys = draw(st.permutations(KEYS))[:count]
        content = [(key, draw(st.integers(0, 15))) for key in keys]
        reference = Reference(content, draw(st.permutations(keys))[:query_count], store)
        own = st.sampled_from([*keys, *(str(value) for _, value in content), "GET", "PUT", "NEXT"])
        batch.append((stage, reference, draw(programs(reference, own | st.sampled_from(task.spec.vocabulary)))))
    return task, batch


@st.composite
def programs(draw: st.DrawFn, reference: Reference, anything: st.SearchStrategy[str]) -> list[str]:
    """The right keys, with a few changes, and with wrong values and lookups of other keys."""
    program: list[str] = []
    for key, value in reference.pairs:
        if reference.store and draw(st.integers(0, 9)):
            written = value if draw(st.integers(0, 9)) else 3
            program += ["PUT", key, str(written)]
        program.append("NEXT")
    for query in reference.queries:
        if reference.store:
            if not draw(st.integers(0, 5)):
                program += ["GET", draw(st.sampled_from(KEYS))]
            program += ["GET", query]
        program.append(str(dict(reference.pairs)[query] if draw(st.integers(0, 5)) else 3))
    for _ in range(draw(st.integers(0, 1))):
        program[draw(st.integers(0, len(program) - 1))] = draw(anything)
    program = [key for key in program if key in VOCABULARY]
    known = VOCABULARY if reference.store else VOCABULARY[: IDS["PUT"]]
    return [key for key in program if key in known] + draw(st.lists(st.sampled_from(known), max_size=3))


@given(episodes())
def test_keys_against_the_reference(given: tuple[Dictionary, list[tuple[int, Reference, list[str]]]]) -> None:
    task, batch = given
    references = [reference for _, reference, _ in batch]
    problems = DictionaryProblems.cat(
        [
            task.parse(stage, f"{' '.join(f'{k}={v}' for k, v in r.pairs)} ? {' '.join(r.queries)}")
            for stage, r, _ in batch
        ]
    )
    state = task.begin(problems)
    shown = task.feedback(state)
    for t in range(max(len(program) for *_, program in batch) + 1):
        for i, r in enumerate(references):
            registers = task.registers(state, i)
            assert registers["to come"] == str(len(r.pairs) - r.shown)
            if r.done and not r.success and r.store:
                continue  # whatever an ended episode shows
            if r.answers and r.done and not r.success:
                continue
            display = [VOCABULARY[token] for token in shown[i] if token != IDS["EOS"]]
            if not r.done:
                assert tuple(display) == r.display, (i, t)
                assert registers["display"].split() == display
                if r.store:
                    assert registers["store"] == " ".join(f"{k}={r.cells[k]}" for k in KEYS if k in r.cells)
                    assert registers["call"] == " ".join(r.call)
        keys = [program[t] if t < len(program) else "CTX" for *_, program in batch]
        step = task.step(state, torch.tensor([IDS[key] for key in keys]))
        state, shown = step.state, step.feedback
        for key, r in zip(keys, references, strict=True):
            r.press(key)
        assert step.done.tolist() == [r.done for r in references], keys
        assert step.success.tolist() == [r.success for r in references]
        assert step.reward.tolist() == [float(r.success) for r in references]
        assert not bool(step.invalid.any())
    for record, r in zip(task.records(problems, state), references, strict=True):
        assert record == {
            "problem": f"{' '.join(f'{key}={value}' for key, value in r.pairs)} ? {' '.join(r.queries)}",
            "pairs": [list(pair) for pair in r.pairs],
            "queries": list(r.queries),
            "answer": r.answers or None,
            "target": [dict(r.pairs)[query] for query in r.queries],
        }


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize(("pairs", "queries"), [(8, 2), (1, 1), (3, 3), (16, 4)])
def test_contract(pairs: int, queries: int, store: bool) -> None:
    check_task(Dictionary(pairs, queries, store), samples=96, limit=1000)


# The oracle


def fewest(task: Dictionary, state: DictionaryState, tokens: list[int], most: int) -> Tensor:
    """The fewest of `tokens` to success from each state by breadth-first search, at most `most`: int64 [n]; 99 none."""
    best, origin = torch.full((len(state),), 99), torch.arange(len(state))
    for t in range(1, most + 1):
        action = torch.tensor(tokens).repeat(len(state))
        rows = torch.arange(len(state)).repeat_interleave(len(tokens))
        step, origin = task.step(state[rows], action), origin[rows]
        best[origin[step.success]] = best[origin[step.success]].clamp_max(t)
        keep = unique_rows(step.state, ~step.done, origin)
        state, origin = step.state[keep], origin[keep]
        if not len(origin):
            break
    return best


def unique_rows(state: Batch, among: Tensor, *more: Tensor) -> Tensor:
    """Row numbers, one for each different row of those `among`."""
    rows = among.nonzero()[:, 0]
    columns = torch.stack([field.long()[rows] for field in (*state.fields(), *more)], 1)  # type: ignore[union-attr]
    _, inverse = torch.unique(columns, dim=0, return_inverse=True)
    first = torch.full((len(rows),), len(rows)).scatter_reduce(0, inverse, torch.arange(len(rows)), "amin")
    return rows[first[first < len(rows)]]


@pytest.mark.parametrize("text", ["a=0 ? a", "c=7 a=15 ? a", "c=7 a=15 b=7 ? b", "c=7 a=15 b=3 ? b c a"])
def test_without_the_store_no_program_is_shorter(text: str) -> None:
    count, query_count = text.count("="), len(text.split("?")[1].split())
    task = Dictionary(count, queries=query_count)
    problem = task.parse(len(task.pairs) - 1, text)
    length = int(program_length(task.oracle(problem), IDS["EOS"]))
    assert length == count + query_count
    assert int(fewest(task, task.begin(problem), list(range(len(task.spec.vocabulary))), 9)) == length


def test_with_the_store_no_program_that_is_ready_for_every_query_is_shorter() -> None:
    task = Dictionary(2, queries=1, store=True)
    both = DictionaryProblems.cat([task.parse(1, f"c=7 a=15 ? {query}") for query in "ca"])
    programs = [[VOCABULARY[t] for t in program if t != IDS["EOS"]] for program in task.oracle(both)]
    assert programs == [f"PUT c 7 NEXT PUT a 15 NEXT GET {x}".split() for x in ("c 7", "a 15")]
    # Symbols that do not occur in the problem are equivalent, so one of each is enough. Both problems are equal until
    # the first query.
    tokens = task.spec.token_ids(["a", "b", "c", "0", "7", "15", "NEXT", "PUT", "GET", "ASK"])
    left, right = (task.begin(both[i : i + 1]) for i in range(2))
    needed = []
    for t in range(1, 9):
        rows, action = torch.arange(len(left)).repeat_interleave(len(tokens)), torch.tensor(tokens).repeat(len(left))
        left, right = task.step(left[rows], action).state, task.step(right[rows], action).state
        assert torch.equal(left.done, right.done)
        asks = ~left.done & (left.place == 0)
        longest = torch.maximum(*(fewest(task, side[asks], tokens, 8) for side in (left, right)))
        needed += (longest + t).tolist()
        keep = unique_rows(left, ~left.done & ~asks)
        left, right = left[keep], right[keep]
    assert min(needed) == 11 == len(programs[0])


def test_who_knows_the_query_could_leave_out_a_pair() -> None:
    """So the oracle is the shortest program that does not depend on the queries, and not the shortest one."""
    task = Dictionary(2, queries=1, store=True)
    tokens = task.spec.token_ids(["a", "c", "7", "15", "NEXT", "PUT", "GET"])
    assert fewest(task, task.begin(task.parse(1, "c=7 a=15 ? a")), tokens, 11).tolist() == [8]


@pytest.mark.parametrize("program", ["NEXT 7", "PUT c 3 NEXT GET c 7", "NEXT GET c 7", "PUT a 7 NEXT GET a 7"])
def test_with_the_store_an_answer_that_was_not_read_from_it_is_none(program: str) -> None:
    task = Dictionary(1, store=True)
    problem = task.parse(0, "c=7 ? c")
    state = task.begin(problem)
    for token in task.spec.token_ids(program.split()):
        step = task.step(state, torch.tensor([token]))
        state = step.state
    assert (step.done.tolist(), step.success.tolist()) == ([True], [False])
    assert task.records(problem, state)[0]["answer"] is None


# Problems


def shown(
    task: Dictionary, problems: DictionaryProblems
) -> list[tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]]:
    return [
        (tuple(k for k, _ in r["pairs"]), tuple(v for _, v in r["pairs"]), tuple(r["queries"]))
        for r in task.records(problems, task.begin(problems))
    ]


def test_listed_stages_show_everything_once() -> None:
    task = Dictionary(4)
    assert [task.count(stage) for stage in range(2)] == [256, 122_880]
    with pytest.raises(UserError, match=r"'K4' has 34,351,349,760 problems, too many to list; expected at most"):
        task.count(2)
    singles = shown(task, DictionaryProblems.cat(list(task.enumerate(0, chunk=100))))
    assert sorted(singles) == sorted(((key,), (value,), (key,)) for key in KEYS for value in range(16))
    doubles = shown(task, DictionaryProblems.cat(list(task.enumerate(1))))
    assert len(set(doubles)) == len(doubles) == 122_880
    assert all(len(set(keys)) == 2 and set(queries) == set(keys) for keys, _, queries in doubles)


@pytest.mark.parametrize(("pairs", "queries"), [(3, 2), (8, 2), (13, 3), (16, 4)])
def test_samples_are_uniform(pairs: int, queries: int) -> None:
    task, n = Dictionary(pairs, queries), 20_000
    stage = torch.full((n,), len(task.pairs) - 1)
    for split in ("all", "train", "heldout"):
        problems = task.sample(stage, torch.Generator().manual_seed(0), split)
        assert bool(in_split(problems.key, split).all())
        assert len(problems.key.unique()) == n or pairs == 3
        keys, values, places = (
            torch.stack([word >> 4 * i & 15 for i in range(count)], 1)
            for word, count in ((problems.keys, pairs), (problems.values, pairs), (problems.places, queries))
        )
        for rows, size in ((keys, 16), (places, pairs)):
            assert bool((rows.sort(1).values.diff(dim=1) > 0).all())  # distinct
            assert int(rows.max()) < size
        for column, size in [(c, 16) for c in (*keys.T, *values.T)] + [(c, pairs) for c in places.T]:
            expected = n / size
            chi = float(((column.bincount(minlength=size) - expected) ** 2 / expected).sum())
            assert chi < size - 1 + 6 * (2 * size) ** 0.5
        joint = (keys[:, 0] * 16 + keys[:, -1]).bincount(minlength=256).view(16, 16)
        expected = n / 240
        off = joint[~torch.eye(16, dtype=torch.bool)]
        assert float(((off - expected) ** 2 / expected).sum()) < 239 + 6 * 478**0.5
        assert int(joint.diagonal().sum()) == 0


def test_a_problem_has_the_same_key_whatever_the_last_stage_is() -> None:
    for text in ("a=1 ? a", "b=1 a=3 ? a b"):
        stage = text.count("=") - 1
        keys = [Dictionary(pairs, store=store).parse(stage, text).key for pairs in (2, 8, 16) for store in (0, 1)]
        assert all(torch.equal(key, keys[0]) for key in keys)


def test_constant_answers_are_rare() -> None:
    task = Dictionary()
    for stage, most in ((0, 0.15), (1, 0.01)):
        for split in ("train", "heldout"):
            targets: dict[tuple[int, ...], int] = {}
            for problems in task.enumerate(stage, split):
                for r in task.records(problems, task.begin(problems)):
                    targets[tuple(r["target"])] = targets.get(tuple(r["target"]), 0) + 1
            assert max(targets.values()) / sum(targets.values()) < most


def test_render_and_parse() -> None:
    task = Dictionary(2, store=True)
    assert task.render(task.parse(1, "c=7, a=15 ? a c"), 0) == "c=7 a=15; asked: a c"
    full = " ".join(f"{key}={15 - i}" for i, key in enumerate(KEYS))
    big = Dictionary(16)
    assert big.render(big.parse(4, f"{full} ? p a"), 0) == f"{full}; asked: p a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c=7",
        "c=7 a=15 ? b c",
        "c=7 a=16 ? a c",
        "c=7 c=5 ? c c",
        "c=7 a=15 ? a a",
        "c=7 a=15 ? a",
        "c=7 a=15 ? ac q",
        "c=7 a=15 b=3 ? a c",
        "c=7 q=15 ? c q",
        "c 7 a 15 ? c a",
        "c=7 a=١ ? a c",
        "c=7 a=15 ? a c c",
    ],
)
def test_parse_says_what_is_expected(text: str) -> None:
    with pytest.raises(UserError, match=r"problem: .* expected 2 pairs .* such as 'a=7 b=9 \? a b'"):
        Dictionary(2).parse(1, text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "pairs: 0 is not allowed; expected a number from 1 to 16"),
        ({"pairs": 17}, "pairs: 17 is not allowed"),
        ({"queries": 0}, "queries: 0 is not allowed; expected a number from 1 to 16, with 8 pairs"),
        ({"pairs": 16, "queries": 5}, "queries: 5 is not allowed; expected a number from 1 to 4, with 16 pairs"),
        ({"store": 1}, "store: 1 is not allowed; expected bool"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_task("dictionary", **options)


def test_options_rebuild_the_task() -> None:
    for options in ({"pairs": 6, "queries": 8, "store": True}, {"pairs": 1, "queries": 2, "store": False}):
        task = make_task("dictionary", **options)
        assert task.options() == options
        assert make_task("dictionary", **task.options()).spec == task.spec
    assert Dictionary().spec.horizon == 8 + 2
    assert Dictionary(store=True).spec.horizon == 8 * 4 + 2 * 3
    assert "PUT" not in Dictionary().spec.vocabulary
