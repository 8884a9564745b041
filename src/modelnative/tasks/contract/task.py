"""The contract that every task fulfils: a functional, batched tensor program."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from modelnative.errors import UserError, choose
from modelnative.tasks.contract.batch import Batch

Split = Literal["all", "train", "heldout"]
SPLITS: tuple[Split, ...] = ("all", "train", "heldout")


@dataclass(frozen=True)
class TaskSpec:
    """What a policy and a trainer must know of a task; all of it is fixed before the first episode.

    Attributes:
        name: the task's name on the command line.
        vocabulary: the token names; a token's id is its place here.
        stages: the stage names, easiest first.
        context_length: tokens of a problem's context, padding included.
        feedback_width: tokens that a tool returns after each action; 0 is an open loop.
        horizon: the most actions that an episode may have.
        start: id of the token that stands before the first action.
        end: id of the token that pads contexts, feedback and oracle programs; as an action it ends an episode without
            an answer (in `tutorial`, as published, it has no effect).
        positions: a name for each place of the context, for people; its number where there is none.
        solvable: for each stage, whether the oracle succeeds on all of its problems; empty means that it does at all.
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

    def stage_index(self, stage: str) -> int:
        """The index of a stage by name; raises `UserError` naming the nearest one."""
        return self.stages.index(choose("stage", stage, self.stages))

    def position_name(self, place: int) -> str:
        """What a person calls a place of the context."""
        return self.positions[place] if place < len(self.positions) else str(place)

    def token_ids(self, names: list[str]) -> list[int]:
        """The ids of tokens by name; raises `UserError` naming the nearest one."""
        return [self.vocabulary.index(choose("token", name, self.vocabulary)) for name in names]


@dataclass
class Problems(Batch):
    """A batch of n problems.

    Attributes:
        stage: int64 [n].
        context: int64 [n, context_length], the tokens that the policy reads, padded with the end token.
        key: int64 [n], canonical: equal exactly when two problems are the same.
    """

    stage: Tensor
    context: Tensor
    key: Tensor


@dataclass
class State(Batch):
    """A batch of n episodes under way. A task's own state adds its registers.

    Attributes:
        done: bool [n]; the episode was ended by an action (never by the time limit, which is the rollout's).
    """

    done: Tensor


P = TypeVar("P", bound=Problems)
S = TypeVar("S", bound=State)


@dataclass
class Step(Batch, Generic[S]):
    """What one action of each of n episodes led to.

    Attributes:
        state: the next state.
        feedback: int64 [n, feedback_width], what the tool shows after the action.
        reward: float32 [n], 0 once an episode had ended before the action.
        done: bool [n], the episode has ended, now or before.
        success: bool [n], the verifier's verdict; true only at the action that ends an episode rightly.
        invalid: bool [n], the action had no effect although the episode was running.
    """

    state: S
    feedback: Tensor
    reward: Tensor
    done: Tensor
    success: Tensor
    invalid: Tensor


class Task(ABC, Generic[P, S]):
    """A family of problems with its tools, its memory and its exact verifier.

    State in, state out: no method keeps anything of an episode, every tensor has the batch first, nothing loops
    over the batch, and row i of a result depends on row i of the arguments alone. `check_task` tests all of it.
    """

    spec: TaskSpec

    @abstractmethod
    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> P:
        """Draw one problem for each entry of `stage` (int64 [n]), uniformly from `split`."""

    @abstractmethod
    def begin(self, problems: P) -> S:
        """The state before the first action."""

    @abstractmethod
    def step(self, state: S, action: Tensor) -> Step[S]:
        """Press one key (int64 [n]) in every episode. An episode that is done stays as it is and earns nothing."""

    @abstractmethod
    def feedback(self, state: S) -> Tensor:
        """What the tool shows in `state`: int64 [n, feedback_width]."""

    def oracle(self, problems: P) -> Tensor:
        """The shortest successful program of each problem: int64 [n, horizon], padded with the end token."""
        raise self._missing("oracle")

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[P]:
        """Every problem of a stage in a fixed order, `chunk` at a time. Raises `UserError` if they are endless."""
        raise self._missing("enumerate")

    def parse(self, stage: int, text: str) -> P:
        """The one problem (n = 1) that a person typed. Raises `UserError` saying what is expected."""
        raise self._missing("parse")

    def render(self, problems: P, i: int) -> str:
        """Problem i as a person, or a language model, would read it."""
        raise self._missing("render")

    @abstractmethod
    def records(self, problems: P, state: S) -> list[dict[str, Any]]:
        """For each episode, JSON-ready: the fields of its problem, its `answer` (None without one) and its `target`.

        Best with a field `problem`, the text that `parse` takes.
        """

    @abstractmethod
    def registers(self, state: S, i: int) -> dict[str, str]:
        """The tool's registers in episode i, by name, as a person would read them; the display is one of them."""

    @property
    def has_oracle(self) -> bool:
        """Whether the task defines `oracle`."""
        return type(self).oracle is not Task.oracle

    @property
    def can_enumerate(self) -> bool:
        """Whether the task defines `enumerate`; its problems may still be endless."""
        return type(self).enumerate is not Task.enumerate

    def _missing(self, method: str) -> UserError:
        return UserError(f"{method}: the task {self.spec.name!r} does not define it; define {method} to use this")

    def count(self, stage: int, split: Split = "all") -> int:
        """How many problems `enumerate` would yield."""
        return sum(len(problems) for problems in self.enumerate(stage, split))

    def options(self) -> dict[str, Any]:
        """The task's options as `make_task` takes them, JSON-ready."""
        return {}


AnyTask: TypeAlias = Task[Any, Any]


def program_length(program: Tensor, end: int) -> Tensor:
    """Tokens before the padding of each oracle program: int64 [n, horizon] -> int64 [n].

    Example:
        >>> program_length(torch.tensor([[1, 2, 9, 9], [1, 9, 9, 9]]), end=9).tolist()
        [2, 1]
    """
    return (program != end).sum(1)


def in_split(key: Tensor, split: Split, heldout: float = 0.2) -> Tensor:
    """Which keys belong to `split`: int64 [n] -> bool [n].

    The key alone decides, through `mixed`, so that no seed can move a problem from one split to the other.

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
    """A hash of each number, one to one: the finaliser of SplitMix64 (Steele et al., 2014), int64 of any shape."""
    key = key * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number; multiplication wraps
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        key = (key ^ _shift_right(key, shift)) * factor
    return key ^ _shift_right(key, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """The logical (unsigned) right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise a `UserError` naming `field`, `value` and what is `allowed`, unless `condition` holds."""
    if not condition:
        raise UserError(f"{field}: {value!r} is not allowed; expected {allowed}")


def replace(state: S, **changes: Tensor) -> S:
    """A copy of `state` with some fields changed (typed `dataclasses.replace`)."""
    return dataclasses.replace(state, **changes)
