"""Hops through a hidden map: a tool returns the node after a node; the answer is the node after h hops."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from modelnative.errors import choose
from modelnative.tasks.contract.board import BoardField
from modelnative.tasks.contract.sampling import content_key, draw_within, require_listable
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
    require,
    whole_number,
)
from modelnative.tasks.hops.permutations import Packing, Shuffles, cycle, nodes, shuffled
from modelnative.tasks.hops.tables import HopsTables, make_tables, ways_to_write
from modelnative.tasks.hops.words import HopsWords

COUNTS = ("scattered", "shifted", "row", "digits")
MOST_HOPS, MOST_NODES, MOST_MAPS = 100, 128, 8
SCATTERED = 12  # largest number of hops for which all 4,095 ways to scatter the marks are kept
LISTED = 500_000  # largest number of problems of a stage that is listed


@dataclass
class HopsProblems(Problems):
    """Adds the hidden maps and the answer.

    Attributes:
        maps: int64 [n, maps · words], the packed maps, one after the other; see `Packing`.
        start: int64 [n], the node to start from.
        tool: int64 [n], the map to follow.
        target: int64 [n], the node after the last hop.
    """

    maps: Tensor
    start: Tensor
    tool: Tensor
    target: Tensor


@dataclass
class HopsState(State):
    """A batch of n episodes.

    Attributes:
        mode: int64 [n], the function that takes the next node, or how the episode ended; see `HopsTables`.
        shown: int64 [n], the token on the display.
        left: int64 [n], hops of the problem minus calls made; may be negative.
        maps, target: of the problem.
    """

    mode: Tensor
    shown: Tensor
    left: Tensor
    maps: Tensor
    target: Tensor


class Hops(HopsWords, Task[HopsProblems, HopsState]):
    """Start at a node, follow a hidden map for h hops and answer with the last node (stages H1, H2, …).

    The map is accessible only through its tool: a node that is written while a tool is chosen is a call, and the
    display shows the node after it. ANS and then a node is the answer and ends the episode. With one map, its tool NEXT
    is always chosen and has no key. With several maps, the keys NEXT1, NEXT2, … choose a tool, and the context begins
    with the one to follow. Choosing a tool and ANS blank the display. A key that changes nothing is invalid.

    A map is one cycle through all nodes, uniform among all such cycles, and longer than h. So no node occurs twice, and
    without a call every node but the start is the answer with equal probability: 1 / (size − 1). A constant program
    reaches 1 / size. A memoryless policy reaches 1 / (size − 1), because the display is blank after ANS. A policy must
    remember the number of hops made and, for one key, the node.

    Args:
        hops: number of hops of the last stage, 1 to 100.
        size: number of nodes of a map, at least hops + 2, at most 128.
        maps: number of hidden maps, 1 to 8; one of them is followed.
        count: how the context encodes h. `scattered`: h marks at random among `hops` places (at most 12); `shifted`: h
            consecutive marks at a random position; `row`: marks at the first h places; `digits`: a decimal number. Only
            with the first two does a policy that is trained on few hops see marks at every place.
        feedback: `node` shows the display; `left` adds a mark while fewer than h calls were made, so that the policy
            does not need to count.

    Raises:
        UserError: an option is out of its range.

    Example:
        >>> task = Hops(hops=2, size=4)
        >>> problem = task.parse(1, "3: 2 0 3 1")
        >>> task.render(problem, 0)
        'start from n3 and follow NEXT 2 times; where does that end?'
        >>> " ".join(task.spec.vocabulary[t] for t in task.oracle(problem)[0])
        'n3 n1 ANS n0'
    """

    def __init__(
        self,
        hops: int = 6,
        size: int = 16,
        maps: int = 1,
        count: Literal["scattered", "shifted", "row", "digits"] = "scattered",
        feedback: Literal["node", "left"] = "node",
    ) -> None:
        require(1 <= hops <= MOST_HOPS, "hops", hops, f"1 to {MOST_HOPS}")
        require(hops + 2 <= size <= MOST_NODES, "size", size, f"hops + 2 = {hops + 2} to {MOST_NODES}")
        require(1 <= maps <= MOST_MAPS, "maps", maps, f"1 to {MOST_MAPS}")
        self.hops, self.size, self.maps = hops, size, maps
        self.count_as = choose("count", count, COUNTS)
        require(count != "scattered" or hops <= SCATTERED, "hops", hops, f"at most {SCATTERED} with count 'scattered'")
        self.shows_left = choose("feedback", feedback, ("node", "left")) == "left"
        self.packing = Packing(size)
        self.tables = PerDevice(lambda device: self._tables().to(device))
        self.tools = ["NEXT"] if maps == 1 else [f"NEXT{k + 1}" for k in range(maps)]
        marks = [*"0123456789"] if count == "digits" else []
        nodes = [f"n{i}" for i in range(size)]
        vocabulary = (*nodes, *(self.tools if maps > 1 else []), *marks, "HOP", "GAP", "CTX", "ANS", "EOS")
        self.hop, self.gap, self.ctx, self.ans, self.eos = range(len(vocabulary) - 5, len(vocabulary))
        self.first_digit = self.hop - len(marks)
        self.width = len(str(hops)) if count == "digits" else hops
        places = (*(["tool"] if maps > 1 else []), "start", *(f"hop {i + 1}" for i in range(self.width)))
        self.spec = TaskSpec(
            name="hops",
            vocabulary=vocabulary,
            stages=tuple(f"H{h + 1}" for h in range(hops)),
            context_length=len(places) + 1,
            feedback_width=1 + self.shows_left,
            horizon=hops + 2 + (maps > 1),
            start=self.ctx,
            end=self.eos,
            positions=places,
        )

    def options(self) -> dict[str, Any]:
        feedback = "left" if self.shows_left else "node"
        options = {"hops": self.hops, "size": self.size, "maps": self.maps}
        return {**options, "count": self.count_as, "feedback": feedback}

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> HopsProblems:
        shuffles = Shuffles(self.size, self.maps, generator)
        shuffles.draw(len(stage) * 3 // 2 + 256 if split == "train" else len(stage))  # one in five is drawn again
        tables = self.tables(stage.device)

        def draw(stage: Tensor) -> Problems:
            chance = torch.rand(2, len(stage), generator=generator, device=stage.device)
            row = (chance[0] * tables.ways.index_select(0, stage)).long() + tables.first.index_select(0, stage)
            return self._drawn(stage, row, (chance[1] * self.maps).long(), shuffles.take(len(stage)))

        return self._problems(draw_within(split, stage, draw))

    def _drawn(self, stage: Tensor, row: Tensor, tool: Tensor, orders: Sequence[Tensor]) -> Problems:
        """Return problems with their content in place of the context: the maps, a number for the rest, the target.

        Args:
            stage: int64 [n].
            row: int64 [n], how the number of hops is written: rows of `HopsTables.rows`.
            tool: int64 [n], the map to follow.
            orders: the nodes of each map in the order of its cycle, int64 [size, n]. The first one is the map to
                follow, from the start node on; it is swapped with the map at index `tool`.
        """
        cycles = [self.packing.map_of(order) for order in orders]
        maps = list(cycles)
        for k in range(1, self.maps):
            here = (tool == k)[:, None]
            maps[0], maps[k] = torch.where(here, cycles[k], maps[0]), torch.where(here, cycles[0], cycles[k])
        target = orders[0].gather(0, stage[None] + 1)[0]
        rest = (row * self.maps + tool) * self.size + orders[0][0]
        content = torch.cat([*maps, rest[:, None]], 1)
        return Problems(stage, torch.cat([content, target[:, None]], 1), content_key(content))

    def _problems(self, drawn: Problems) -> HopsProblems:
        maps, rest, target = drawn.context[:, :-2].contiguous(), *drawn.context[:, -2:].unbind(1)
        start, rest = rest % self.size, rest // self.size
        tool, row = rest % self.maps, rest // self.maps
        columns = [start[:, None], self.tables(row.device).rows.index_select(0, row).long()]
        if self.maps > 1:
            columns = [(tool + self.size)[:, None], *columns]
        return HopsProblems(drawn.stage, torch.cat(columns, 1), drawn.key, maps, start, tool, target.contiguous())

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[HopsProblems]:
        choose("split", split, SPLITS)
        tables = self.tables(torch.device("cpu"))
        ways, first = int(tables.ways[stage]), int(tables.first[stage])
        total = ways * self.maps * self.size * math.factorial(self.size - 1) ** self.maps
        require_listable(self.spec.stages[stage], total, LISTED)
        for numbers in torch.arange(total).split(chunk):
            orders, rest = [], numbers
            for k in range(self.maps):
                # The followed map is listed from every start node; for the others the start does not matter.
                swaps, least = [], 0 if k == 0 else 1
                for i in range(self.size - 1, 0, -1):
                    swaps.append(rest % (i + 1 - least) + least)
                    rest = rest // (i + 1 - least)
                orders.append(shuffled(swaps, nodes(self.size, len(numbers), numbers.device)))
            row, tool = rest // self.maps + first, rest % self.maps
            problems = self._problems(self._drawn(torch.full_like(numbers, stage), row, tool, orders))
            yield problems[in_split(problems.key, split)]

    def parse(self, stage: int, text: str) -> HopsProblems:
        written, _, way = text.partition("|")
        words = written.replace(":", " ").replace(",", " ").split()
        numbers = [whole_number(word, MOST_NODES) for word in words]
        head = 1 + (self.maps > 1)
        parts = [numbers[k : k + self.size] for k in range(head, len(numbers), self.size)]
        cycles = [cycle(part, numbers[0] if len(numbers) > 0 else 0) for part in parts]
        tool = numbers[1] - 1 if self.maps > 1 and len(numbers) > 1 else 0
        right = len(parts) == self.maps and 0 <= tool < self.maps and all(len(c) == self.size for c in cycles)
        example = ", ".join([" ".join(str((i + 1) % self.size) for i in range(self.size))] * self.maps)
        which, begin = ("", "0: ") if self.maps == 1 else (f", the map to follow (1 to {self.maps})", "0 1: ")
        allowed = (
            f"the start node{which}, then for each map the nodes after each of its {self.size} nodes, all on one "
            f"cycle, such as {begin + example!r}"
        )
        tables = self.tables(torch.device("cpu"))
        last = int(tables.ways[stage]) - 1
        number = whole_number(way.strip() or "0", last)
        require(right, "problem", text, allowed)
        require(number >= 0, "problem", text, f"after the bar, how the hops are written: a number from 0 to {last}")
        cycles[0], cycles[tool] = cycles[tool], cycles[0]
        row = tables.first[[stage]] + number
        orders = [torch.tensor(cycle)[:, None] for cycle in cycles]
        return self._problems(self._drawn(torch.tensor([stage]), row, torch.tensor([tool]), orders))

    def render(self, problems: HopsProblems, i: int) -> str:
        hops = int(problems.stage[i]) + 1
        return (
            f"start from n{int(problems.start[i])} and follow {self.tools[int(problems.tool[i])]} "
            f"{hops} time{'s' * (hops > 1)}; where does that end?"
        )

    def oracle(self, problems: HopsProblems) -> Tensor:
        """The shortest program that does not guess: with fewer than h calls, some map with the same feedback fails."""
        stage, vocabulary = problems.stage, len(self.spec.vocabulary)
        columns, node = [], problems.start
        for t in range(self.hops + 2):
            end = torch.where(stage + 1 == t, self.ans, torch.where(stage + 2 == t, problems.target, self.eos))
            columns.append(torch.where(t <= stage, node, end))
            if t < self.hops:
                node = self._image(problems.maps, problems.tool * vocabulary + node)
        tool = [] if self.maps == 1 else [problems.tool + self.size]
        return torch.stack([*tool, *columns], 1)

    # Episodes

    def begin(self, problems: HopsProblems) -> HopsState:
        none = torch.zeros_like(problems.stage)
        mode = none if self.maps == 1 else none + self.maps
        blank = none + self.eos
        return HopsState(none > 0, mode, blank, problems.stage + 1, problems.maps, problems.target)

    def step(self, state: HopsState, action: Tensor) -> Step[HopsState]:
        keys = self.tables(action.device)
        row = torch.add(action, state.mode, alpha=len(self.spec.vocabulary))
        calls, shown = keys.calls.index_select(0, row), keys.shown.index_select(0, row)
        shown = torch.where(shown < 0, state.shown, shown)
        after = HopsState(
            done=keys.done.index_select(0, row),
            mode=keys.mode.index_select(0, row),
            shown=torch.where(calls, self._image(state.maps, row), shown),
            left=state.left - calls.long(),
            maps=state.maps,
            target=state.target,
        )
        success = keys.answers.index_select(0, row) & (action == state.target)
        invalid = keys.invalid.index_select(0, row)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def _image(self, maps: Tensor, row: Tensor) -> Tensor:
        """Return the results of calls: maps int64 [n, words], rows of `HopsTables` int64 [n] -> int64 [n]."""
        keys = self.tables(row.device)
        word = maps[:, 0] if maps.shape[1] == 1 else maps.gather(1, keys.word.index_select(0, row)[:, None])[:, 0]
        return word >> keys.shift.index_select(0, row) & ((1 << self.packing.bits) - 1)

    def feedback(self, state: HopsState) -> Tensor:
        if not self.shows_left:
            return state.shown[:, None]
        return torch.stack([state.shown, torch.where(state.left > 0, self.hop, self.eos)], 1)

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return {"display register": ("shown",), "mode": ("mode",)}

    def records(self, problems: HopsProblems, state: HopsState) -> list[dict[str, Any]]:
        names, n = self.spec.vocabulary, len(problems)
        maps = self.packing.unpacked(problems.maps.view(n * self.maps, -1)).view(n, self.maps, self.size)
        answer = torch.where(state.mode == self.maps + 2, state.shown, -1)
        columns = (problems.stage, problems.start, problems.tool, problems.context, maps, answer, problems.target)
        return [
            {
                "problem": f"{start}{f' {tool + 1}' if self.maps > 1 else ''}: "
                + ", ".join(" ".join(map(str, m)) for m in maps)
                + (f" | {way}" if (way := self._ways[tuple(context[-self.width - 1 :])]) else ""),
                "hops": stage + 1,
                "start": names[start],
                "tool": self.tools[tool],
                "maps": {
                    name: dict(zip(names, map(names.__getitem__, m), strict=False))
                    for name, m in zip(self.tools, maps, strict=True)
                },
                "context": [names[token] for token in context],
                "answer": names[answer] if answer >= 0 else None,
                "target": names[target],
            }
            for stage, start, tool, context, maps, answer, target in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def registers(self, state: HopsState, i: int) -> dict[str, str]:
        mode, shown = int(state.mode[i]), int(state.shown[i])
        return {
            "function": (*self.tools, "", "ANS", "ANS", "")[mode],
            "hops left": str(int(state.left[i])),
            "display": "" if shown == self.eos else self.spec.vocabulary[shown],
        }

    def board(self, state: HopsState, i: int) -> list[BoardField]:
        """The registers, then each map as a row of cells, with the node on the display marked."""
        registers, nodes = self.registers(state, i), self.spec.vocabulary[: self.size]
        shown = registers["display"]
        marked = nodes.index(shown) if shown in nodes else -1
        fields = [BoardField(label, text) for label, text in registers.items()]
        maps = self.packing.unpacked(state.maps[i].view(self.maps, -1)).tolist()
        for tool, row in zip(self.tools, maps, strict=True):
            cells = tuple(f"{a}→{nodes[b]}" for a, b in zip(nodes, row, strict=True))
            fields.append(BoardField(f"map of {tool}", cells, marked))
        return fields

    def _tables(self) -> HopsTables:
        marks, packing = (self.first_digit, self.hop, self.gap), self.packing
        rows = [
            ways_to_write(h, self.hops, self.count_as, marks, self.width, self.ctx) for h in range(1, self.hops + 1)
        ]
        keys = len(self.spec.vocabulary)
        return make_tables(rows, self.maps, self.size, packing.words, packing.per, packing.bits, keys)

    @functools.cached_property
    def _ways(self) -> dict[tuple[int, ...], int]:
        """The number of each way to write the hops within its stage, by the tokens of the context that write it."""
        tables = self.tables(torch.device("cpu"))
        first, ways = tables.first.tolist(), tables.ways.tolist()
        rows = [tuple(row) for row in tables.rows.tolist()]
        return {rows[f + k]: k for f, count in zip(first, ways, strict=True) for k in range(count)}
