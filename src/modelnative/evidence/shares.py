"""Shares of episodes, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modelnative.evidence.statistics import wilson


@dataclass(frozen=True)
class Share:
    """`hits` of `trials`, with the 95% Wilson interval."""

    hits: int
    trials: int

    @property
    def rate(self) -> float | None:
        """None without trials."""
        return self.hits / self.trials if self.trials else None

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        if not self.trials:
            return {"hits": 0, "trials": 0, "rate": None, "interval": None}
        low, high = wilson(self.hits, self.trials)
        return {**vars(self), "rate": round(self.hits / self.trials, 6), "interval": [round(low, 6), round(high, 6)]}


def share(hits: Tensor, among: Tensor) -> Share:
    """Of bool [n] those among bool [n]."""
    return Share(int((hits & among).sum()), int(among.sum()))
