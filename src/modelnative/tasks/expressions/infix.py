"""The infix text of trees, with the fewest brackets that keep their shape: laid out in batches, and read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.tasks.expressions.trees import ADD, MUL, SUB, Shapes

NODES: dict[type[ast.operator], int] = {ast.Mult: MUL, ast.Add: ADD, ast.Sub: SUB}
LONGEST = 200  # characters of a text that is read


@dataclass
class Infix:
    """Where the parts of each tree's text stand.

    Attributes:
        operand: int64 [n, most + 1], the place of each leaf's first digit.
        after: int64 [n, most + 1], the place after each leaf and the brackets that close behind it: its operator's,
            or the end of the text.
    """

    operand: Tensor
    after: Tensor


def infix(shapes: Shapes, operators: Tensor, widths: Tensor) -> Infix:
    """Lay out the text of each tree.

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
        widths: int64 [n, most + 1], places of each operand; 0 where a tree has no leaf.
    """
    opens, closes = brackets(shapes, operators)
    block = closes + opens + (widths.byte() + 1)  # with its operator
    end = block.cumsum(1, dtype=torch.uint8)
    return Infix(operand=(end - block + opens).long(), after=(end - 1).long())


def brackets(shapes: Shapes, operators: Tensor) -> tuple[Tensor, Tensor]:
    """How many brackets open before each leaf, and how many close after it: uint8 [n, most + 1] each.

    A subtree stands in brackets if it binds less than the operator above it, or no more and is its right operand: so
    a − b − c and a − (b − c), and also a + b + c and a + (b + c), for the text must give the shape back.

    Args:
        shapes, operators: as in `infix`.
    """
    # In bytes: these tensors are wide, and a text has fewer than 128 places.
    binds = pad((operators == MUL).byte() + 1, (0, 1))
    bracket = (binds.gather(1, shapes.order.long()) < binds.gather(1, shapes.parent.long()) + shapes.right).byte()
    none = torch.zeros_like(pad(bracket, (0, 2)))
    opens, closes = (none.scatter_add(1, end.long(), bracket)[:, :-1] for end in (shapes.low, shapes.high))
    return opens, closes


def widths(operands: Tensor, digits: int) -> Tensor:
    """Digits of each operand, at most so many; 0 for none."""
    count = (operands > 0).long()  # no operand is 0
    for figure in range(1, digits):
        count += operands >= 10**figure
    return count


def figures(place: Tensor, operands: Tensor, digits: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Places and digits of operands that begin at `place`, for each power of ten, the greatest first.

    The zeros of a shorter operand come before its first digit, at the same place: whoever writes these in turn
    writes over them.
    """
    count = widths(operands, digits)
    for figure in reversed(range(digits)):
        digit = operands // 10**figure % 10 if digits > 1 else operands
        yield place + (count - 1 - figure).clamp_min(0), digit


@dataclass
class Expression:
    """A tree that was read.

    Attributes:
        splits: the operators on the left and on the right below each operator, in preorder.
        operators: their codes, in reading order.
        operands: in reading order.
    """

    splits: list[tuple[int, int]]
    operators: list[int]
    operands: list[int]


def read(text: str) -> Expression:
    """The tree of an infix text with + − × (or * -), brackets and whole numbers; operators of a kind go left to right.

    Raises:
        ValueError: it is none, or has more than 200 characters.

    Example:
        >>> read("3 - 4*(5 - 6)")
        Expression(splits=[(0, 2), (0, 1), (0, 0)], operators=[3, 1, 3], operands=[3, 4, 5, 6])
    """
    plain = " ".join(text.replace("×", "*").replace("−", "-").split())
    if not re.fullmatch(rf"[0-9+*() -]{{1,{LONGEST}}}", plain):
        raise ValueError(f"no infix text: {text!r}")
    found = Expression([], [], [])

    def walk(node: ast.expr) -> int:
        """Append what is at and below `node`; the number of its operators."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            found.operands.append(node.value)
            return 0
        if not (isinstance(node, ast.BinOp) and type(node.op) in NODES):
            raise ValueError(f"no infix text: {text!r}")
        here = len(found.splits)
        found.splits.append((0, 0))
        left = walk(node.left)
        found.operators.append(NODES[type(node.op)])
        right = walk(node.right)
        found.splits[here] = (left, right)
        return left + right + 1

    try:
        walk(ast.parse(plain, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"no infix text: {text!r}") from error
    return found
