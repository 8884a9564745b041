"""What a language model reads of the pocket calculator of `modelnative.tasks.calculator`."""

from __future__ import annotations

from collections.abc import Sequence

from modelnative.tasks.calculator import SUB


def calculator_rules(store: Sequence[str], recall: Sequence[str], digits: int, shown: bool) -> str:
    """Return the keys in words.

    Args:
        store, recall: the names of the keys of the memory cells.
        digits: largest number of digits of an entry.
        shown: whether the display is feedback.
    """
    entry = "a digit replaces the entry" if digits == 1 else f"digits make an entry of at most {digits} digits"
    display = "The display is shown after each key; it is blank while there is no value." if shown else ""
    pairs = ", ".join(f"{s} and {r}" for s, r in zip(store, recall, strict=True))
    return "\n".join(
        filter(
            None,
            (
                "You use a pocket calculator through its keys.",
                f"0 to 9: {entry}.",
                "MUL ADD SUB: multiply, add or subtract. A pending operation is computed first, from left to right: "
                "'2 ADD 3 MUL 4' gives 20.",
                f"{pairs}: store the value in a memory cell, and enter it again. Storing computes the pending "
                "operation.",
                "ANS: answer with the value, which ends the episode. EOS: end the episode without an answer.",
                display,
            ),
        )
    )


def display_text(vocabulary: Sequence[str], row: Sequence[int], end: int) -> str:
    """Return the display as a number; empty if it is blank."""
    return "".join("-" if token == SUB else vocabulary[token] for token in row if token != end)
