"""`check_task` accepts the library's tasks (see their own tests) and detects each violation of the contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.arithmetic.problems import ANS, EOS, ArithmeticProblems
from modelnative.tasks.arithmetic.task import Arithmetic, ArithmeticState
from modelnative.tasks.contract.calls import Call
from modelnative.tasks.contract.check import TaskError, check_task
from modelnative.tasks.contract.task import Split, Step, Task

Stepped = Step[ArithmeticState]


def with_memory(state: ArithmeticState, memory: Tensor) -> ArithmeticState:
    """The same state with other contents of the calculators' only memory cell, int64 [n]."""
    return dataclasses.replace(state, calculator=dataclasses.replace(state.calculator, cells=memory[:, None]))


class Honest(Arithmetic):
    """Small enough to be enumerated in every test; the base of the broken tasks."""

    def change_spec(self, **changes: Any) -> None:
        self.spec = dataclasses.replace(self.spec, **changes)


class DoubleName(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.change_spec(stages=("T0", "T1", "T0"))


class EndOutsideVocabulary(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.change_spec(end=18)


class NegativeHorizon(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.change_spec(horizon=0)


class SolvableOfTwoStages(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.change_spec(solvable=(True, False))


class OptionsThatAreNoJson(Honest):
    def options(self) -> dict[str, Any]:
        return {"device": torch.device("cpu")}


class FloatContext(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = super().sample(stage, generator, split)
        return dataclasses.replace(problems, context=problems.context.float())


class WideContext(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = super().sample(stage, generator, split)
        return dataclasses.replace(problems, context=problems.context.repeat(1, 2))


class UnknownToken(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = super().sample(stage, generator, split)
        return dataclasses.replace(problems, context=problems.context + 1)


class StageOfInt32(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = super().sample(stage, generator, split)
        return dataclasses.replace(problems, stage=problems.stage.int())


class KeyOfInt32(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = super().sample(stage, generator, split)
        return dataclasses.replace(problems, key=problems.key.int())


class OneTargetTooMany(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = super().sample(stage, generator, split)
        return dataclasses.replace(problems, target=torch.cat([problems.target, problems.target[:1]]))


class MutatesItsStage(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = super().sample(stage.clone(), generator, split)
        stage.zero_()
        return problems


class EnumeratesAnotherStage(Honest):
    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
        return super().enumerate(0, split, chunk)


class AnotherStage(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        return super().sample(torch.zeros_like(stage), generator, split)


class GlobalGenerator(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        return super().sample(stage, torch.default_generator, split)


class OwnGenerator(Honest):
    own = torch.Generator().manual_seed(1)

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        return super().sample(stage, self.own, split)


class IgnoresTheSplit(Honest):
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        return super().sample(stage, generator, "all")


class OverlappingSplits(Honest):
    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
        return super().enumerate(stage, "all" if split == "train" else split, chunk)

    def count(self, stage: int, split: Split = "all") -> int:
        return super().count(stage, "all" if split == "train" else split)


class EndlessOverlappingSplits(IgnoresTheSplit):
    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
        raise UserError("endless")


class SplitsWithAGap(Honest):
    """The last held-out problem of T2, one of 20,114, is in neither split."""

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
        for problems in super().enumerate(stage, split, chunk):
            yield problems[:-1] if stage == 2 and split == "heldout" else problems

    def count(self, stage: int, split: Split = "all") -> int:
        return super().count(stage, split) - (stage == 2 and split == "heldout")


class ListsTwice(Honest):
    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
        for _ in range(2):
            yield from super().enumerate(stage, split, chunk)


class Miscounts(Honest):
    def count(self, stage: int, split: Split = "all") -> int:
        return super().count(stage, split) + 1


class OneKeyForTwo(Honest):
    """Problems with different targets have equal keys; they cannot be listed, so that samples must reveal it."""

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
        raise UserError("endless")

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = super().sample(stage, generator, split)
        return dataclasses.replace(problems, target=problems.target + torch.arange(len(stage)) // 3 % 2)


class TwoKeysForOne(OneKeyForTwo):
    """The stage counts the problems that it draws."""

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        problems = Arithmetic.sample(self, stage, generator, split)
        sides = {"all": 0, "train": 1, "heldout": 2}
        return dataclasses.replace(problems, key=problems.key * 10**6 + torch.arange(len(stage)) * 3 + sides[split])


class BeginsDone(Honest):
    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        state = super().begin(problems)
        return dataclasses.replace(state, done=problems.stage == 1)


class DoneOfInts(Honest):
    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        state = super().begin(problems)
        return dataclasses.replace(state, done=state.done.long())


class OneMemoryForAll(Honest):
    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        return with_memory(super().begin(problems), torch.zeros(1, dtype=torch.int64))


class LosesARow(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, state=dataclasses.replace(step.state, earned=torch.zeros(1, 3).bool()))


class OracleOfTheDay(Honest):
    """T0 and T1 begin with either factor, as it happens."""

    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        program = super().oracle(problems)
        swap = (torch.rand(len(problems)) < 0.5) & (problems.stage < 2)
        return torch.where(swap[:, None], program[:, [2, 1, 0, *range(3, 12)]], program)


class FeedbackMutatesItsState(Honest):
    def feedback(self, state: ArithmeticState) -> Tensor:
        state.calculator.cells.add_(1)
        return super().feedback(state)


class OracleOfUnknownTokens(Honest):
    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        return super().oracle(problems) - 1


class FeedbackOfUnknownTokens(Honest):
    def feedback(self, state: ArithmeticState) -> Tensor:
        return super().feedback(state) + 1


class ListOfRewards(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        return dataclasses.replace(super().step(state, action), reward=[0.0] * len(state))


class BeginLeaks(Honest):
    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        state = super().begin(problems)
        return with_memory(state, problems.operands.sum().expand(len(problems)))


class OracleLeaks(Honest):
    """Swaps the factors where their neighbour's are larger: right, but dependent on the batch."""

    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        program = super().oracle(problems)
        swap = (problems.operands[:, 0] < problems.operands[:, 0].roll(1)) & (problems.stage < 2)
        swapped = program[:, [2, 1, 0, *range(3, program.shape[1])]]
        return torch.where(swap[:, None], swapped, program)


class StepLeaks(Honest):
    """The fault of the published tutorial: a mean over the batch."""

    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, reward=torch.where(state.done, 0.0, step.reward - step.reward.mean()))


class FeedbackLeaks(Honest):
    def feedback(self, state: ArithmeticState) -> Tensor:
        neighbour = self.recall(state.key).operands[:, :1].roll(1, 0)
        return torch.cat([super().feedback(state)[:, 1:], neighbour], 1)


class FeedbackOfFloats(Honest):
    def feedback(self, state: ArithmeticState) -> Tensor:
        return super().feedback(state).float()


class FeedbackTooNarrow(Honest):
    def feedback(self, state: ArithmeticState) -> Tensor:
        return super().feedback(state)[:, 1:]


class ShowsTheFormerState(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        return dataclasses.replace(super().step(state, action), feedback=self.feedback(state))


class DoubleReward(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, reward=step.reward.double())


class EndlessReward(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, reward=step.reward / (~step.success).float())


class ColumnOfRewards(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, reward=step.reward[:, None])


class MutatesItsState(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        state.done |= step.done
        return step


class MutatesItsAction(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        action.clamp_(max=EOS - 1)
        return step


class MutatesItsProblems(Honest):
    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        state = super().begin(problems)
        problems.target += 1
        return state


class DrawsInStep(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        noise = torch.rand(len(state)) * ~state.done
        return dataclasses.replace(step, reward=step.reward + noise)


class RewardsAfterTheEnd(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, reward=(step.state.calculator.answered & step.done).float())


class SucceedsAgain(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        calculator = step.state.calculator
        right = calculator.answered & (calculator.value == state.target)
        return dataclasses.replace(step, success=right)


class SucceedsBeforeTheEnd(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        right = (step.state.calculator.value == state.target) & ~state.done
        return dataclasses.replace(step, success=right)


class Resurrects(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        done = step.done & ~state.done
        return dataclasses.replace(step, done=done, state=dataclasses.replace(step.state, done=done))


class TwoOpinionsOfDone(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, done=step.done | (action == ANS - 1))


class TypesAfterTheEnd(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        memory = torch.where(state.done, action, step.state.calculator.cells[:, 0])
        return dataclasses.replace(step, state=with_memory(step.state, memory))


class InvalidAfterTheEnd(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, invalid=step.invalid | state.done)


class InvalidButEffective(Honest):
    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        step = super().step(state, action)
        return dataclasses.replace(step, invalid=step.invalid | ((action < 10) & ~state.done))


class WrongOracle(Honest):
    """Wrong on one problem of 111,000."""

    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        program = super().oracle(problems)
        wrong = problems.key == 2_054_321
        return torch.where(wrong[:, None], program.roll(2, 1), program)


class ReversedT2(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.change_spec(solvable=(True, True, False))

    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        program = super().oracle(problems)
        return torch.where((problems.stage == 2)[:, None], program.flip(1), program)


class OracleGoesOn(Honest):
    """Padding in front of the end."""

    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        program = super().oracle(problems)
        program[problems.stage == 0, -1] = 3
        return program


class ShortOracle(Honest):
    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        return super().oracle(problems)[:, :-1]


class RecordsAnotherAnswer(Honest):
    def records(self, problems: ArithmeticProblems, state: ArithmeticState) -> list[dict[str, Any]]:
        records = super().records(problems, state)
        return [{**r, "answer": None if r["answer"] is None else r["answer"] + 1} for r in records]


class RecordsTensors(Honest):
    def records(self, problems: ArithmeticProblems, state: ArithmeticState) -> list[dict[str, Any]]:
        return [{**r, "key": problems.key} for r in super().records(problems, state)]


class RecordsNoTarget(Honest):
    def records(self, problems: ArithmeticProblems, state: ArithmeticState) -> list[dict[str, Any]]:
        return [{"answer": r["answer"]} for r in super().records(problems, state)]


class RecordsAnotherProblem(Honest):
    def records(self, problems: ArithmeticProblems, state: ArithmeticState) -> list[dict[str, Any]]:
        return [{**r, "problem": r["problem"][::-1]} for r in super().records(problems, state)]


class RecordsTooFew(Honest):
    def records(self, problems: ArithmeticProblems, state: ArithmeticState) -> list[dict[str, Any]]:
        return super().records(problems, state)[1:]


class AnswersAtOnce(Honest):
    def records(self, problems: ArithmeticProblems, state: ArithmeticState) -> list[dict[str, Any]]:
        return [{**r, "answer": r["target"]} for r in super().records(problems, state)]


class RendersNothing(Honest):
    def render(self, problems: ArithmeticProblems, i: int) -> str:
        return ""


class RegistersOfNumbers(Honest):
    def registers(self, state: ArithmeticState, i: int) -> dict[str, str]:
        return {"display": 3}  # type: ignore[dict-item]


class PromptTellsTheTarget(Honest):
    def prompt(self, problems: Any, i: int) -> str:
        return f"make {int(problems.target[i])}"


class EmptyPrompt(Honest):
    def prompt(self, problems: Any, i: int) -> str:
        return ""


class TwoCallsOfOneName(Honest):
    def calls(self) -> list[Call]:
        return super().calls() * 2


class AcceptsNothing(Honest):
    def valid(self, state: ArithmeticState) -> Tensor:
        return torch.zeros(len(state), len(self.spec.vocabulary), dtype=torch.bool)


class AcceptsEverything(Honest):
    def valid(self, state: ArithmeticState) -> Tensor:
        return (~state.done[:, None]).repeat(1, len(self.spec.vocabulary))


BROKEN: list[tuple[type[Honest], str]] = [
    (DoubleName, "spec.stages: expected distinct names"),
    (EndOutsideVocabulary, "spec.end: is not a token of the vocabulary"),
    (NegativeHorizon, "spec.horizon: expected an integer >= 1, got 0"),
    (SolvableOfTwoStages, "spec.solvable: expected one entry for each stage"),
    (OptionsThatAreNoJson, "options: .*not JSON serializable"),
    (FloatContext, "sample: context: expected torch.int64, got torch.float32"),
    (WideContext, r"sample: context: expected shape \[256, 6\], got \[256, 12\]"),
    (UnknownToken, "sample: context: contains ids that are not in the vocabulary"),
    (StageOfInt32, "sample: stage: expected torch.int64, got torch.int32"),
    (KeyOfInt32, "sample: key: expected torch.int64, got torch.int32"),
    (OneTargetTooMany, r"sample: expected 256 rows in every field, got \[256, 257\]"),
    (MutatesItsStage, "sample: changes its argument `stage`"),
    (EnumeratesAnotherStage, "enumerate\\(T1\\): yields problems of another stage"),
    (AnotherStage, "sample: the problems are not of the requested stages"),
    (GlobalGenerator, "sample: draws from torch's global generator"),
    (OwnGenerator, "sample: the same generator state gives other problems"),
    (IgnoresTheSplit, "sample: draws problems of T0 outside the split 'train'"),
    (OverlappingSplits, "splits: train and heldout share problems of T0"),
    (EndlessOverlappingSplits, "splits: train and heldout share problems of T0"),
    (SplitsWithAGap, "splits: train and heldout together are not all of T2"),
    (ListsTwice, "enumerate\\(T0, 'all'\\): yields a key twice"),
    (Miscounts, "count\\(T0, 'all'\\): 1001, but 1000 problems are enumerated"),
    (OneKeyForTwo, "key: two different problems have the same key"),
    (TwoKeysForOne, "key: the same problem has two different keys"),
    (BeginsDone, "begin: some episodes are done before the first action"),
    (DoneOfInts, "begin: done: expected torch.bool, got torch.int64"),
    (OneMemoryForAll, r"begin: expected 256 rows in every field, got \[1, 256\]"),
    (LosesARow, r"step: state: expected 256 rows in every field, got \[1, 256\]"),
    (OracleOfTheDay, "oracle: the same arguments give two results"),
    (FeedbackMutatesItsState, "feedback: changes its argument"),
    (OracleOfUnknownTokens, "oracle: contains ids that are not in the vocabulary"),
    (FeedbackOfUnknownTokens, "feedback of the first state: contains ids that are not in the vocabulary"),
    (ListOfRewards, "step: reward: expected a tensor, got list"),
    (BeginLeaks, "begin: a row depends on other rows"),
    (OracleLeaks, "oracle: a row depends on other rows"),
    (StepLeaks, "step: a row depends on other rows"),
    (FeedbackLeaks, "feedback: a row depends on other rows"),
    (FeedbackOfFloats, "feedback of the first state: expected torch.int64, got torch.float32"),
    (FeedbackTooNarrow, r"feedback of the first state: expected shape \[256, 9\], got \[256, 8\]"),
    (ShowsTheFormerState, r"step: feedback is not `feedback\(state\)` at action 1"),
    (DoubleReward, "step: reward: expected torch.float32, got torch.float64"),
    (EndlessReward, "step: a reward is not finite"),
    (ColumnOfRewards, r"step: reward: expected shape \[256\], got \[256, 1\]"),
    (MutatesItsState, "step: changes its argument$"),
    (MutatesItsAction, "step: changes its argument `action`"),
    (MutatesItsProblems, "begin: changes its argument"),
    (DrawsInStep, "step: the same arguments give two results"),
    (RewardsAfterTheEnd, "step: an episode that was done earns a reward"),
    (SucceedsAgain, "step: an episode that was done succeeds again"),
    (SucceedsBeforeTheEnd, "step: success without the end of the episode"),
    (Resurrects, "step: an episode that was done is not done"),
    (TwoOpinionsOfDone, "step: done is not `state.done`"),
    (TypesAfterTheEnd, "step: an action after the end changes the state"),
    (InvalidAfterTheEnd, "step: an action after the end counts as invalid"),
    (InvalidButEffective, "step: an invalid action changes the state"),
    (WrongOracle, "oracle: fails on 1 of .* problems of T2, such as 'a=5 b=4 c=3 d=2 e=1"),
    (OracleGoesOn, "oracle: a program of T0 contains the end token before its last action"),
    (ShortOracle, r"oracle: expected shape \[256, 12\], got \[256, 11\]"),
    (RecordsAnotherAnswer, "records: success, but the answer is not the target"),
    (RecordsTensors, "records: .*not JSON serializable"),
    (RecordsNoTarget, "records: lacks target"),
    (RecordsAnotherProblem, "records: parse returns a problem with another key for '"),
    (RecordsTooFew, "records: expected 256 records, got 255"),
    (AnswersAtOnce, "records: an answer before the first action"),
    (RendersNothing, "render: expected a text that is not empty"),
    (RegistersOfNumbers, "registers: expected names and values that are strings"),
    (PromptTellsTheTarget, "prompt: tells more than stage and context do: 'make "),
    (EmptyPrompt, "prompt: expected a text that is not empty"),
    (TwoCallsOfOneName, "calls: expected calls with distinct names"),
    (AcceptsNothing, "valid: does not accept action 1 of an oracle's program"),
    (AcceptsEverything, "valid: accepts a token without effect"),
]


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_catches(broken: type[Honest], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check_task(broken())


def test_accepts_what_they_are_made_of() -> None:
    check_task(Honest())


def test_a_stage_may_be_declared_unsolvable() -> None:
    check_task(ReversedT2())
    task = ReversedT2()
    task.change_spec(solvable=())
    with pytest.raises(TaskError, match=r"oracle: .*T2"):
        check_task(task)


@pytest.mark.parametrize("seed", range(5))
def test_every_seed_and_size_accepts_an_honest_task(seed: int) -> None:
    check_task(Honest(), samples=2 + 7 * seed, seed=seed, limit=1_000)


def test_accepts_an_endless_task() -> None:
    class Endless(Honest):
        def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
            raise UserError("endless")

    check_task(Endless())


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(TaskError, match="str is not a subclass of Task"):
        check_task("arithmetic")  # type: ignore[arg-type]


# Optional methods


class Bare(Task[ArithmeticProblems, ArithmeticState]):
    """The pocket calculator with the required methods alone."""

    def __init__(self) -> None:
        self.inner = Honest()
        self.spec = self.inner.spec

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        return self.inner.sample(stage, generator, split)

    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        return self.inner.begin(problems)

    def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
        return self.inner.step(state, action)

    def feedback(self, state: ArithmeticState) -> Tensor:
        return self.inner.feedback(state)

    def records(self, problems: ArithmeticProblems, state: ArithmeticState) -> list[dict[str, Any]]:
        return self.inner.records(problems, state)

    def registers(self, state: ArithmeticState, i: int) -> dict[str, str]:
        return self.inner.registers(state, i)


def test_optional_methods_may_be_missing_and_say_so_when_they_are_called() -> None:
    task = Bare()
    check_task(task, samples=64)
    assert (task.has_oracle, task.can_enumerate, task.options()) == (False, False, {})
    problems = task.sample(torch.zeros(2, dtype=torch.int64), torch.Generator().manual_seed(0))
    for name, call in {
        "oracle": lambda: task.oracle(problems),
        "enumerate": lambda: task.enumerate(0),
        "parse": lambda: task.parse(0, "1 2 3"),
        "render": lambda: task.render(problems, 0),
    }.items():
        with pytest.raises(
            UserError, match=rf"^{name}: Bare does not define it; expected {name}\(.*, needed for [^\n]+$"
        ):
            call()
    with pytest.raises(UserError, match=r"^enumerate: Bare does not define it"):
        task.count(0)


@pytest.mark.parametrize("name", ["oracle", "enumerate", "parse", "render", "count", "options"])
def test_a_task_with_one_optional_method_is_checked(name: str) -> None:
    kind = type("Nearly", (Bare,), {name: lambda self, *args, **kwargs: getattr(self.inner, name)(*args, **kwargs)})
    task = kind()
    assert (task.has_oracle, task.can_enumerate) == (name == "oracle", name == "enumerate")
    check_task(task, samples=64, limit=1_000)


@pytest.mark.parametrize("name", ["oracle", "enumerate", "parse", "render", "count", "options"])
def test_a_task_without_one_optional_method_is_checked(name: str) -> None:
    kind = type("Nearly", (Honest,), {name: getattr(Task, name)})
    check_task(kind(), samples=64, limit=1_000)


def test_a_broken_method_is_found_without_the_others() -> None:
    class ResurrectsAlone(Bare):
        def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
            return Resurrects().step(state, action)

    with pytest.raises(TaskError, match="step: an episode that was done is not done"):
        check_task(ResurrectsAlone())


def test_an_attribute_that_hides_a_method_is_named() -> None:
    task = Honest()
    task.count = torch.zeros(3)  # type: ignore[assignment,method-assign]
    with pytest.raises(TaskError, match=r"count: is an attribute that hides the method Task.count; rename it"):
        check_task(task)


def test_the_end_token_as_the_key_that_submits_is_named() -> None:
    class SubmitsWithEnd(Honest):
        def oracle(self, problems: ArithmeticProblems) -> Tensor:
            program = super().oracle(problems)
            return program.masked_fill(program == ANS, EOS)

        def step(self, state: ArithmeticState, action: Tensor) -> Stepped:
            return super().step(state, torch.where(action == EOS, ANS, action))

    with pytest.raises(TaskError, match=r"the end token submits its answer.*use another token"):
        check_task(SubmitsWithEnd())
