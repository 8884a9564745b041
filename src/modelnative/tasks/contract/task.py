"""The contract of a task: a functional, batched tensor program.

The author of a task writes a subclass of `Task` and dataclasses derived from `Problems` and `State`. `check_task`
(`modelnative.tasks.contract.check`) verifies the contract.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from modelnative.errors import UserError, choose
from modelnative.errors import require as require
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.board import BoardField
from modelnative.tasks.contract.calls import Call, press_call

Split = Literal["all", "train", "heldout"]
SPLITS: tuple[Split, ...] = ("all", "train", "heldout")


@dataclass(frozen=True)
class TaskSpec:
    """The constants of a task that a policy and a trainer need. They are fixed before the first episode.

    Everything that a policy reads or writes is a token of one vocabulary: the context of a problem, the actions, and
    the feedback of the tools. A token is an int64 id, its index in `vocabulary`.

    The token `end` pads: it fills contexts, feedback and oracle programs up to their width. An oracle program is
    considered finished before its first `end`, so `end` must not be the action that submits an answer: use another
    token for that. As an action, `end` ends the episode without an answer (or has no effect).

    Attributes:
        name: the name of the task, shown in messages and reports.
        vocabulary: distinct token names; the index of a token is its id.
        stages: distinct names of the stages, easiest first.
        context_length: tokens of a problem's context, padding included; at least 1.
        feedback_width: tokens that the tools return after each action; 0 for an open loop.
        horizon: maximum number of actions in an episode; the rollout truncates longer episodes.
        start: id of the token that the policy reads before the first action.
        end: id of the padding token.
        positions: a name for each position of the context, for people; the index where there is none.
        solvable: for each stage, whether the oracle succeeds on all of its problems; empty if it does on all stages.
        actions: the first so many tokens are the actions; the others are only read, and are invalid as actions. 0: all.

    Example:
        >>> spec = TaskSpec("add", (*"0123456789", "START", "END"), ("easy",), 2, 0, 3, start=10, end=11)
        >>> spec.token_ids(["7", "END"])
        [7, 11]
    """

    name: str
    vocabulary: tuple[str, ...]
    stages: tuple[str, ...]
    context_length: int
    feedback_width: int
    horizon: int
    start: int
    end: int
    positions: tuple[str, ...] = ()
    solvable: tuple[bool, ...] = ()
    actions: int = 0

    @property
    def action_count(self) -> int:
        """The number of tokens that are actions."""
        return self.actions or len(self.vocabulary)

    def stage_index(self, stage: str) -> int:
        """Return the index of a stage. Raises `UserError` with the nearest name if there is no such stage."""
        return self.stages.index(choose("stage", stage, self.stages))

    def position_name(self, place: int) -> str:
        """Return the name of a position of the context."""
        return self.positions[place] if place < len(self.positions) else str(place)

    def token_ids(self, names: list[str]) -> list[int]:
        """Return the ids of tokens. Raises `UserError` with the nearest name if there is no such token."""
        return [self.vocabulary.index(choose("token", name, self.vocabulary)) for name in names]


@dataclass
class Problems(Batch):
    """A batch of n problems. A task derives a dataclass with the fields that its verifier needs, such as the target.

    Every field is a tensor (or another `Batch`) with n rows. A problem is determined by its fields alone: everything
    that `Task.begin` and `Task.oracle` use is in them.

    Attributes:
        stage: int64 [n], the index of the stage.
        context: int64 [n, context_length], the tokens that the policy reads, padded with `TaskSpec.end`.
        key: int64 [n], identifies the problem: equal keys if and only if the problems are equal. The key decides the
            split of a problem (`in_split`), so it must not depend on a seed or on the order of problems.
            `modelnative.tasks.contract.sampling.content_key` makes a key from the content.
    """

    stage: Tensor
    context: Tensor
    key: Tensor


@dataclass
class State(Batch):
    """A batch of n running episodes. A task derives a dataclass with its registers.

    Every field is a tensor (or another `Batch`) with n rows. `Task.step` returns a new state and does not change its
    argument.

    Attributes:
        done: bool [n], whether an action has ended the episode. The time limit is no part of the state: the rollout
            truncates after `TaskSpec.horizon` actions.
    """

    done: Tensor


P = TypeVar("P", bound=Problems)
S = TypeVar("S", bound=State)


@dataclass
class Step(Batch, Generic[S]):
    """The result of one action in each of n episodes.

    Episodes that ended before the action are unchanged: their `done` stays true; `reward` is 0, and `success` and
    `invalid` are false.

    Attributes:
        state: the next state.
        feedback: int64 [n, feedback_width], what the tools show after the action; equal to `Task.feedback(state)`.
        reward: float32 [n], finite.
        done: bool [n], equal to `state.done`.
        success: bool [n], the verdict of the verifier; true only for the action that ends an episode successfully.
        invalid: bool [n], the action had no effect: the state of the running episode did not change.
    """

    state: S
    feedback: Tensor
    reward: Tensor
    done: Tensor
    success: Tensor
    invalid: Tensor


class Task(ABC, Generic[P, S]):
    """A family of problems with its tools, its memory and an exact verifier.

    Methods are functions: state in, state out. They keep nothing of an episode and do not change their arguments. Every
    tensor has the batch as its first dimension, no method loops over the batch, and row i of a result depends on row i
    of the arguments alone. `check_task` verifies all of this.

    A subclass sets `spec` in its `__init__` and defines `sample`, `begin`, `step`, `feedback`, `records` and
    `registers`. The other methods are optional. What needs a method that a task does not define raises a `UserError`
    that names the method.

    | optional method | needed by |
    |---|---|
    | `oracle` | hints, imitation, `excess`, comparisons with the oracle |
    | `enumerate` | the verification of all problems; without it, problems are sampled |
    | `parse` | problems that a person types |
    | `render` | problems that a person reads |
    | `rules`, `prompt`, `show`, `calls` | a language model that plays the task well: `Episode` |
    | `valid` | action masks; by default, every key is tried |
    | `options` | a task with options that is stored by name |
    | `notes` | what `train` and `certify` tell the author of the task, such as errors of its tools |
    | `state_groups` | `inspect`: which registers are exchanged together |
    | `vary` | `inspect`: problems that differ in one element |
    | `board` | the episode player, if it is to show more than the registers |
    | `truncated` | a time limit that is no rule of the task: the value after it is bootstrapped |

    Attributes:
        spec: the constants.
        evaluation_size: problems that an evaluation draws of a stage and split that it cannot list.
    """

    spec: TaskSpec
    evaluation_size: int = 10_000

    @abstractmethod
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> P:
        """Draw one problem for each stage, int64 [n], uniformly from `split`, with `generator` alone."""

    @abstractmethod
    def begin(self, problems: P) -> S:
        """Return the state before the first action."""

    @abstractmethod
    def step(self, state: S, action: Tensor) -> Step[S]:
        """Apply one action, int64 [n], to each episode. Episodes that are done do not change; their reward is 0."""

    @abstractmethod
    def feedback(self, state: S) -> Tensor:
        """Return what the tools show in `state`: int64 [n, feedback_width]."""

    @abstractmethod
    def records(self, problems: P, state: S) -> list[dict[str, Any]]:
        """Describe each episode by a JSON-ready dictionary.

        Its entries are the fields of the problem, `answer` (None without one) and `target`; preferably also `problem`,
        the text that `parse` accepts.
        """

    @abstractmethod
    def registers(self, state: S, i: int) -> dict[str, str]:
        """Return the registers of the tools in episode i as text by name; the display is one of them."""

    # Optional methods

    def oracle(self, problems: P) -> Tensor:
        """Return the shortest successful program of each problem: int64 [n, horizon], padded with `TaskSpec.end`."""
        raise self._missing("oracle(problems)", "hints, imitation and comparisons with the oracle")

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[P]:
        """Yield all problems of a stage in a fixed order, at most `chunk` at a time.

        Raises:
            UserError: the stage has too many problems to list.
        """
        raise self._missing("enumerate(stage, split, chunk)", "listing all problems of a stage")

    def count(self, stage: int, split: Split = "all") -> int:
        """Return the number of problems that `enumerate` yields."""
        return sum(len(problems) for problems in self.enumerate(stage, split))

    def parse(self, stage: int, text: str) -> P:
        """Return the problem (n = 1) that a person typed.

        Raises:
            UserError: the text is no problem of the stage; the message says what is expected.
        """
        raise self._missing("parse(stage, text)", "typing a problem")

    def render(self, problems: P, i: int) -> str:
        """Return problem i as text for a person or a language model."""
        raise self._missing("render(problems, i)", "showing a problem as text")

    def rules(self) -> str:
        """Return what holds for all problems, for a language model: what the keys or calls do and what is asked."""
        return ""

    def prompt(self, problems: P, i: int) -> str:
        """Return what a language model may know of problem i before its first call: by default, the context's tokens.

        It must be a function of stage and context: what is found or shown during the episode is not in it.
        """
        spec = self.spec
        tokens = ((place, spec.vocabulary[t]) for place, t in enumerate(problems.context[i].tolist()) if t != spec.end)
        return " ".join(f"{spec.positions[k]}={name}" if k < len(spec.positions) else name for k, name in tokens)

    def show(self, row: Sequence[int]) -> str:
        """Return one row of feedback, `feedback_width` tokens, as a language model reads it; empty if it is blank."""
        return " ".join(self.spec.vocabulary[token] for token in row if token != self.spec.end)

    def calls(self) -> list[Call]:
        """Return the functions that a language model calls; by default one, `press(keys)`."""
        return [press_call(self.spec.vocabulary, self.spec.vocabulary[:3])]

    def valid(self, state: S) -> Tensor:
        """Return which tokens the tools accept as the next one: bool [n, V]; none in episodes that are done.

        Not those without effect, and not those that end the episode, whatever the problem, as none of their kind is
        expected. By default each token is tried in a step of n·V rows, and those without effect are not accepted.
        """
        n, size, device = len(state), len(self.spec.vocabulary), state.done.device
        rows, tokens = torch.arange(n, device=device).repeat_interleave(size), torch.arange(size, device=device)
        return (~self.step(state[rows], tokens.repeat(n)).invalid).view(n, size) & ~state.done[:, None]

    def options(self) -> dict[str, Any]:
        """Return the task's options as `make_task` accepts them, JSON-ready."""
        return {}

    def effective_tokens(self, state: S) -> list[int] | None:
        """Return tokens that include all that change at least one of n running episodes; None if all tokens may.

        Searches over programs then try no others. A token that is left out must be `invalid` in every episode.
        """
        return None

    def notes(self) -> list[str]:
        """Return what the task's use so far has shown and its author should know, a line each: errors of its tools."""
        return []

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        """Return which fields of the state are registers, in groups that `inspect` exchanges between two problems.

        The names of groups are for people; a field of a field is written with a dot. The group `mode`, if there is one,
        says how the others are to be read, such as which registers are filled: only episodes with equal modes exchange
        their registers. Fields in no group belong to the problem. An empty dictionary, the default, stands for one
        group `registers` of all fields that change during the episodes but for `done`.
        """
        return {}

    def vary(self, problems: P, generator: torch.Generator) -> P:
        """Return n problems of the same stages that differ from the given ones in one element, such as an operand.

        By default, other problems.
        """
        return self.sample(problems.stage, generator, "all")

    def truncated(self, state: S) -> Tensor | None:
        """Return which of n episodes are done because of a time limit that is no rule of the task: bool [n].

        An algorithm with a critic then counts the value of the state after the last action as if the episode went on.
        None, the default: the task has no such limit, and its horizon is one of its rules.
        """
        return None

    @property
    def has_oracle(self) -> bool:
        """Whether the task defines `oracle`."""
        return self.defines("oracle")

    @property
    def can_enumerate(self) -> bool:
        """Whether the task defines `enumerate`. It may still raise `UserError` for stages that are too large."""
        return self.defines("enumerate")

    def defines(self, method: str) -> bool:
        """Whether the task overrides an optional method."""
        return getattr(type(self), method) is not getattr(Task, method)

    def _missing(self, method: str, use: str) -> UserError:
        name = method.partition("(")[0]
        return UserError(f"{name}: {type(self).__name__} does not define it; expected {method}, needed for {use}")

    def board(self, state: S, i: int) -> Sequence[BoardField]:
        """Return what the episode player shows of the tools in episode i; by default the registers."""
        return [BoardField(label, text) for label, text in self.registers(state, i).items()]


AnyTask: TypeAlias = Task[Any, Any]


def hidden_methods(task: AnyTask) -> list[str]:
    """Return the methods of `Task` that attributes of a task hide, such as `self.count = 3`."""
    return [n for n in vars(Task) if callable(getattr(Task, n)) and not callable(getattr(task, n))]


def program_length(program: Tensor, end: int) -> Tensor:
    """Number of tokens before the padding of each oracle program: int64 [n, horizon] -> int64 [n].

    Example:
        >>> program_length(torch.tensor([[1, 2, 9, 9], [1, 9, 9, 9]]), end=9).tolist()
        [2, 1]
    """
    return (program != end).sum(1)


def in_split(key: Tensor, split: Split, heldout: float = 0.2) -> Tensor:
    """Whether keys belong to `split`: int64 [n] -> bool [n].

    The split is decided by a hash of the key alone, so that no seed moves a problem from one split to the other.

    Example:
        >>> key = torch.arange(100_000)
        >>> train, held = in_split(key, "train"), in_split(key, "heldout")
        >>> bool((train ^ held).all()), round(train.double().mean().item(), 2)
        (True, 0.8)
    """
    choose("split", split, SPLITS)
    if split == "all":
        return torch.ones_like(key, dtype=torch.bool)
    held = (_shift_right(mixed(key), 11).double() / (1 << 53)) < heldout
    return held if split == "heldout" else ~held


def mixed(key: Tensor) -> Tensor:
    """A bijective hash of each number: the finalizer of SplitMix64 (Steele et al., 2014), int64 of any shape."""
    key = key * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number; the product wraps around
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        key = (key ^ _shift_right(key, shift)) * factor
    return key ^ _shift_right(key, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """The logical (unsigned) right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def whole_number(text: str, most: int) -> int:
    """Return the number that ASCII digits write, or −1 if the text is no number from 0 to `most`.

    Example:
        >>> [whole_number(text, 99) for text in ("7", "099", "100", "-1", "²", "9" * 5000)]
        [7, 99, -1, -1, -1, -1]
    """
    digits = text.lstrip("0") or "0"
    short = text.isascii() and text.isdigit() and len(digits) <= len(str(most))  # `int` refuses thousands of digits
    return int(digits) if short and int(digits) <= most else -1


def replace(state: S, **changes: Tensor) -> S:
    """Return a copy of `state` with some fields changed (a typed `dataclasses.replace`)."""
    return dataclasses.replace(state, **changes)
