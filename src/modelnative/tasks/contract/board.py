"""What a viewer shows of a task's tools after an action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SHOWN = 300  # characters of a text, and cells of a row, that are shown


@dataclass(frozen=True)
class BoardField:
    """One labeled part of a board, such as a register, a sheet of numbers, or the pairs in a store.

    Attributes:
        label: its name. The fields of a board have distinct labels, the same after every action.
        value: text; or a tuple of texts, which is shown as a row of cells.
        marked: index of the cell that is pointed at, such as the current node of a map; −1 for none.
    """

    label: str
    value: str | tuple[str, ...]
    marked: int = -1

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: label, value, and `marked` where a cell is; long texts are cut."""
        value = [cell[:SHOWN] for cell in self.value[:SHOWN]] if isinstance(self.value, tuple) else self.value[:SHOWN]
        return {"label": self.label, "value": value, **({"marked": self.marked} if self.marked >= 0 else {})}
