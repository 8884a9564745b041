"""Networks whose memory and plans are planted get the right verdicts; episodes without a hook are the usual ones."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own import LSTM
from worlds import Script, Scripted

import modelnative as mn
from modelnative.evidence.carriers import donors_of, problems_of, record
from modelnative.evidence.decoding import Decoding
from modelnative.evidence.donors import same_procedure
from modelnative.evidence.interventions import ENDED, Moment, get_field, playback, replay
from modelnative.evidence.probes import has_one_skeleton
from modelnative.evidence.ridge import FOLDS, Design, margins
from modelnative.evidence.steering import Eraser
from modelnative.evidence.verdicts import ranges
from modelnative.policies.registry import make_policy
from modelnative.tasks import TASKS, make_task
from modelnative.tasks.contract.check import check_task
from modelnative.training.rollout import play

MEMORY = planted.Notebook()
CORES = ["gru", "mingru", "transformer", "memoryless"]


def policy_of(task: mn.Task, core: str = "gru", **fields: object) -> torch.nn.Module:
    return make_policy(task.spec, core, mn.PolicyConfig(width=16, **fields)).eval()  # type: ignore[arg-type]


def test_the_planted_task_fulfills_the_contract() -> None:
    check_task(MEMORY, samples=32)
    check_task(planted.Notebook(plan=True), samples=32)


# Playback


@pytest.mark.parametrize(
    ("name", "core"),
    [("arithmetic", core) for core in CORES] + [(name, "gru") for name in ("hops", "recall", "countdown")],
)
def test_without_a_hook_it_is_the_usual_greedy_play_bit_for_bit(name: str, core: str) -> None:
    task = make_task(name, **({"longest": 10} if name == "recall" else {}))
    policy = policy_of(task, core)
    problems = task.sample(torch.arange(12) % len(task.spec.stages), torch.Generator().manual_seed(0))
    usual = play(policy, task, problems)  # type: ignore[arg-type]
    assert usual.final is not None
    for got in (playback(policy, task, problems), playback(policy, task, problems, lambda t, now: now)):
        running = usual.running
        assert torch.equal(got.action != ENDED, running)
        for column in ("token", "feedback", "action"):
            assert torch.equal(getattr(got, column)[running], getattr(usual, column)[running])
        assert torch.equal(got.success, usual.success)
        for name, tensor in vars(usual.final).items():
            if isinstance(tensor, torch.Tensor):
                assert torch.equal(getattr(got.final, name), tensor)


def test_an_episode_goes_on_from_any_moment_as_it_did() -> None:
    task = make_task("arithmetic")
    policy = policy_of(task, "transformer")
    episodes = record(policy, task, problems_of(task, 2, 40))
    for t, moment in episodes.moments.items():
        again = playback(policy, task, episodes.problems, start=moment, first=t)
        assert torch.equal(again.action, episodes.played.action[t:])
        final, success = replay(task, moment.state, episodes.played.action[t:])
        assert torch.equal(success, episodes.played.success)
        assert torch.equal(final.calculator.value, episodes.played.final.calculator.value)


def test_a_hook_changes_what_the_policy_sees() -> None:
    def blank(t: int, now: Moment) -> Moment:
        return dataclasses.replace(now, feedback=torch.full_like(now.feedback, planted.EOS))

    problems = problems_of(MEMORY, 0, 64)
    assert bool(playback(planted.Inside(), MEMORY, problems).success.all())
    assert not bool(playback(planted.Inside(), MEMORY, problems, blank).success.all())


# Reading the problem


class Dawdling(Scripted):
    """Writes MUL ANS; where `a` is odd, another token between the two."""

    def __init__(self, token: str) -> None:
        super().__init__(mn.make("arithmetic"))  # type: ignore[arg-type]
        self.token = self.task.spec.vocabulary.index(token)

    def initial_state(self, problems: mn.Problems) -> Script:
        names = self.task.spec.vocabulary
        program = torch.full((len(problems), 6), names.index("EOS"))
        program[:, :2] = torch.tensor([names.index("MUL"), names.index("ANS")])
        odd = problems.context[:, 0] % 2 == 1
        program[odd, 1:3] = torch.tensor([self.token, names.index("ANS")])
        return Script(program, torch.zeros_like(problems.stage))


@pytest.mark.parametrize(("token", "reads"), [("MUL", False), ("7", False), ("ADD", True)])
def test_actions_without_effect_do_not_show_that_the_problem_is_read(token: str, reads: bool) -> None:
    """At T0 of the tutorial a second MUL has no effect, and digits never have; ADD has."""
    found = mn.inspect(Dawdling(token), mn.make("tutorial"), stages=["T0"], pairs=200, probes=False).stages[0]
    share = found.sensitivity.program.rate
    assert share is not None
    assert share > 0.05 if reads else share == 0


# Who carries it


def inspected(policy: torch.nn.Module, task: mn.Task = MEMORY) -> mn.StageInspection:
    return mn.inspect(policy, task, pairs=200, probes=False).stages[0]


def test_memory_inside() -> None:
    found = inspected(planted.Inside())
    hidden = found.verdict("hidden state")
    assert (hidden.word, hidden.keys) == ("carried", (2, 3, 4))
    assert (found.verdict("feedback").word, found.verdict("feedback").keys) == ("carried", (1,))
    assert found.verdict("context").word == "not carried"
    assert all(verdict.carrier != "register" for verdict in found.verdicts)  # it is the same in all problems: empty
    rates = {removal.name: removal.success.rate for removal in found.removals}
    assert rates["nothing"] == 1.0
    assert rates["feedback: blank"] == pytest.approx(0.25, abs=0.1)
    assert rates["hidden state: 0"] == pytest.approx(0.25, abs=0.1)


def test_memory_outside() -> None:
    found = inspected(planted.Outside())
    assert "hidden state" not in names(found)  # there is a clock in it, the same in all problems
    register = found.verdict("register")
    assert (register.word, register.keys) == ("carried", (2, 3))
    assert found.verdict("feedback").keys == (4,)
    assert found.exchange("register", 2).answer.donor.rate == 1.0


def test_memory_on_both_sides_is_shared() -> None:
    found = inspected(planted.Both())
    assert {found.verdict(name).word for name in ("hidden state", "register", "feedback")} == {"shared"}
    own, donor = (getattr(found.exchange("hidden state", 3).answer, name).rate for name in ("own", "donor"))
    assert own == pytest.approx(0.5, abs=0.15)
    assert donor == pytest.approx(1 - own)


# Plans


def decoded(policy: torch.nn.Module, task: mn.Task) -> Decoding:
    found = mn.inspect(policy, task, pairs=100).stages[0].decoding
    assert found is not None
    return found


PLAN = planted.Notebook(plan=True)


def test_a_plan_that_is_used() -> None:
    found = decoded(planted.Planner(), PLAN)
    assert (found.verdict, found.planning, found.one_skeleton) == ("used", "used", False)
    assert found.best is not None
    assert found.best.target == planted.KEYS
    assert found.best.hidden == 1.0
    assert found.best.margin > 0.3
    assert found.use is not None
    assert (found.use.steered.rate, found.use.rank) == (1.0, 3)
    assert found.use.removed.rate == pytest.approx(0.25, abs=0.12)


def test_a_plan_that_is_only_decodable() -> None:
    found = decoded(planted.Spectator(), PLAN)
    assert found.planning == "decodable, not used"
    assert found.use is not None
    assert found.use.removed.rate == 1.0
    assert found.use.steered.rate == 0.0


def test_no_plan() -> None:
    assert decoded(planted.Reflex(), PLAN).planning == "not found"


def test_memory_is_no_plan() -> None:
    found = decoded(planted.Inside(), MEMORY)
    assert found.one_skeleton
    assert found.planning == "not tested by this task"


def test_what_the_task_tests() -> None:
    expected = {"arithmetic": True, "hops": True, "recall": True, "tutorial": True, "countdown": False}
    for name, one in expected.items():
        task = make_task(name, **({"numbers": 3} if name == "countdown" else {}))
        stage = len(task.spec.stages) - 1
        assert has_one_skeleton(task, problems_of(task, stage, 50)) is one


def test_probes_agree_with_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    labels = (x[:, 0] + 0.3 * torch.randn(200, generator=generator) > 0).long()
    right = Design.of(x).correct(labels[:, None], 2)[:, 0]
    for fold in range(FOLDS):
        rows = torch.arange(200) % FOLDS == fold
        ones = torch.cat([x, torch.ones(200, 1)], 1).double()
        target = torch.nn.functional.one_hot(labels, 2).double()
        weight = torch.linalg.lstsq(ones[~rows], target[~rows]).solution
        agree = ((ones[rows] @ weight).argmax(1) == labels[rows]) == right[rows]
        assert agree.double().mean() >= 0.95


def test_a_margin_is_over_the_best_control_and_its_interval_holds_it() -> None:
    generator = torch.Generator().manual_seed(0)
    correct, controls = torch.rand(400, 1, generator=generator) < 0.9, torch.rand(2, 400, 1, generator=generator) < 0.7
    margin, low, high = margins(correct, controls)
    best = controls.double().mean(1).max()
    assert margin.item() == pytest.approx((correct.double().mean() - best).item())
    assert low.item() < margin.item() < high.item()


def test_an_eraser_leaves_nothing_linear_and_random_ones_leave_it() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (300,), generator=generator)
    rows = torch.randn(300, 10, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 10)
    eraser = Eraser.of(rows, labels, 3)
    assert eraser.basis.shape[1] == 2
    erased = eraser(rows)
    means = torch.stack([erased[labels == label].mean(0) for label in range(3)])
    assert torch.allclose(means, means.mean(0).expand_as(means), atol=1e-4)
    for in_span in (False, True):
        kept = eraser.randomized(generator, in_span=in_span)(rows)
        right = Design.of(kept).correct(labels[:, None], 3).double().mean()
        assert right > Design.of(erased).correct(labels[:, None], 3).double().mean() + 0.2


def names(found: mn.StageInspection) -> list[str]:
    return [verdict.carrier for verdict in found.verdicts]


def test_registers_of_the_calculator_are_predicted(tmp_path: Path) -> None:
    """A policy that types the oracle's program: an exchanged memory changes the answer as the calculator says."""
    from worlds import Scripted

    task = make_task("arithmetic")
    found = mn.inspect(Scripted(task), task, stages=["T2"], pairs=100).stages[0]
    memory = found.exchange("memory register", 6)
    assert memory.answer.predicted.rate == 1.0
    assert memory.answer.own.hits + memory.answer.predicted.hits == memory.answer.comparable.hits
    assert memory.answer.predicted.hits >= 20
    assert found.verdict("memory register").keys == (5, 6, 7, 8, 9, 10, 11)
    assert memory.same_procedure is None


@given(st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_the_same_procedure_differs_in_operands_alone(seed: int) -> None:
    """A procedure is made up, of tokens and of places of the context, and played on two contexts."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(0, 30, (2, 1, 6), generator=generator)
    steps = torch.randint(-6, 30, (8,), generator=generator).tolist()  # below 0: a place
    played = [torch.tensor([[context[0, step] if step < 0 else step] for step in steps]) for context in (first, second)]
    assert bool(same_procedure(first, second, *played))
    at = int(torch.randint(0, 8, (), generator=generator))
    played[1][at] += 100  # in neither context
    assert not bool(same_procedure(first, second, *played))


@pytest.mark.parametrize("core", [*CORES, "own"])
def test_every_core_and_any_module_is_inspected_and_twice_the_same(core: str, tmp_path: Path) -> None:
    policy = LSTM(MEMORY.spec, mn.PolicyConfig(width=8)) if core == "own" else policy_of(MEMORY, core)
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files if core in ("gru", "own") else files[:1]:
        mn.inspect(policy, MEMORY, pairs=30, file=file)
    assert core not in ("gru", "own") or files[0].read_bytes() == files[1].read_bytes()
    (stage,) = json.loads(files[0].read_text())["stages"]
    assert stage["verdicts"]
    same = [(e["same_procedure"], e["answer"]) for e in stage["exchanges"] if e["kind"] != "tools"]
    assert all(0 <= part["donor"]["trials"] <= whole["donor"]["trials"] for part, whole in same)
    assert {"hidden state: 0", "last token: unseen"} <= {removal["name"] for removal in stage["removals"]}


def test_bad_input_is_one_clear_line() -> None:
    task = make_task("arithmetic")
    policy = policy_of(task)
    with pytest.raises(mn.UserError, match="pairs: 3 is not allowed; expected 20 to 100,000"):
        mn.inspect(policy, task, pairs=3)
    with pytest.raises(mn.UserError, match="did you mean 'T2'"):
        mn.inspect(policy, task, stages=["T22"])
    with pytest.raises(mn.UserError, match="task: None is not allowed; expected a task"):
        mn.inspect(policy)
    small = make_task("hops", hops=1, size=3)
    with pytest.raises(mn.UserError, match="stage: 'H1' has 6 different problems, too few to exchange"):
        mn.inspect(policy_of(small), small)


def test_a_file_that_holds_something_else_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(MEMORY)
    monkeypatch.setattr("modelnative.api.evidence.inspect_policy", None)  # not reached
    for name, content in {
        "config.json": b'{"format": "modelnative/2", "stages": 1}',
        "notes": b"\xff",
        "x": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(mn.UserError, match=f"out: .*{name}.* expected a new file, or an earlier result; this one"):
            mn.inspect(policy, MEMORY, file=tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    (tmp_path / "link").symlink_to(os.devnull)
    for path in (tmp_path, tmp_path / "link", os.devnull):
        with pytest.raises(mn.UserError, match=r"out: .* expected a new file"):
            mn.inspect(policy, MEMORY, file=path)
    with pytest.raises(mn.UserError, match=r"notes.y.json: cannot be written .Not a directory"):
        mn.inspect(policy, MEMORY, file=tmp_path / "notes" / "y.json")
    assert not list(tmp_path.glob("y*"))


def test_ranges() -> None:
    assert ranges([1, 2, 3, 5], [1, 2, 3, 4, 5]) == "1-3, 5"
    assert ranges([], [1]) == ""


def test_one_operand_is_varied() -> None:
    for name in ("arithmetic", "tutorial"):
        task = make_task(name)
        problems = task.sample(torch.arange(60) % 3, torch.Generator().manual_seed(0), "all")
        varied = task.vary(problems, torch.Generator().manual_seed(1))
        assert torch.equal(varied.stage, problems.stage)
        assert ((varied.operands != problems.operands).sum(1) == 1).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in TASKS), ("expressions", {"feedback": "paper"}), ("dictionary", {"store": True})],
)
def test_registers_of_all_tasks_are_found_and_differ(name: str, options: dict[str, Any]) -> None:
    """Oracle programs are played: every group differs between two problems before some action, or is the mode."""
    task = make_task(name, **options)
    problems = problems_of(task, 0, 40)
    state, partner, different = task.begin(problems), donors_of(problems), set()
    for action in task.oracle(problems).T:
        for group, paths in task.state_groups().items():
            columns = [get_field(state, path) for path in paths]
            if any(not torch.equal(column, column[partner]) for column in columns):
                different.add(group)
        state = task.step(state, action).state
    # The first stages store nothing, recall's cue is the last thing typed, and a store may be off.
    unused = {"mode", "memory register", "typed symbols", "store", "call"}
    assert set(task.state_groups()) - different <= unused
