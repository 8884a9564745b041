"""The configuration of a policy. Free of torch, so that the command line answers at once."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from modelnative.policies.config_model import ConfigError, ConfigModel, not_allowed
from modelnative.policies.registry import CORES as CORES

ReaderName = Literal["sum", "gru"]
READERS: tuple[ReaderName, ...] = ("sum", "gru")


class PolicyConfig(ConfigModel):
    """The network."""

    width: int = Field(default=64, ge=1, le=16384)
    """Size of the core's hidden state."""
    layers: int | None = Field(default=None, ge=1, le=128)
    """Number of layers of the core. By default 1 for gru and 2 for the others."""
    heads: int = Field(default=4, ge=1, le=1024)
    """Number of attention heads of the transformer. Must divide the width."""
    reader: ReaderName = "sum"
    """How the context is encoded: sum (position-dependent embeddings, added up) or gru (a bidirectional GRU; the width
    must be even)."""
    copy_head: bool = True
    """Add a copy head: attention over the context that puts probability on the attended tokens."""
    stage_aware: bool = True
    """Give the stage to the network as an input."""

    @model_validator(mode="after")
    def _check_reader(self) -> Self:
        if self.reader == "gru" and self.width % 2:
            raise ConfigError(("width",), not_allowed(self.width, "an even number, because reader is gru"))
        return self
