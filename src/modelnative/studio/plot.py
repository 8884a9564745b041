"""The learning curves of a run as a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from modelnative.errors import UserError, choose, in_words, require, require_path
from modelnative.runs.files import write
from modelnative.runs.run import Run
from modelnative.studio.figures import figures
from modelnative.studio.report import PART_ERRORS, curves, thin

COLUMNS = 3
# Kinds of files, and what is left out of them so that equal runs give equal files.
KINDS: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Creator": None, "Date": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
STYLE = {
    "svg.hashsalt": "modelnative",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}


def write_plot(run: Run, file: Path, title: str | None = None) -> Path:
    """Draw the learning curves of a run, finished or not, into a file.

    Args:
        run: the run.
        file: PNG, SVG or PDF, by its suffix; replaced if it exists.
        title: of the only curve to draw, such as `Success`; all by default.

    Raises:
        UserError: another suffix, no update yet, no such curve, damaged metrics, or the file cannot be written.
    """
    require_path("out", file)
    require(file.suffix in KINDS, "out", str(file), f"a file that ends with {', '.join(KINDS)}")
    try:
        content = _drawn(run, file.suffix, title)
    except UserError:
        raise
    except PART_ERRORS as error:
        raise UserError(f"{run.metrics_path}: a line is damaged ({in_words(error)})") from error
    write(file, content)
    return file


def _drawn(run: Run, suffix: str, title: str | None) -> bytes:
    """The content of the file."""
    task = run.task()
    drawn = curves(run.metrics(), task.spec.stages, hints=run.config.curriculum in ("hints", "discover"))
    if not drawn:
        raise UserError(f"run: {str(run.path)!r} has no update yet; there is nothing to draw")
    if title is not None:
        choose("curve", title, [name for name, *_ in drawn])
        drawn = [chart for chart in drawn if chart[0] == title]
    columns = min(COLUMNS, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    with figures(STYLE) as figure_class:
        figure = figure_class(figsize=(4 * columns, 2.6 * rows))
        for number, (name, meaning, lines, limits) in enumerate(drawn, 1):
            axes = figure.add_subplot(rows, columns, number)
            axes.set_title(name, loc="left", fontweight="bold", pad=16)
            axes.annotate(meaning, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=8, color="#5f6b73")
            for label, color, x, values in lines:
                axes.plot(*thin(x, values), color=color, linewidth=1.4, label=label.replace("$", r"\$") or None)
            if limits:
                axes.set_ylim(limits[0] - 0.02, limits[1] + 0.05)
            if any(label for label, *_ in lines):
                axes.legend(fontsize=7, frameon=False, ncols=math.ceil(len(lines) / 12))
            axes.grid(alpha=0.15)
            axes.set_xlabel("update")
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata=KINDS[suffix])
    return buffer.getvalue()
