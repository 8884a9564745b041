"""The shape of a policy. Free of torch, so that the command line answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CoreName = Literal["gru", "transformer", "mingru", "memoryless", "tutorial-gru"]
ReaderName = Literal["sum", "gru"]
READERS: tuple[ReaderName, ...] = ("sum", "gru")
CORES: tuple[CoreName, ...] = ("gru", "transformer", "mingru", "memoryless", "tutorial-gru")


@dataclass(frozen=True)
class PolicyConfig:
    """The network."""

    width: int = 64
    """Units of the core's hidden state."""
    layers: int | None = None
    """Layers of the core; by default 1 for gru and 2 for the others."""
    heads: int = 4
    """Attention heads of the transformer; they divide the width."""
    reader: str = "sum"
    """How the context is read: sum (of its tokens, each at its place) or gru (word by word, forwards and backwards)."""
    copy_head: bool = True
    """Add a copy head: attention over the context, as probability of the tokens attended to."""
    stage_aware: bool = True
    """Tell the network the stage."""
