"""The effect of each token of a task made of tools, as a lookup table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.tools.call_table import FREE, GIVEN, NEVER, NONE
from modelnative.tasks.tools.tool import Kind, Tool, Value

# Modes of an episode: a tool or ANS is expected; only ANS is expected, as there is no room for a result; the episode is
# over. From OPEN on there is a mode for each argument of each tool, and one for the argument of ANS.
IDLE, FULL, OVER, OPEN = range(4)


@dataclass
class TokenRules(Batch):
    """The effect of each token: one row for each (mode, token), with the token changing fastest; all int64.

    Attributes:
        constant: the id of the constant that the token names, or NONE.
        cell: the cell that the token names, or the last cell.
        kind: the kind that the value must fit, an index into the columns of `ValueTable`; NEVER for invalid tokens.
        into: the cell that the value is written to, or the last cell.
        mode: the next mode, unless a call is complete.
        call: 1 + the tool whose call is complete, or 0.
        ends: 1 if the token ends the episode, 2 if it ends it with an answer, or 0.
    """

    constant: Tensor
    cell: Tensor
    kind: Tensor
    into: Tensor
    mode: Tensor
    call: Tensor
    ends: Tensor


def make_rules(
    tools: Sequence[Tool[..., Any]],
    ids: Mapping[str, int],
    slots: Sequence[str],
    kinds: Sequence[Kind],
    constants: Mapping[tuple[type, Value], int],
) -> tuple[TokenRules, list[tuple[str, int]]]:
    """Return the table, and the name of the tool and the index of the argument for each mode from OPEN on.

    Args:
        tools: the tools.
        ids: the ids of all tokens by name.
        slots: the names of inputs and results. The cells are the slots, the arguments and one that is always empty.
        kinds: see `ValueTable`.
        constants: the id of each constant's value.
    """
    free, given, never = (len(kinds) + kind for kind in (FREE, GIVEN, NEVER))
    spare = len(slots) + max(len(tool.parameters) for tool in tools)
    places = [(tool.name, k) for tool in tools for k in range(len(tool.parameters))] + [("ANS", 0)]
    answer = OPEN + len(places) - 1
    nothing = {"constant": NONE, "cell": spare, "kind": never, "into": spare, "mode": OVER, "call": 0, "ends": 0}
    table = torch.tensor(list(nothing.values())).repeat(answer + 1, len(ids), 1)

    def rule(mode: int, token: str, /, **effects: int) -> None:
        table[mode, ids[token]] = torch.tensor(list({**nothing, **effects}.values()))

    for mode in (mode for mode in range(answer + 1) if mode != OVER):
        rule(mode, "EOS", kind=free, mode=OVER, ends=1)
    for mode in (IDLE, FULL):
        rule(mode, "ANS", kind=free, mode=answer)
    for cell, name in enumerate(slots):
        rule(answer, name, kind=given, cell=cell, mode=OVER, ends=2)
    for index, tool in enumerate(tools):
        arity = len(tool.parameters)
        first = OPEN + places.index((tool.name, 0)) if arity else IDLE
        rule(IDLE, tool.name, kind=free, mode=first, call=0 if arity else 1 + index)
        for k, kind in enumerate(tool.parameters.values()):
            last = k + 1 == arity
            follows = {"mode": IDLE if last else first + k + 1, "call": 1 + index if last else 0}
            for cell, name in enumerate(slots):
                rule(first + k, name, kind=kinds.index(kind), cell=cell, into=len(slots) + k, **follows)
            for choice in kind.choices:
                constant = constants[type(choice), choice]
                rule(first + k, repr(choice), kind=free, constant=constant, into=len(slots) + k, **follows)
    return TokenRules(*table.flatten(0, 1).T.contiguous().unbind()), places
