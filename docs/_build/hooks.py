"""What MkDocs generates while it builds: the API reference, the tables of the configuration page, a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import modelnative

API = re.compile(r"^@api (.+)$", re.MULTILINE)
CONFIGURATION = "<!-- generated: configuration -->"
THROUGHPUT = Path(__file__).parents[2] / "benchmarks" / "peers" / "throughput.svg"


def on_files(files: Any, config: Any) -> Any:
    """Add the picture of the benchmarks, which is outside docs/, where RESULTS.md expects it."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "results/peers/throughput.svg", abs_src_path=str(THROUGHPUT)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each line `@api NAME ...` by the documentation of these public names, and the marker by the tables."""
    if CONFIGURATION in markdown:
        markdown = markdown.replace(CONFIGURATION, configuration())
    return API.sub(lambda line: "\n".join(_reference(name) for name in line[1].split()), markdown)


def _reference(name: str) -> str:
    """The directive for one public name; empty if the package lacks it (tests/test_docs.py checks the names)."""
    return f"::: modelnative.{name}\n" if name in modelnative.__all__ else ""


def configuration() -> str:
    """A table for each group of fields of `TrainConfig`: name, default, allowed values, description."""
    from modelnative.policies.config_model import expected_value, leaf_fields
    from modelnative.training.config import TrainConfig

    groups: dict[str, list[str]] = {}
    for name, field in leaf_fields(TrainConfig):
        default = field.get_default(call_default_factory=True)
        shown = "" if default is None else f"`{default}`" if default not in ("", {}) else ""
        cells = (f"`{name}`", shown, expected_value(field), field.description or "")
        row = " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells)
        groups.setdefault(name.rpartition(".")[0], []).append(f"| {row} |")
    head = "| field | default | allowed | meaning |\n|---|---|---|---|\n"
    return "\n\n".join(f"### {group or 'Training'}\n\n{head}" + "\n".join(rows) for group, rows in groups.items())
