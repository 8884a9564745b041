"""The hidden maps of a hops problem, as an episode player shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelnative.tasks.contract.board import BoardField

if TYPE_CHECKING:
    from modelnative.tasks.hops.task import Hops, HopsState


def map_board(task: Hops, state: HopsState, i: int) -> list[BoardField]:
    """The registers, then each map as a row of cells, with the node on the display marked."""
    registers, nodes = task.registers(state, i), task.spec.vocabulary[: task.size]
    shown = registers["display"]
    marked = nodes.index(shown) if shown in nodes else -1
    fields = [BoardField(label, text) for label, text in registers.items()]
    for tool, row in zip(task.tools, task.packing.unpacked(state.maps[i].view(task.maps, -1)).tolist(), strict=True):
        fields.append(
            BoardField(f"map of {tool}", tuple(f"{a}→{nodes[b]}" for a, b in zip(nodes, row, strict=True)), marked)
        )
    return fields
