"""Figures that look the same whatever the user's settings of matplotlib are."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def figures(settings: dict[Any, Any]) -> Iterator[type[Figure]]:
    """Matplotlib's class of figures, under its default settings with these changed; the process's stay as they are."""
    _import_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    defaults: dict[Any, Any] = {
        name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith("backend")
    }
    with mpl.rc_context({**defaults, **settings}):
        yield Figure


def _import_matplotlib() -> None:
    """Import matplotlib, which takes half a second, and raises an error where MPLBACKEND is a name unknown to it."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            mpl.rcParams["backend"] = backend
