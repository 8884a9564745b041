"""All stages alike."""

from __future__ import annotations

from modelnative.training.curriculum import Curriculum


class Uniform(Curriculum):
    """All stages alike, from the start."""
