"""Live environments as a cache of positions, so that stateful environments answer functional questions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from modelnative.errors import UserError
from modelnative.tasks.gymnasium.bank import Answers

LEAST = 64  # environments that may be live however few episodes are played


class AnyBank(Protocol):
    """`Bank` or `WorkerBank`."""

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Answers: ...
    def step(self, slots: Sequence[int], actions: Sequence[list[int]]) -> Answers: ...


class Positions:
    """Episodes that are continued where a live environment stands, and replayed from their seed where none does.

    A position is a number that identifies a seed and the actions since. A step takes the environment that stands at a
    position and leaves it at the next one. Whoever steps from the same position twice, or from one whose environment
    was given to another episode, gets the same answer, from an environment that repeats the episode.

    Args:
        bank: the environments.
        name: for messages.
    """

    def __init__(self, bank: AnyBank, name: str) -> None:
        self._bank, self._name = bank, name
        self._standing: dict[int, list[int]] = {}  # position -> slots, the one used last at the end
        self._free: list[int] = []
        self._slots, self._most = 0, LEAST
        self._lock = threading.Lock()  # the trainer may play parts of a batch in several threads
        self.replayed = 0

    def begin(self, seeds: Sequence[int], positions: Sequence[int]) -> Answers:
        """Begin an episode for each seed; its environment then stands at the position given."""
        with self._lock:
            self._most = max(self._most, 2 * len(seeds))
            slots = [self._take_any() for _ in seeds]
            answers = self._bank.reset(slots, seeds)
            for slot, position in zip(slots, positions, strict=True):
                self._leave(slot, position)
            return answers

    def step(
        self,
        seeds: Sequence[int],
        histories: Callable[[int], list[list[int]]],
        positions: Sequence[int],
        actions: Sequence[list[int]],
        after: Sequence[int],
    ) -> Answers:
        """Act in m episodes.

        Args:
            seeds: of the episodes.
            histories: returns the actions so far of an episode by its index, where it must be repeated.
            positions: where the episodes stand.
            actions: to take.
            after: the positions after them.
        """
        with self._lock:
            slots = [self._take(position) for position in positions]
            missing = [i for i, slot in enumerate(slots) if slot is None]
            for i in missing:
                slots[i] = self._take_any()
            taken = [slot for slot in slots if slot is not None]
            if missing:
                self._replay([taken[i] for i in missing], [seeds[i] for i in missing], [histories(i) for i in missing])
            answers = self._bank.step(taken, actions)
            over = (answers.terminated | answers.truncated).tolist()
            for slot, position, ended in zip(taken, after, over, strict=True):
                if ended:
                    self._free.append(slot)
                else:
                    self._leave(slot, position)
            return answers

    def _replay(self, slots: list[int], seeds: list[int], histories: list[list[list[int]]]) -> None:
        self.replayed += len(slots)
        self._bank.reset(slots, seeds)
        for t in range(max(map(len, histories))):
            rows = [i for i, history in enumerate(histories) if t < len(history)]
            answers = self._bank.step([slots[i] for i in rows], [histories[i][t] for i in rows])
            if (answers.terminated | answers.truncated).any():
                raise UserError(
                    f"{self._name}: the same seed and actions led elsewhere the second time; expected an environment "
                    "whose chance comes from self.np_random alone"
                )

    def _take(self, position: int) -> int | None:
        standing = self._standing.get(position)
        if standing is None:
            return None
        slot = standing.pop()
        if not standing:
            del self._standing[position]
        return slot

    def _leave(self, slot: int, position: int) -> None:
        standing = self._standing.pop(position, [])
        self._standing[position] = [*standing, slot]

    def _take_any(self) -> int:
        """A slot that no episode stands in; beyond `_most`, that of the episode that was continued least recently."""
        if self._free:
            return self._free.pop()
        if self._slots >= self._most and self._standing:
            slot = self._take(next(iter(self._standing)))
            assert slot is not None
            return slot
        self._slots += 1
        return self._slots - 1
