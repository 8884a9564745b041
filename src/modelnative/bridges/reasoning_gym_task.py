"""The datasets of reasoning-gym as tasks: read a question character by character, type the answer, press ANS.

    modelnative train --task modelnative.bridges.reasoning_gym_task:ReasoningGym --options dataset=spell_backward

Needs the extra `reasoning-gym`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.bridges.reasoning_gym import TESTED
from modelnative.errors import UserError, choose, in_words
from modelnative.extras import optional
from modelnative.tasks.contract.sampling import StageTables, content_key
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import (
    SPLITS,
    Problems,
    Split,
    State,
    Step,
    Task,
    TaskSpec,
    in_split,
    replace,
    require,
)

RIGHT = 0.99  # some scorers pay 0.01 or 0.05 for any answer
REMEMBERED = 1_000_000  # verdicts of the dataset's scorer that are kept
LONGEST = 512  # characters of a question without what all questions have in common
NAMES = {" ": "SPACE", "\n": "LINE"}


@dataclass
class QuestionProblems(Problems):
    """Adds `row`, int64 [n], the index of the question, and `answer`, int64 [n, width], its characters, then END."""

    row: Tensor
    answer: Tensor


@dataclass
class QuestionState(State):
    """Adds `row`, `answer` (of the problem), and `typed`, int64 [n, width], the characters so far, then END."""

    row: Tensor
    answer: Tensor
    typed: Tensor


class ReasoningGym(Task[QuestionProblems, QuestionState]):
    """A dataset of reasoning-gym: the answer is typed character by character, then ANS ends the episode.

    An answer that equals the dataset's is right. Where the dataset has a scorer of its own, so is every answer that it
    scores with 0.99 or more: a wrong answer may earn 0.05 there. What all questions begin or end with is left out.

    Args:
        dataset: its name, such as `chain_sum`.
        size: number of questions that are drawn; equal ones are kept once.
        seed: of the dataset.
        config: the fields of the dataset's configuration, such as `max_terms=2`.

    Raises:
        UserError: there is no such dataset, its configuration is not allowed, or its questions are too long.
    """

    def __init__(self, dataset: str, size: int = 2000, seed: int = 0, **config: Any) -> None:
        gym = optional("reasoning_gym", "reasoning-gym", *TESTED, package="reasoning-gym")
        choose("dataset", dataset, gym.factory.DATASETS)
        require(10 <= size <= 1_000_000, "size", size, "10 to 1,000,000")
        try:
            self.dataset = gym.create_dataset(dataset, seed=seed, size=size, **config)
            entries = {entry["question"]: entry for entry in (self.dataset[i] for i in range(size))}
        except (AssertionError, TypeError, ValueError) as error:
            raise UserError(f"dataset: {dataset} cannot be made; {in_words(error)}") from error
        self.chosen = {"dataset": dataset, "size": size, "seed": seed, **config}
        self.entries = [e for e in entries.values() if self.dataset.score_answer(e["answer"], e) >= RIGHT]
        require(len(self.entries) >= 10, "dataset", dataset, "at least 10 questions with text answers that it accepts")
        own = type(self.dataset).score_answer is not gym.dataset.ProceduralDataset.score_answer
        self.has_scorer, self._scores = own, dict[tuple[int, str], bool]()
        answers = [entry["answer"] for entry in self.entries]
        self.begins, self.texts, self.ends = _trimmed([entry["question"] for entry in self.entries])
        length, self.width = max(map(len, self.texts)), max(map(len, answers))
        require(
            length <= LONGEST, "dataset", dataset, f"questions of at most {LONGEST} characters; these have {length}"
        )
        self.characters = sorted({character for text in (*self.texts, *answers) for character in text})
        names = [NAMES.get(character, character) for character in self.characters]
        self.start, self.ans, self.end = range(len(names), len(names) + 3)
        self.spec = TaskSpec(
            name="reasoning-gym",
            vocabulary=(*names, "START", "ANS", "END"),
            stages=(dataset,),
            context_length=max(1, length),
            feedback_width=0,
            horizon=self.width + 1,
            start=self.start,
            end=self.end,
        )
        context, answer = self._encoded(self.texts, max(1, length)), self._encoded(answers, self.width)
        row, zero = torch.arange(len(self.entries)), torch.zeros(len(self.entries), dtype=torch.int64)
        listed = QuestionProblems(zero, context, content_key(context), row, answer)
        self._listed = PerDevice(listed.to)
        self._parts = {split: in_split(listed.key, split).nonzero()[:, 0] for split in SPLITS}
        self._rows = StageTables(self.spec.stages, lambda stage, split: self._parts[split])

    def options(self) -> dict[str, Any]:
        return self.chosen

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> QuestionProblems:
        return self._listed(stage.device)[self._rows.draw(stage, generator, split)]

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[QuestionProblems]:
        for rows in self._parts[split].split(chunk):
            if len(rows):
                yield self._listed(torch.device("cpu"))[rows]

    def count(self, stage: int, split: Split = "all") -> int:
        return len(self._parts[split])

    def parse(self, stage: int, text: str) -> QuestionProblems:
        require(
            text in self.texts, "problem", text, f"one of the {len(self.texts)} questions, such as {self.texts[0]!r}"
        )
        return self._listed(torch.device("cpu"))[torch.tensor([self.texts.index(text)])]

    def render(self, problems: QuestionProblems, i: int) -> str:
        return str(self.entries[int(problems.row[i])]["question"])

    def prompt(self, problems: QuestionProblems, i: int) -> str:
        """See `Task.prompt`."""
        return f"{self.begins}{self._text(problems.context[i].tolist())}{self.ends}"

    def rules(self) -> str:
        """See `Task.rules`."""
        return "Answer the question: press one key for each character of the answer, then ANS."

    def oracle(self, problems: QuestionProblems) -> Tensor:
        ended = (problems.answer == self.end).int().cumsum(1)
        program = torch.where(ended == 1, torch.where(ended.cumsum(1) == 1, self.ans, self.end), problems.answer)
        last = torch.where(ended[:, -1:] > 0, self.end, self.ans)
        return torch.cat([program, last], 1)

    def records(self, problems: QuestionProblems, state: QuestionState) -> list[dict[str, Any]]:
        answered = state.done & (state.typed[:, 0] != self.end)
        rows = zip(problems.row.tolist(), answered.tolist(), state.typed.tolist(), strict=True)
        return [
            {
                "problem": self.texts[row],
                "question": self.entries[row]["question"],
                "answer": self._text(typed) if given else None,
                "target": self.entries[row]["answer"],
            }
            for row, given, typed in rows
        ]

    # Episodes

    def begin(self, problems: QuestionProblems) -> QuestionState:
        typed = torch.full_like(problems.answer, self.end)
        return QuestionState(torch.zeros_like(problems.row, dtype=torch.bool), problems.row, problems.answer, typed)

    def step(self, state: QuestionState, action: Tensor) -> Step[QuestionState]:
        count = (state.typed != self.end).sum(1)
        running = ~state.done
        types = running & (action < self.start) & (count < self.width)
        answers, ends = running & (action == self.ans), running & (action == self.end)
        place = count.clamp_max(self.width - 1)[:, None]
        typed = state.typed.scatter(1, place, torch.where(types, action, state.typed.gather(1, place)[:, 0])[:, None])
        success = answers & (typed == state.answer).all(1)
        if self.has_scorer:
            others = (answers & ~success).nonzero()[:, 0]
            right = [self._accepts(int(state.row[i]), self._text(typed[i].tolist())) for i in others.tolist()]
            success = success.index_copy(0, others, torch.tensor(right, dtype=torch.bool, device=success.device))
        after = replace(state, done=state.done | answers | ends, typed=typed)
        invalid = running & ~(types | answers | ends)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def feedback(self, state: QuestionState) -> Tensor:
        return state.row.new_empty(len(state), 0)

    def registers(self, state: QuestionState, i: int) -> dict[str, str]:
        return {"typed": self._text(state.typed[i].tolist())}

    def _accepts(self, row: int, text: str) -> bool:
        """Whether the dataset's scorer accepts an answer; the verdicts are kept, up to a number of them."""
        if (row, text) not in self._scores:
            if len(self._scores) >= REMEMBERED:
                self._scores.clear()
            try:
                score = self.dataset.score_answer(text, self.entries[row])
            except Exception:  # noqa: BLE001  # what a scorer cannot read is wrong
                score = 0.0
            self._scores[row, text] = bool(score >= RIGHT)
        return self._scores[row, text]

    def _encoded(self, texts: list[str], width: int) -> Tensor:
        ids = {character: i for i, character in enumerate(self.characters)}
        return torch.tensor([[*(ids[c] for c in text), *[self.end] * (width - len(text))] for text in texts])

    def _text(self, tokens: list[int]) -> str:
        return "".join(self.characters[token] for token in tokens if token < self.start)


def _trimmed(texts: list[str]) -> tuple[str, list[str], str]:
    """What all texts begin with, the texts without what all have in common, and what all of them end with.

    Example:
        >>> _trimmed(["What is 1 + 2?", "What is 31 + 4?"])
        ('What is ', ['1 + 2', '31 + 4'], '?')
    """
    first = _common(texts)
    rest = [text[first:] for text in texts]
    last = _common([text[::-1] for text in rest])
    end = rest[0][len(rest[0]) - last :]
    return texts[0][:first], [text[: len(text) - last] for text in rest], end


def _common(texts: list[str]) -> int:
    """The number of characters that all texts begin with; those between the least and the greatest begin alike."""
    least, greatest = min(texts), max(texts)
    return next((k for k, c in enumerate(least) if k >= len(greatest) or greatest[k] != c), len(least))
