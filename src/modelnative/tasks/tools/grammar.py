"""What each token of a task made of tools does, as a table to be looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.tools.call_table import FREE, GIVEN, NEVER, NONE
from modelnative.tasks.tools.tool import Kind, Tool, Value

# Modes of an episode: a tool may be chosen; only ANS may, all results being there; it is over. From OPEN on, a mode for
# each place of an argument of each tool, and one for that of ANS.
IDLE, FULL, OVER, OPEN = range(4)


@dataclass
class Rules(Batch):
    """What each token does. A row for each mode and token, the token counting fastest; all int64.

    Attributes:
        constant: the id of the constant that it names, else NONE.
        cell: the cell that it names, else the last.
        kind: what its value must fit, as an index into the columns of `Values`; NEVER for a token without effect.
        into: the cell that the value goes into; the last where there is none.
        mode: the next one, unless a call is complete.
        call: 1 + the tool whose call is complete, else 0.
        ends: 1 where it ends the episode, 2 with an answer, else 0.
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
) -> tuple[Rules, list[tuple[str, int]]]:
    """The table, and of which tool and argument each mode from OPEN on is.

    Args:
        tools: of the task.
        ids: of all tokens by name.
        slots: the names of inputs and results; the cells are these, the arguments, and one that stays empty.
        kinds: as in `Values`.
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
    return Rules(*torch.tensor(rows).flatten(0, 1).T.contiguous().unbind()), places
