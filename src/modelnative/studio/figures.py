"""Figures that look the same whatever the user's settings of matplotlib are."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Kinds of files, and what is left out of them so that equal runs give equal files.
KINDS: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def saved(figure: Figure, kind: str, dpi: int = 150) -> bytes:
    """The content of a file of one of `KINDS`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=KINDS[kind])
    return buffer.getvalue()


@contextlib.contextmanager
def figures(settings: dict[Any, Any]) -> Iterator[type[Figure]]:
    """Matplotlib's class of figures, under its default settings with these changed; the process's stay as they are.

    Equal pictures give equal files, and a `$` in a name is no formula.
    """
    _import_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    defaults: dict[Any, Any] = {
        name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith("backend")
    }
    with mpl.rc_context({**defaults, "svg.hashsalt": "modelnative", "text.parse_math": False, **settings}):
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
