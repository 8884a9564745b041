"""What MkDocs generates while it builds: the API reference from the public names, the configuration page's tables."""

from __future__ import annotations

import re
from typing import Any

import modelnative

API = re.compile(r"^@api (.+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each line `@api NAME ...` by the documentation of these public names of the package."""
    return API.sub(lambda line: "\n".join(_reference(name) for name in line[1].split()), markdown)


def _reference(name: str) -> str:
    """The directive for one public name; empty if the package lacks it (tests/test_docs.py checks the names)."""
    return f"::: modelnative.{name}\n" if name in modelnative.__all__ else ""
