"""Draw the picture of the README: how a trained agent solves one problem of stage T2, key by key.

    modelnative train --out runs/first
    python docs/_build/picture.py runs/first           # writes docs/assets/calculator.svg

Everything in the picture is read from the run by `mn.explain`: the keys, the registers of the calculator, the
probability of each key, and the operand from which the copy head took it.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

import modelnative as mn

TARGET = Path(__file__).parents[1] / "assets" / "calculator.svg"
LEFT, STEP, KEY = 118, 70, 58
FONT = "font-family='Helvetica, Arial, sans-serif'"
COLORS = {"operand": "#2563eb", "memory": "#d97706", "answer": "#15803d", "operator": "#475569"}


def kind(token: str, source: str) -> str:
    """Which of the four colors a key has."""
    if source:
        return "operand"
    return {"STO": "memory", "RCL": "memory", "ANS": "answer"}.get(token, "operator")


def text(
    x: float, y: float, words: str, size: int, color: str = "#0f172a", anchor: str = "middle", more: str = ""
) -> str:
    """One line of text."""
    return (
        f"<text x='{x}' y='{y}' font-size='{size}' fill='{color}' text-anchor='{anchor}' {FONT} {more}>"
        f"{escape(words)}</text>"
    )


def picture(run: Path, problem: str = "3 7 2 4 5") -> str:
    """The SVG."""
    explanation = mn.explain(run, stage="T2", problem=problem)
    a, b, c, d, e = problem.split()
    rows = explanation.rows
    width, height = LEFT + STEP * len(rows) + 14, 268
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        "role='img' aria-label='Keys, display and memory of the trained agent for one problem'>",
        f"<rect width='{width}' height='{height}' rx='12' fill='#ffffff' stroke='#cbd5e1'/>",
        text(
            18,
            34,
            f"The agent reads  a={a}  b={b}  c={c}  d={d}  e={e}  and must compute (a·b + c) − d·e",
            17,
            anchor="start",
        ),
        text(
            18,
            57,
            "It types every key itself. One memory and no brackets: d·e has to be computed and stored first.",
            14,
            "#475569",
            "start",
        ),
    ]
    for label, y in (("key", 105), ("copied from", 143), ("display", 172), ("memory", 201), ("probability", 230)):
        parts.append(text(LEFT - 14, y, label, 14, "#475569", "end"))
    for i, row in enumerate(rows):
        x = LEFT + STEP * i + STEP / 2 - 4
        color = COLORS[kind(row.token, row.source)]
        parts.append(f"<rect x='{x - KEY / 2}' y='78' width='{KEY}' height='42' rx='8' fill='{color}'/>")
        parts.append(text(x, 105, row.token, 18, "#ffffff", more="font-weight='bold'"))
        parts.append(text(x, 143, row.source or "–", 14, COLORS["operand"] if row.source else "#cbd5e1"))
        parts.append(text(x, 172, row.registers["display"] or "–", 16))
        memory = row.registers["memory"]
        parts.append(text(x, 201, memory or "–", 16, COLORS["memory"] if memory else "#cbd5e1"))
        parts.append(text(x, 230, f"{row.probability:.3f}", 13, "#475569"))
    verdict = "The answer is right" if explanation.success else "The answer is wrong"
    same = tuple(row.token for row in rows) == explanation.oracle
    parts.append(
        text(
            18,
            255,
            f"{verdict}{', and the program is the oracle’s, the shortest for all problems of T2' if same else ''}.",
            14,
            "#15803d" if explanation.success else "#b91c1c",
            "start",
        )
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(picture(Path(sys.argv[1])), encoding="utf-8")
    print(f"wrote {TARGET}")
