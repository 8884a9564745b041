"""Tables for notebooks: plain HTML that takes its looks from the notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], after: Iterable[str] = ()) -> str:
    """A table with a title above it and paragraphs below it; every text is escaped.

    Example:
        >>> html_table("<b>", ["x"], [["&"]])[:55]
        '<p><strong>&lt;b&gt;</strong></p><table><thead><tr><th>'
    """
    headings = "".join(f"<th>{_escaped(text)}</th>" for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{_escaped(text)}</td>' for text in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{headings}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p><strong>{_escaped(title)}</strong></p>{table}{''.join(map(paragraph, after))}"


def paragraph(text: str) -> str:
    """A paragraph of text."""
    return f"<p>{_escaped(text)}</p>"


def _escaped(text: str) -> str:
    """Text without markup; what is no text, such as the bytes of a path, is replaced."""
    return escape(text.encode(errors="replace").decode())


def markdown(text: str) -> str:
    r"""Text as Markdown shows it as it is, also in a cell of a table.

    Example:
        >>> print(markdown("a|b_c"))
        a\|b\_c
    """
    return "".join(f"\\{c}" if c in "\\*_`<>[]|#" else c for c in " ".join(text.split()))
