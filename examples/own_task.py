"""A task of your own, whole: read some digits and type them backwards. Then it is certified, and trained on.

A task is functions over whole batches: every tensor has one row for each problem, and nothing loops over them.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import modelnative as mn
from modelnative.tasks.contract.sampling import draw_within
from modelnative.tasks.contract.task import Problems, Split, State, Step, Task, TaskSpec, in_split, require

GO, END = 10, 11  # the digits are tokens 0 to 9


@dataclass
class Digits(Problems):
    """A problem: besides what the agent reads, its length and the number that is to be typed (int64 [n])."""

    length: Tensor
    target: Tensor


@dataclass
class Typing(State):
    """An episode: its problem, how many digits are typed, and the number that they make (int64 [n])."""

    problem: Digits
    count: Tensor
    typed: Tensor


class Backwards(Task[Digits, Typing]):
    """Type the digits in the context backwards; the last one ends the episode.

    Args:
        longest: digits of the last stage, from 2 to 6; the first stage has two.
    """

    def __init__(self, longest: int = 4) -> None:
        require(2 <= longest <= 6, "longest", longest, "a number from 2 to 6")
        self.longest = longest
        self.spec = TaskSpec(
            name="backwards",
            vocabulary=(*"0123456789", "GO", "END"),
            stages=tuple(f"D{length}" for length in range(2, longest + 1)),
            context_length=longest,
            feedback_width=0,
            horizon=longest,
            start=GO,
            end=END,
        )

    def options(self) -> dict[str, Any]:
        return {"longest": self.longest}

    # Problems

    def problems(self, stage: Tensor, number: Tensor) -> Digits:
        """The problems of those stages with those numbers, from 0 to as many nines as there are digits."""
        length = stage + 2
        context = self.digits(number, length)
        place = torch.arange(self.longest, device=number.device)
        target = torch.where(context < 10, context * 10**place, 0).sum(1)
        return Digits(stage, context, stage * 10**6 + number, length, target)  # the key has all that tells them apart

    def digits(self, number: Tensor, length: Tensor) -> Tensor:
        """Numbers written in tokens, END after the last digit: int64 [n, longest]."""
        power = length[:, None] - 1 - torch.arange(self.longest, device=number.device)
        return torch.where(power < 0, END, number[:, None] // 10 ** power.clamp_min(0) % 10)

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> Digits:
        def draw(stage: Tensor) -> Digits:
            number = torch.randint(10**6, stage.shape, generator=generator, device=stage.device)
            return self.problems(stage, number % 10 ** (stage + 2))

        return draw_within(split, stage, draw)

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[Digits]:
        for number in torch.arange(10 ** (stage + 2)).split(chunk):
            problems = self.problems(torch.full_like(number, stage), number)
            yield problems[in_split(problems.key, split)]

    def oracle(self, problems: Digits) -> Tensor:
        return self.digits(problems.target, problems.length)

    # Episodes

    def begin(self, problems: Digits) -> Typing:
        zero = torch.zeros_like(problems.key)
        return Typing(zero.bool(), problems, zero, zero)

    def step(self, state: Typing, action: Tensor) -> Step[Typing]:
        running = ~state.done
        types = running & (action < GO)
        typed = torch.where(types, state.typed * 10 + action, state.typed)
        full = types & (state.count + 1 == state.problem.length)
        done = state.done | full | (action == END)
        after = replace(state, done=done, count=state.count + types, typed=typed)
        success = full & (typed == state.problem.target)
        return Step(after, self.feedback(after), success.float(), done, success, running & (action == GO))

    def feedback(self, state: Typing) -> Tensor:
        return state.count.new_empty((len(state), 0))  # no tool answers

    # What people read

    def parse(self, stage: int, text: str) -> Digits:
        require(text.isdecimal() and len(text) == stage + 2, "problem", text, f"{stage + 2} digits")
        return self.problems(torch.tensor([stage]), torch.tensor([int(text)]))

    def render(self, problems: Digits, i: int) -> str:
        return "".join(str(token) for token in problems.context[i].tolist() if token < GO)

    def records(self, problems: Digits, state: Typing) -> list[dict[str, Any]]:
        full = (state.count == problems.length).tolist()
        rows = zip(full, state.typed.tolist(), problems.target.tolist(), strict=True)
        return [
            {"digits": self.render(problems, i), "answer": typed if whole else None, "target": target}
            for i, (whole, typed, target) in enumerate(rows)
        ]

    def registers(self, state: Typing, i: int) -> dict[str, str]:
        count = int(state.count[i])
        return {"typed": f"{int(state.typed[i]):0{count}}" if count else ""}


short = Backwards(longest=3)  # a task that is made already has a name, too: own_task:short

if __name__ == "__main__":
    # On the command line: modelnative certify own_task:Backwards
    certificate = mn.certify(short, train=False)
    print("certified" if certificate.sound else certificate.findings)

    with tempfile.TemporaryDirectory() as folder:
        # On the command line: modelnative train --task own_task:short --updates 20
        finished = mn.train(short, out=Path(folder) / "run", updates=20)
        print("after 20 updates:", finished.evaluation.line())
