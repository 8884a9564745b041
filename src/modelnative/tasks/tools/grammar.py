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
    named = [ids[name] for name in slots]
    spare = len(slots) + max(len(tool.parameters) for tool in tools)
    places = [(tool.name, k) for tool in tools for k in range(len(tool.parameters))] + [("ANS", 0)]
    answer = OPEN + len(places) - 1

    def rule(
        kind: int, mode: int, *, constant: int = NONE, cell: int = spare, into: int = spare, **more: int
    ) -> list[int]:
        return [constant, cell, kind, into, mode, more.get("call", 0), more.get("ends", 0)]

    rows = [[rule(never, mode) for _ in ids] for mode in range(answer + 1)]
    for mode in range(answer + 1):
        if mode != OVER:
            rows[mode][ids["EOS"]] = rule(free, OVER, ends=1)
    for mode in (IDLE, FULL):
        rows[mode][ids["ANS"]] = rule(free, answer)
    for cell, token in enumerate(named):
        rows[answer][token] = rule(given, OVER, cell=cell, ends=2)
    for index, tool in enumerate(tools):
        arity = len(tool.parameters)
        first = OPEN + places.index((tool.name, 0)) if arity else IDLE
        rows[IDLE][ids[tool.name]] = rule(free, first, call=0 if arity else 1 + index)
        for k, kind in enumerate(tool.parameters.values()):
            last = k + 1 == arity
            mode, call, into = IDLE if last else first + k + 1, 1 + index if last else 0, len(slots) + k
            for cell, token in enumerate(named):
                rows[first + k][token] = rule(kinds.index(kind), mode, cell=cell, into=into, call=call)
            for choice in kind.choices:
                constant = constants[type(choice), choice]
                rows[first + k][ids[repr(choice)]] = rule(free, mode, constant=constant, into=into, call=call)
    return TokenRules(*torch.tensor(rows).flatten(0, 1).T.contiguous().unbind()), places
