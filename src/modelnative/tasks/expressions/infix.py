"""Infix text of trees with the fewest brackets that keep the shape: the layout of a batch, and a parser."""

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
LONGEST = 200  # characters of a text that is parsed


@dataclass
class InfixLayout:
    """The places of the operands and operators in the text of each tree.

    Attributes:
        operand: int64 [n, most + 1], the place of each leaf's first digit.
        after: int64 [n, most + 1], the place after each leaf and its closing brackets: the place of the operator, or
            the end of the text.
    """

    operand: Tensor
    after: Tensor


def infix(shapes: Shapes, operators: Tensor, widths: Tensor) -> InfixLayout:
    """Lay out the text of each tree.

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
        widths: int64 [n, most + 1], places of each operand; 0 where a tree has no leaf.
    """
    opens, closes = brackets(shapes, operators)
    block = closes + opens + (widths.byte() + 1)  # with its operator
    end = block.cumsum(1, dtype=torch.uint8)
    return InfixLayout(operand=(end - block + opens).long(), after=(end - 1).long())


def brackets(shapes: Shapes, operators: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of brackets that open before and close after each leaf: uint8 [n, most + 1] each.

    A subtree has brackets if its operator binds less than its parent, or equally and it is the right operand. So
    a − b − c and a − (b − c) are distinguished, and also a + b + c and a + (b + c): a text determines its shape.

    Args:
        shapes, operators: as in `infix`.
    """
    # Bytes are enough, as a text has fewer than 128 places, and faster, as these tensors are wide.
    binds = pad((operators == MUL).byte() + 1, (0, 1))
    bracket = (binds.gather(1, shapes.order.long()) < binds.gather(1, shapes.parent.long()) + shapes.right).byte()
    none = torch.zeros_like(pad(bracket, (0, 2)))
    opens, closes = (none.scatter_add(1, end.long(), bracket)[:, :-1] for end in (shapes.low, shapes.high))
    return opens, closes


def widths(operands: Tensor, digits: int) -> Tensor:
    """Number of digits of each operand, at most `digits`; 0 where there is no operand."""
    count = (operands > 0).long()  # no operand is 0
    for figure in range(1, digits):
        count += operands >= 10**figure
    return count


def figures(place: Tensor, operands: Tensor, digits: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the places and digits of operands that begin at `place`, for each power of ten, the largest first.

    The leading zeros of a short operand have the place of its first digit, so that writing the pairs in order
    overwrites them.
    """
    count = widths(operands, digits)
    for figure in reversed(range(digits)):
        digit = operands // 10**figure % 10 if digits > 1 else operands
        yield place + (count - 1 - figure).clamp_min(0), digit


@dataclass
class Expression:
    """A parsed tree.

    Attributes:
        splits: for each operator, in preorder, the numbers of operators in its left and right subtree.
        operators: the operator codes, in reading order.
        operands: in reading order.
    """

    splits: list[tuple[int, int]]
    operators: list[int]
    operands: list[int]


def parse_infix(text: str) -> Expression:
    """Parse an infix text of integers, brackets and + − × (or * -), with the usual precedence.

    Raises:
        ValueError: the text is not such an expression, or has more than 200 characters.

    Example:
        >>> parse_infix("3 - 4*(5 - 6)")
        Expression(splits=[(0, 2), (0, 1), (0, 0)], operators=[3, 1, 3], operands=[3, 4, 5, 6])
    """
    plain = " ".join(text.replace("×", "*").replace("−", "-").split())
    if not re.fullmatch(rf"[0-9+*() -]{{1,{LONGEST}}}", plain):
        raise ValueError(f"not an infix expression: {text!r}")
    found = Expression([], [], [])

    def walk(node: ast.expr) -> int:
        """Append the subtree of `node`; return its number of operators."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            found.operands.append(node.value)
            return 0
        if not (isinstance(node, ast.BinOp) and type(node.op) in NODES):
            raise ValueError(f"not an infix expression: {text!r}")
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
        raise ValueError(f"not an infix expression: {text!r}") from error
    return found
