"""Certificates of tasks whose success rates are known, and findings about broken tasks."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import echoes
import pytest
from bare import Bare
from echoes import Echo

import modelnative as mn
from modelnative.errors import UserError
from modelnative.evidence.baselines import TrainedBaseline
from modelnative.evidence.certificate import AGENTS, Certificate
from modelnative.evidence.certify import StageMeasurement, certify
from modelnative.evidence.problem_set import ProblemSet
from modelnative.evidence.statistics import wilson
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import AnyTask


@pytest.fixture(autouse=True)
def short_search(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The search for a procedure is short but in its own test."""
    if "best_procedure" not in request.node.name:
        monkeypatch.setattr("modelnative.evidence.certify.SEARCHED", 5)


def certified(task: AnyTask, **options: int | bool) -> Certificate:
    return certify(task, **{"train": False, **options})


def defects(certificate: Certificate) -> list[str]:
    return [finding.words for finding in certificate.findings if finding.level == "defect"]


def rates(certificate: Certificate) -> dict[str, float]:
    return {name: figure.rate for name, figure in certificate.stages[0].figures.items()}


def test_a_sound_task() -> None:
    certificate = certified(Echo())
    stage = certificate.stages[0]
    assert certificate.sound
    (note,) = certificate.findings
    assert note.level == "note"
    assert "one procedure solves 100.0% of the problems" in note.words, "an echo needs no plan for each problem"
    assert (stage.problems, stage.listed) == (100, True)
    assert stage.overlap is not None
    assert (stage.overlap.shared, stage.overlap.train + stage.overlap.heldout, stage.overlap.exact) == (0, 100, True)
    found = rates(certificate)
    assert found.pop("random") < 0.15
    assert found == {"oracle": 1.0, "end": 0.0, "start": 0.0, "same_answer": 0.1, "constant": 0.1, "procedure": 1.0}
    constant = stage.figures["constant"]
    assert (constant.exact, constant.best, constant.interval) == (True, True, None)
    assert constant.how.endswith("SAY (exact search, up to 2 tokens)")
    random = stage.figures["random"]
    assert random.interval == wilson(random.successes, 100), "random play is not exact"


@pytest.mark.parametrize(
    ("task", "stage", "procedure"), [("hops", "H1", "{start} ANS {shown, 1 before}"), ("countdown", "C3", "")]
)
def test_the_best_procedure(task: str, stage: str, procedure: str) -> None:
    figures = certified(mn.make(task), stage=stage, problems=12_000).stages[0].figures
    found = figures["procedure"]
    assert found.rate >= figures["constant"].rate >= figures["same_answer"].rate
    assert (found.rate == 1.0) == bool(procedure)
    assert procedure in found.how
    assert found.best == bool(procedure), "what solves all is the best; of others a better one may exist"


def test_an_endless_stage_is_sampled() -> None:
    certificate = certified(echoes.Endless(), problems=5000)
    stage = certificate.stages[0]
    assert certificate.sound
    assert (stage.problems, stage.listed) == (5000, False)
    assert stage.overlap is not None
    assert (stage.overlap.shared, stage.overlap.exact) == (0, False)
    assert stage.overlap.train + stage.overlap.heldout == 100, "all keys are drawn"
    low, high = stage.figures["constant"].interval or (0, 0)
    assert low < 0.1 < high
    assert not stage.figures["oracle"].exact


def test_a_stage_above_the_limit_is_sampled() -> None:
    stage = certified(Echo(), problems=99).stages[0]
    assert (stage.problems, stage.listed) == (99, False)


def test_a_wrong_oracle_shows_its_counterexample() -> None:
    certificate = certified(echoes.Mistaken())
    assert any("the contract is broken: oracle: fails on 1" in words for words in defects(certificate))
    assert (
        "the oracle fails on 1 of 100 problems. Counterexample: the second digit of 37; its program 3 SAY answers 3, "
        "the target is 7"
    ) in defects(certificate)
    assert certificate.stages[0].figures["oracle"].successes == 99
    assert not certificate.sound


def test_the_end_token_as_the_key_that_submits_is_named() -> None:
    certificate = certified(echoes.SubmitsWithEnd())
    (finding,) = [found for found in certificate.findings if "the oracle fails" in found.words]
    assert "the end token submits the answer" in finding.words
    assert "Submit with another token than spec.end" in finding.line()
    assert "Fix the oracle" not in " ".join(found.line() for found in certificate.findings)


def test_an_attribute_that_hides_a_method_is_refused_in_one_line() -> None:
    task = Echo()
    task.count = 3  # type: ignore[assignment,method-assign]
    with pytest.raises(UserError, match=r"task: Echo.count is not allowed; it hides the method Task.count"):
        mn.certify(task, train=False)


def test_problems_without_a_program_are_named() -> None:
    (words,) = [words for words in defects(certified(echoes.Unreachable())) if "contract" not in words]
    assert words == (
        "the oracle fails on 1 of 100 problems and has no program for some of them, such as the second digit of 13 "
        "(target 99)"
    )


def test_an_oracle_that_may_fail_is_a_note() -> None:
    task = echoes.Unreachable()
    task.spec = dataclasses.replace(task.spec, solvable=(False,))
    certificate = certified(task)
    assert certificate.sound
    assert {f.level for f in certificate.findings} == {"note"}
    assert "fails on 1 of 100 problems, which spec.solvable allows" in certificate.findings[0].words


def test_splits_that_overlap() -> None:
    certificate = certified(echoes.Leaky())
    assert certificate.stages[0].overlap is not None
    assert certificate.stages[0].overlap.shared == 2
    assert "2 problems are in both splits, train and heldout" in defects(certificate)
    assert any("the contract is broken: splits" in words for words in defects(certificate))


def test_a_constant_answer_that_solves() -> None:
    certificate = certified(echoes.Seven())
    found = rates(certificate)
    assert found["same_answer"] == found["constant"] == 0.91
    first, second = defects(certificate)
    assert first.startswith(
        "the oracle's program for the most frequent target, played on every problem, succeeds on 91"
    )
    assert first.endswith(": 7 SAY (target 7)")
    assert second.startswith("one program, the same for all problems, succeeds on 91.0% of the problems: 7 SAY (exact")


def test_an_agent_that_does_nothing_succeeds() -> None:
    certificate = certified(echoes.Generous())
    assert rates(certificate)["end"] == 1.0
    assert "an agent that ends at once succeeds on 100.0% of the problems" in " ".join(defects(certificate))


@pytest.mark.learning
@pytest.mark.slow
def test_a_stage_that_needs_no_eyes() -> None:
    certificate = certify(echoes.Open(), seconds=50.0)  # on a busy machine; it ends sooner on an idle one
    found = rates(certificate)
    assert found["constant"] == 0.1
    assert found["blind"] > 0.9
    assert any("a network that cannot see the problem succeeds" in words for words in defects(certificate))


@pytest.mark.learning
def test_a_stage_that_needs_eyes() -> None:
    certificate = certify(Echo(), seconds=8.0)
    found = rates(certificate)
    assert found["blind"] < 0.2
    assert found["memoryless"] > 0.9, "the context can be read at any time"
    assert certificate.sound
    assert {finding.level for finding in certificate.findings} == {"note"}
    assert "updates, " in certificate.stages[0].figures["blind"].how


@pytest.mark.parametrize(("successes", "updates", "conclusive"), [(0, 5, False), (0, 50, True), (90, 5, True)])
def test_a_network_that_had_no_time_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, successes: int, updates: int, conclusive: bool
) -> None:
    trained = TrainedBaseline(successes, 100, True, updates)
    monkeypatch.setattr("modelnative.evidence.certify.train_baseline", lambda *arguments: trained)
    certificate = certify(Echo(), seconds=1.0)
    assert certificate.conclusive == conclusive
    warnings = [finding.line() for finding in certificate.findings if finding.level == "warning"]
    assert ([line for line in warnings if "too few updates" in line] != []) != conclusive
    if not conclusive:
        assert warnings[0] == (
            "warning: E: the memoryless network had too few updates to learn (5 updates, greedy), so that its failure "
            "shows nothing. Give it more --seconds."
        )
        assert certificate.as_dict()["conclusive"] is False


def test_an_exception_of_the_task_is_located() -> None:
    certificate = certified(echoes.Crashing())
    (words,) = defects(certificate)
    assert words.startswith("the contract is broken: IndexError: index 3 is out of bounds")
    assert "(echoes.py, line " in words
    assert any("cannot be measured while the contract is broken" in f.words for f in certificate.findings)
    assert rates(certificate) == {}


def test_ctrl_c_keeps_the_measurements() -> None:
    def interrupt(line: str) -> None:
        if "best fixed program" in line:
            raise KeyboardInterrupt

    certificate = certify(Echo(), train=False, progress=interrupt)
    assert certificate.interrupted
    assert set(rates(certificate)) == {"oracle", "random", "end", "start", "same_answer"}
    written = json.loads(json.dumps(certificate.as_dict()))
    assert written["stages"][0]["constant"] is None
    assert set(AGENTS) < set(written["stages"][0])


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_same_answer_of_the_calculator_is_its_most_frequent_target(stage: int) -> None:
    task = Arithmetic()
    counts: dict[str, Counter[int]] = {"all": Counter(), "train": Counter()}
    for split, counter in counts.items():
        for problems in task.enumerate(stage, split):  # type: ignore[arg-type]
            counter.update(problems.target.tolist())
    frequent = max(sorted(counts["train"], key=str), key=lambda target: counts["train"][target])
    measurement = StageMeasurement(task, stage, 100_000, lambda line: None)
    measurement.problems = ProblemSet.of(task, stage, "all", 100_000)
    measurement.measure_same_answer(ProblemSet.of(task, stage, "train", 100_000))
    assert measurement.figures["same_answer"].successes == counts["all"][frequent]
    assert f"(target {frequent})" in measurement.figures["same_answer"].how


def test_bad_input() -> None:
    for options, message in (
        ({"stage": "F"}, "stage: unknown value 'F'"),
        ({"problems": 0}, "problems: 0 is not allowed; expected"),
        ({"seconds": 0.0}, "seconds: 0.0 is not allowed"),
        ({"options": {"x": 1}}, "options: .* is not allowed beside a task that is made"),
    ):
        with pytest.raises(mn.UserError, match=message):
            mn.certify(Echo(), **options)
    for task, message in (
        ("echoes:Unfinished", "cannot be made; Unfinished lacks required methods of Task: begin"),
        (Echo, r"task: the class Echo is not allowed; expected a task: Echo\(\)"),
        (3, "task: int is not allowed; expected a task"),
    ):
        with pytest.raises(mn.UserError, match=message):
            mn.certify(task)  # type: ignore[arg-type]


def test_a_task_with_the_required_methods_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnative.evidence.certify.check_task", lambda task: None)
    certificate = certified(Bare(), problems=500)
    assert certificate.sound
    first, second = (finding.line() for finding in certificate.findings)
    assert first == (
        "note: the task has no oracle, so that oracle and commonest answer are not measured. To measure them, define "
        "`oracle`."
    )
    assert "one procedure solves 100.0% of the problems" in second
    assert not certificate.stages[0].listed
    found = rates(certificate)
    assert set(found) == {"random", "end", "start", "constant", "procedure"}
    assert 0.05 < found["constant"] < 0.2
    assert certificate.stages[0].figures["constant"].how.endswith("up to 4 tokens)"), "the horizon"
