"""Procedures: sequences of symbols, each a token to write or a place to copy a token from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems, Step, TaskSpec

BACK = 3  # the feedback after each of so many last actions can be copied
PAD = -1  # fills procedures up to the horizon
ROWS = 1 << 14  # episodes that one thread plays at a time

Map = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]  # a `map` that may use threads


@dataclass(frozen=True)
class Symbols:
    """The numbers that the procedures of a task are written in.

    First come the tokens of the vocabulary: to write that token. Then the places of the context: to copy the token
    there. Then the places of the feedback, those of the last action first: to copy what was shown there.

    Attributes:
        spec: of the task.
    """

    spec: TaskSpec

    @property
    def tokens(self) -> int:
        """How many write a token."""
        return len(self.spec.vocabulary)

    @property
    def shown(self) -> int:
        """The first symbol that copies feedback."""
        return self.tokens + self.spec.context_length

    @property
    def count(self) -> int:
        """How many there are."""
        return self.shown + BACK * self.spec.feedback_width

    def text(self, procedure: Tensor) -> str:
        """A procedure as words, what is copied in braces: `{a} MUL {b} ADD {c} ANS`."""
        return " ".join(self._name(symbol) for symbol in procedure.tolist() if symbol != PAD)

    def _name(self, symbol: int) -> str:
        if symbol < self.tokens:
            return self.spec.vocabulary[symbol]
        if symbol < self.shown:
            return f"{{{self.spec.position_name(symbol - self.tokens)}}}"
        back, place = divmod(symbol - self.shown, self.spec.feedback_width)
        return f"{{shown{f' {place}' if self.spec.feedback_width > 1 else ''}{f', {back} before' if back else ''}}}"


def lengths(procedures: Tensor) -> Tensor:
    """Symbols of each procedure: int64 [p, horizon] -> int64 [p]."""
    return (procedures != PAD).sum(1)


def copies_feedback(task: AnyTask, procedures: Tensor) -> bool:
    """Whether any of the procedures copies feedback."""
    return bool((procedures >= Symbols(task.spec).shown).any())


class Episodes:
    """Episodes in progress, and what can be copied in them.

    Args:
        task: answers.
        problems: one for each episode.
        copy_feedback: whether feedback can be copied.
    """

    def __init__(self, task: AnyTask, problems: Problems, copy_feedback: bool) -> None:
        self.task, self.symbols, self.copy_feedback = task, Symbols(task.spec), copy_feedback
        self.context, self.state = problems.context, task.begin(problems)
        self.feedback = task.feedback(self.state)
        self.recent = self.feedback.repeat(1, BACK * copy_feedback)

    def keep(self, n: int) -> None:
        """Forget all but the first n."""
        if n < len(self.context):
            self.state, self.context = self.state[:n], self.context[:n]
            self.feedback, self.recent = self.feedback[:n], self.recent[:n]

    def written(self, symbols: Tensor) -> Tensor:
        """The tokens that symbols stand for now: int64 [n] -> int64 [n]; `PAD` is the task's `end`."""
        source = torch.cat([self.context, self.recent], 1) if self.copy_feedback else self.context
        place = (symbols - self.symbols.tokens).clamp_min(0)
        token = torch.where(symbols < self.symbols.tokens, symbols, source.gather(1, place[:, None])[:, 0])
        return torch.where(symbols == PAD, self.task.spec.end, token)

    def press(self, token: Tensor) -> Step[Any]:
        """Apply an action to each: int64 [n]."""
        step = self.task.step(self.state, token)
        self.state, self.feedback = step.state, step.feedback
        if self.copy_feedback:
            self.recent = torch.cat([step.feedback, self.recent[:, : -self.feedback.shape[1]]], 1)
        return step


class Machines:
    """Plays procedures on problems, and counts the actions.

    Args:
        task: answers.
        copy_feedback: whether feedback is copied.
        map_parts: applies a function to parts of the work.

    Attributes:
        steps: actions so far.
    """

    def __init__(self, task: AnyTask, copy_feedback: bool, map_parts: Map) -> None:
        self.task, self.copy_feedback, self.map_parts = task, copy_feedback, map_parts
        self.symbols, self.steps = Symbols(task.spec), 0

    @torch.no_grad()
    def play(self, procedures: Tensor, problems: Problems) -> tuple[Tensor, Tensor]:
        """Play every procedure on every problem.

        Args:
            procedures: int64 [p, horizon].
            problems: k of them.

        Returns:
            Whether it succeeds, bool [p, k]; and which of its symbols have an effect on none of the problems, bool
            [p, horizon].
        """
        length = lengths(procedures)
        self.steps += int(length.sum()) * len(problems)
        order = length.argsort(descending=True, stable=True)  # so that the finished ones are always the last
        success, idle = self._shared(lambda part: self._play(part, problems), procedures[order], len(problems))
        back = order.argsort()
        return success[back], idle[back]

    def rate(self, procedures: Tensor, problems: Problems) -> Tensor:
        """Share of the problems that each procedure solves: float [p]."""
        return self.play(procedures, problems)[0].float().mean(1)

    @torch.no_grad()
    def conditions(self, procedures: Tensor, problems: Problems, history: bool = False) -> tuple[Tensor, Tensor]:
        """A hash of the condition that each procedure leads to, int64 [p], and whether an episode is over, bool [p].

        Conditions are the same if the tools show the same on all problems, now and after every possible next key; with
        `history`, also before, in whatever order. All procedures must have the same length.
        """
        length = int(lengths(procedures).amax())
        self.steps += len(procedures) * len(problems) * (length + self.symbols.tokens)
        condition, over = self._shared(
            lambda part: self._look(part[:, :length], problems, history), procedures, len(problems)
        )
        return condition, over

    def _shared(self, function: Callable[[Tensor], Any], procedures: Tensor, problems: int) -> tuple[Tensor, ...]:
        parts = self.map_parts(function, procedures.split(max(1, ROWS // problems)))
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def _episodes(self, count: int, problems: Problems) -> Episodes:
        rows = torch.arange(len(problems)).repeat(count)
        return Episodes(self.task, problems[rows], self.copy_feedback)

    def _play(self, procedures: Tensor, problems: Problems) -> tuple[Tensor, Tensor]:
        (count, horizon), each, length = procedures.shape, len(problems), lengths(procedures)
        success, idle = torch.zeros(count, each, dtype=torch.bool), torch.ones(count, horizon, dtype=torch.bool)
        episodes = self._episodes(count, problems)
        for t in range(int(length.amax()) if count else 0):
            running = int((length > t).sum())
            episodes.keep(running * each)
            over = episodes.state.done
            step = episodes.press(episodes.written(procedures[:running, t].repeat_interleave(each)))
            success[:running] |= step.success.view(running, each)
            idle[:running, t] = (step.invalid | over).view(running, each).all(1)
        return success, idle

    def _look(self, procedures: Tensor, problems: Problems, history: bool) -> tuple[Tensor, Tensor]:
        count, each = len(procedures), len(problems)
        episodes = self._episodes(count, problems)
        condition = torch.zeros(count, dtype=torch.int64)
        for symbols in procedures.t():
            episodes.press(episodes.written(symbols.repeat_interleave(each)))
            if history:
                condition += _mixed(row_hash(episodes.feedback.reshape(count, -1)))
        condition += row_hash(torch.cat([episodes.feedback, episodes.recent], 1).view(count, -1))
        for key in range(self.symbols.tokens):
            if key != self.task.spec.end:
                step = self.task.step(episodes.state, torch.full((count * each,), key))
                seen = torch.cat([step.feedback, (step.invalid | step.done).long()[:, None]], 1)
                condition += row_hash(seen.view(count, -1), 1 + key)
        return condition, episodes.state.done.view(count, each).any(1)


@torch.no_grad()
def solving_programs(task: AnyTask, procedures: Tensor, problems: Problems) -> Tensor:
    """For each problem the actions of the first procedure that solves it: int64 [n, horizon].

    Args:
        task: answers.
        procedures: int64 [S, k, horizon], those of each stage; empty ones are skipped.
        problems: n of them.

    Returns:
        The actions, padded with `end`; only `end` where no procedure solves the problem.
    """
    device = problems.stage.device
    programs = torch.full((len(problems), procedures.shape[2]), task.spec.end, device=device)
    left = torch.arange(len(problems), device=device)
    for each in procedures.unbind(1):
        chosen = each.index_select(0, problems.stage[left])
        tried = lengths(chosen) > 0
        if not bool(tried.any()):
            break
        rows, chosen = left[tried], chosen[tried]
        written, success = write_programs(task, chosen, problems[rows])
        programs[rows[success]] = written[success]
        left = torch.cat([left[~tried], rows[~success]])
    return programs


@torch.no_grad()
def write_programs(task: AnyTask, procedures: Tensor, problems: Problems) -> tuple[Tensor, Tensor]:
    """What one procedure for each problem does, int64 [n, horizon].

    Returns:
        Its actions, int64 [n, horizon], padded with `end`; and whether they succeed, bool [n].
    """
    end = task.spec.end
    episodes = Episodes(task, problems, copies_feedback(task, procedures))
    programs, success = torch.full_like(procedures, end), torch.zeros_like(procedures[:, 0], dtype=torch.bool)
    for t, symbols in enumerate(procedures.t()):
        token = torch.where(episodes.state.done, end, episodes.written(symbols))
        programs[:, t] = token
        success |= episodes.press(token).success
    return programs, success


def row_hash(rows: Tensor, seed: int = 0) -> Tensor:
    """A hash of each row: int64 [n, m] -> int64 [n], a sum with random odd weights that `seed` decides."""
    weights = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=torch.Generator().manual_seed(seed))
    return (rows * (2 * weights + 1)).sum(1)


def _mixed(hashes: Tensor) -> Tensor:
    """Hashes whose sum tells sets of rows apart: int64 [n] -> int64 [n]."""
    hashes = hashes ^ (hashes >> 29)
    return hashes * hashes * 0x5BD1E995


def first_of_each(keys: Tensor) -> Tensor:
    """The rows with the first of each key, in order: int64 [n] -> int64 [m]."""
    order = keys.argsort(stable=True)
    new = torch.ones(len(keys), dtype=torch.bool)
    new[1:] = keys[order][1:] != keys[order][:-1]
    return order[new].sort()[0]


def distinct(procedures: Tensor) -> Tensor:
    """The procedures without repetitions."""
    return procedures[first_of_each(row_hash(procedures))]
