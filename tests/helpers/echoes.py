"""A task of a hundred problems that is certified quickly, and defective variants, such as `echoes:Echo`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.sampling import draw_within
from modelnative.tasks.contract.task import Problems, Split, State, Step, Task, TaskSpec, in_split, replace

LOOK, SAY, GO, END = range(10, 14)
PROBLEMS = 100


@dataclass
class Numbers(Problems):
    """Adds `target`, int64 [n], the digit to type."""

    target: Tensor


@dataclass
class EchoState(State):
    """Adds the problems, the last digit typed (−1 without one), and whether the last key was LOOK."""

    problem: Numbers
    digit: Tensor
    looking: Tensor


class Echo(Task[Numbers, EchoState]):
    """The context is a number of two digits; type the second and SAY. LOOK does nothing."""

    def __init__(self) -> None:
        self.spec = TaskSpec(
            name="echo",
            vocabulary=(*"0123456789", "LOOK", "SAY", "GO", "END"),
            stages=("E",),
            context_length=2,
            feedback_width=1,
            horizon=4,
            start=GO,
            end=END,
        )

    def target(self, number: Tensor) -> Tensor:
        return number % 10

    def problems(self, number: Tensor) -> Numbers:
        context = torch.stack([number // 10, number % 10], 1)
        return Numbers(torch.zeros_like(number), context, number, self.target(number))

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> Numbers:
        def draw(stage: Tensor) -> Numbers:
            return self.problems(torch.randint(PROBLEMS, stage.shape, generator=generator))

        return draw_within(split, stage, draw)

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[Numbers]:
        numbers = torch.arange(PROBLEMS)
        for part in numbers[in_split(numbers, split)].split(chunk):
            yield self.problems(part)

    def begin(self, problems: Numbers) -> EchoState:
        no = torch.zeros_like(problems.key, dtype=torch.bool)
        return EchoState(no, problems, torch.full_like(problems.key, -1), no)

    def ends(self, action: Tensor) -> Tensor:
        return action == SAY

    def step(self, state: EchoState, action: Tensor) -> Step[EchoState]:
        running = ~state.done
        types, looks = running & (action < LOOK), running & (action == LOOK) & ~state.looking & self.shows
        says, leaves = running & self.ends(action), running & (action == END)
        after = replace(
            state,
            done=state.done | says | leaves,
            digit=torch.where(types, action, state.digit),
            looking=torch.where(running & (types | looks), looks, state.looking),
        )
        success = self.verdict(after) & says
        invalid = running & ~(types | looks | says | leaves)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    shows = False

    def verdict(self, state: EchoState) -> Tensor:
        return state.digit == state.problem.target

    def feedback(self, state: EchoState) -> Tensor:
        return torch.where(state.looking, state.problem.target, END)[:, None]

    def oracle(self, problems: Numbers) -> Tensor:
        program = torch.full((len(problems), 4), END)
        program[:, 0], program[:, 1] = problems.target, SAY
        return program

    def parse(self, stage: int, text: str) -> Numbers:
        if not (text.isdigit() and int(text) < PROBLEMS):
            raise UserError(f"problem: {text!r} is not allowed; expected a number below {PROBLEMS}")
        return self.problems(torch.tensor([int(text)]))

    def render(self, problems: Numbers, i: int) -> str:
        return f"the second digit of {int(problems.key[i]):02}"

    def records(self, problems: Numbers, state: EchoState) -> list[dict[str, Any]]:
        columns = (problems.key, state.digit, state.done, problems.target)
        return [
            {"number": number, "answer": digit if done and digit >= 0 else None, "target": target}
            for number, digit, done, target in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def registers(self, state: EchoState, i: int) -> dict[str, str]:
        return {"display": str(int(state.digit[i]))}


class SubmitsWithEnd(Echo):
    """END submits, and pads programs all the same."""

    def ends(self, action: Tensor) -> Tensor:
        return action == END

    def oracle(self, problems: Numbers) -> Tensor:
        program = super().oracle(problems)
        return program.masked_fill(program == SAY, END)


class Mistaken(Echo):
    """The oracle is wrong about 37."""

    def oracle(self, problems: Numbers) -> Tensor:
        program = super().oracle(problems)
        program[problems.key == 37, 0] = 3
        return program


class Unreachable(Echo):
    """The target of 13 is no digit, and the oracle has no program for it."""

    def target(self, number: Tensor) -> Tensor:
        return torch.where(number == 13, 99, super().target(number))

    def oracle(self, problems: Numbers) -> Tensor:
        none = problems.target == 99
        target = torch.where(none, 0, problems.target)
        return torch.where(none[:, None], END, super().oracle(replace_target(problems, target)))


def replace_target(problems: Numbers, target: Tensor) -> Numbers:
    return Numbers(problems.stage, problems.context, problems.key, target)


class Leaky(Echo):
    """Two training problems are also listed among the held-out ones."""

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[Numbers]:
        yield from super().enumerate(stage, split, chunk)
        if split == "heldout":
            numbers = torch.arange(PROBLEMS)
            yield self.problems(numbers[in_split(numbers, "train")][:2])


class Seven(Echo):
    """The target is nearly always 7."""

    def target(self, number: Tensor) -> Tensor:
        return torch.where(number < 90, 7, number % 10)


class Open(Echo):
    """LOOK shows the target, so that the context is not needed."""

    shows = True


class Blank(Open):
    """The same with a blank context: LOOK is needed."""

    def problems(self, number: Tensor) -> Numbers:
        context = torch.full((len(number), 2), END)
        return Numbers(torch.zeros_like(number), context, number, self.target(number))


class Shown(Echo):
    """The context is blank; the target is shown until a digit is typed."""

    def problems(self, number: Tensor) -> Numbers:
        return Blank.problems(self, number)  # type: ignore[arg-type]

    def feedback(self, state: EchoState) -> Tensor:
        return torch.where(state.digit < 0, state.problem.target, END)[:, None]


class Named(Shown):
    """The same with the first digit in the context, which is of no use."""

    def problems(self, number: Tensor) -> Numbers:
        context = torch.stack([number // 10, torch.full_like(number, END)], 1)
        return Numbers(torch.zeros_like(number), context, number, self.target(number))


class Generous(Echo):
    """Ending without an answer is right."""

    def ends(self, action: Tensor) -> Tensor:
        return (action == SAY) | (action == END)

    def verdict(self, state: EchoState) -> Tensor:
        return super().verdict(state) | (state.digit == -1)


class Crashing(Echo):
    """Its `step` indexes past the end of a table."""

    def step(self, state: EchoState, action: Tensor) -> Step[EchoState]:
        return super().step(state, torch.arange(3)[action])


class Unfinished(Task[Numbers, EchoState]):
    """Defines no method."""


class Endless(Echo):
    """Too many problems to list."""

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[Numbers]:
        raise UserError("too many to list: as many as there are")
