"""A small task, and networks whose memory and plans are where we put them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.policies.contract import PolicyOutput
from modelnative.tasks.contract.sampling import NumberedTask, StageTables
from modelnative.tasks.contract.task import Problems, Split, State, Step, TaskSpec, in_split

SYMBOLS = 4
CTX, SAVE, SHOW, WAIT, EOS = range(SYMBOLS, SYMBOLS + 5)
EMPTY = SYMBOLS
KEYS = 4


@dataclass
class NotebookProblems(Problems):
    """Adds the cue, and the right answer."""

    cue: Tensor
    target: Tensor


@dataclass
class NotebookState(State):
    """The notebook, what is shown, and what a verifier needs."""

    time: Tensor
    register: Tensor
    shown: Tensor
    answer: Tensor
    cue: Tensor
    target: Tensor


class Notebook(NumberedTask[NotebookProblems, NotebookState]):
    """Four keys. SAVE writes the cue, which is shown at the start, into a notebook; SHOW shows it; a symbol answers.

    The context has three symbols. The right answer is the cue, or with `plan` the sum of the three modulo 4.
    """

    def __init__(self, plan: bool = False) -> None:
        self.plan = plan
        self.spec = TaskSpec(
            name="notebook",
            vocabulary=("a", "b", "c", "d", "CTX", "SAVE", "SHOW", "WAIT", "EOS"),
            stages=("only",),
            context_length=4,
            feedback_width=1,
            horizon=KEYS,
            start=CTX,
            end=EOS,
        )
        self.tables = StageTables(self.spec.stages, self.numbers)

    def numbers(self, stage: int, split: Split) -> Tensor:
        numbers = torch.arange(SYMBOLS**4)
        return numbers[in_split(numbers, split)]

    def problems(self, stage: Tensor, numbers: Tensor) -> NotebookProblems:
        cue, p, q, r = numbers // 64, numbers // 16 % 4, numbers // 4 % 4, numbers % 4
        context = torch.stack([p, q, r, torch.full_like(p, CTX)], 1)
        return NotebookProblems(stage, context, numbers, cue, (p + q + r) % 4 if self.plan else cue)

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> NotebookProblems:
        return self.problems(stage, self.tables.draw(stage, generator, split))

    def begin(self, problems: NotebookProblems) -> NotebookState:
        zero = torch.zeros_like(problems.stage)
        return NotebookState(zero > 0, zero, zero + EMPTY, problems.cue, zero - 1, problems.cue, problems.target)

    def step(self, state: NotebookState, action: Tensor) -> Step[NotebookState]:
        running = ~state.done
        register = torch.where(running & (action == SAVE), state.cue, state.register)
        shown = torch.where(action == SHOW, register, torch.full_like(register, EMPTY))
        ends = running & (action < SYMBOLS)
        after = NotebookState(
            done=state.done | ends | (running & (state.time == KEYS - 1)),
            time=state.time + running,
            register=register,
            shown=torch.where(running, shown, state.shown),
            answer=torch.where(ends, action, state.answer),
            cue=state.cue,
            target=state.target,
        )
        success = ends & (action == state.target)
        invalid = torch.zeros_like(success)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def feedback(self, state: NotebookState) -> Tensor:
        return torch.where(state.shown == EMPTY, EOS, state.shown)[:, None]

    def records(self, problems: NotebookProblems, state: NotebookState) -> list[dict[str, Any]]:
        answers = [None if answer < 0 else answer for answer in state.answer.tolist()]
        return [{"answer": a, "target": t} for a, t in zip(answers, state.target.tolist(), strict=True)]

    def registers(self, state: NotebookState, i: int) -> dict[str, str]:
        return {"register": str(int(state.register[i])), "display": str(int(state.shown[i]))}

    def oracle(self, problems: NotebookProblems) -> Tensor:
        waits = torch.full_like(problems.stage, WAIT)
        return torch.stack([waits, waits, waits, problems.target], 1)

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return {"register": ("register",)}


class Planted(nn.Module):
    """A network without weights. Subclasses say what it keeps in mind, and what it types."""

    program = (WAIT, WAIT, WAIT)

    def initial_state(self, problems: Problems) -> dict[str, Tensor]:
        mind = torch.zeros(len(problems), SYMBOLS)
        return {"clock": torch.zeros_like(problems.stage), "mind": mind, "context": problems.context}

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return {"context": ("context",), "hidden state": ("mind", "clock")}

    def first(self, feedback: Tensor, context: Tensor) -> Tensor:
        """What it keeps in mind: int64 [n]; nothing by default."""
        return torch.full_like(feedback, EMPTY)

    def types(self, mind: Tensor, feedback: Tensor, context: Tensor) -> Tensor:
        """The last key: int64 [n]."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, feedback: Tensor, state: dict[str, Tensor]) -> PolicyOutput:
        """One token at a time."""
        clock, mind, context = state["clock"], state["mind"], state["context"]
        kept = nn.functional.one_hot(self.first(feedback[0, :, 0], context), EOS + 1)[:, :SYMBOLS].float()
        mind = torch.where(clock[:, None] == 0, kept, mind)
        action = self.types(mind.argmax(1), feedback[0, :, 0].clamp_max(SYMBOLS - 1), context)
        for time, key in enumerate(self.program):
            action = torch.where(clock == time, key, action)
        logits = nn.functional.one_hot(action, EOS + 1).float() * 9
        after = {"clock": clock + 1, "mind": mind, "context": context}
        return PolicyOutput(logits[None], torch.zeros(1, len(clock)), after)


class Inside(Planted):
    """Keeps the cue in mind."""

    def first(self, feedback: Tensor, context: Tensor) -> Tensor:
        return feedback

    def types(self, mind: Tensor, feedback: Tensor, context: Tensor) -> Tensor:
        return mind


class Outside(Planted):
    """Writes the cue into the notebook and reads it there."""

    program = (SAVE, WAIT, SHOW)

    def types(self, mind: Tensor, feedback: Tensor, context: Tensor) -> Tensor:
        return feedback


class Both(Inside):
    """Does both; which one it types depends on the problem."""

    program = (SAVE, WAIT, SHOW)

    def types(self, mind: Tensor, feedback: Tensor, context: Tensor) -> Tensor:
        return torch.where(context[:, 0] < 2, mind, feedback)


class Planner(Planted):
    """Computes the answer at the first key and keeps it in mind."""

    def first(self, feedback: Tensor, context: Tensor) -> Tensor:
        return context[:, :3].sum(1) % SYMBOLS

    def types(self, mind: Tensor, feedback: Tensor, context: Tensor) -> Tensor:
        return mind


class Spectator(Planner):
    """Keeps the same in mind, but computes the answer again when it types it."""

    def types(self, mind: Tensor, feedback: Tensor, context: Tensor) -> Tensor:
        return context[:, :3].sum(1) % SYMBOLS


class Reflex(Spectator):
    """Computes the answer when it types it, and keeps nothing in mind."""

    def first(self, feedback: Tensor, context: Tensor) -> Tensor:
        return torch.full_like(feedback, EMPTY)
