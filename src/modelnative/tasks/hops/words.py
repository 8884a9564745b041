"""What a language model reads of `hops`, and what it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelnative.tasks.contract.calls import Argument, Call, pattern_call
from modelnative.tasks.contract.task import TaskSpec
from modelnative.tasks.tools.tool import Kind


class HopsWords:
    """What `Hops` says to a language model."""

    spec: TaskSpec
    size: int
    maps: int
    hop: int
    shows_left: bool

    def rules(self) -> str:
        """See `Task.rules`."""
        maps = "A hidden map" if self.maps == 1 else f"Each of {self.maps} hidden maps"
        which = "next(node)" if self.maps == 1 else "next(map, node)"
        return (
            f"{maps} has one next node for each of the nodes n0 to n{self.size - 1}. {which} shows it.\n"
            "answer(node) ends the episode. Do not guess: follow the map for as many hops as are asked for."
        )

    def prompt(self, problems: Any, i: int) -> str:
        """See `Task.prompt`."""
        hops, (first, second) = int(problems.stage[i]) + 1, problems.context[i, :2].tolist()
        start = first if self.maps == 1 else second
        which = "the map" if self.maps == 1 else f"map {first - self.size + 1}"
        return f"Start from n{start} and follow {which} {hops} time{'s' * (hops > 1)}. Where does that end?"

    def show(self, row: Sequence[int]) -> str:
        """See `Task.show`."""
        shown = [self.spec.vocabulary[row[0]]] if row[0] != self.spec.end else []
        if self.shows_left:
            shown.append("hops are left" if row[1] == self.hop else "no hop is left")
        return "; ".join(shown)

    def calls(self) -> list[Call]:
        """See `Task.calls`."""
        node = Argument((Kind(str, tuple(f"n{i}" for i in range(self.size))),), "a node")
        which = {"map": Argument((Kind(int, tuple(range(1, self.maps + 1))),), "the number of the map")}
        return [
            Call(
                "next",
                "Show the node after a node.",
                self._next_keys,
                self._read_next,
                {**(which if self.maps > 1 else {}), "node": node},
                uses="1" if self.maps == 1 else "1, or 2 with another map than before",
            ),
            pattern_call("answer", "Answer with a node, which ends the episode.", ("ANS", "node"), {"node": node}),
        ]

    def _next_keys(self, state: Any, given: Mapping[str, Any]) -> list[str]:
        chosen = given.get("map", 1) - 1
        return [given["node"]] if int(state.mode[0]) == chosen else [f"NEXT{chosen + 1}", given["node"]]

    def _read_next(self, state: Any, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
        if self.maps == 1:
            return ({"node": keys[0]}, 1) if keys[0][0] == "n" and int(state.mode[0]) == 0 else None
        if keys[0].startswith("NEXT") and len(keys) > 1 and keys[1][0] == "n":
            return {"map": int(keys[0].removeprefix("NEXT")), "node": keys[1]}, 2
        mode = int(state.mode[0])
        return ({"map": mode + 1, "node": keys[0]}, 1) if keys[0][0] == "n" and mode < self.maps else None
