"""The kernel of `play_columns` in training/rollout.py: the shipped policy with a GRU of one layer on a calculator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modelnative.native.calculator import PLACES
from modelnative.native.network import NETWORK, network_arguments, network_fields
from modelnative.native.operators import Arguments, Call, Kernel, Saved, current_threads, lanes, struct_fields

PARAMETERS, GIVEN = 8, 12  # tensors of the network, and of problems, task and plan; those written follow
COLUMNS = "token feedback action behavior_log_prob value reward running loss_mask explored invalid"


class PlayCall(Call):
    """As in kernels/play.cpp."""

    prefix = "play"
    _fields_ = (
        *network_fields(),
        *struct_fields("read stage target rules upper lower uniform program hints delay reach explore", ""),
        *struct_fields("", "modes keys memories horizon start actions episodes stride threads"),
    )


def _flatten(policy: Any, task: Any, problems: Any, plan: Any, columns: Mapping[str, Tensor]) -> Arguments | None:
    network = network_arguments(policy)
    describe = getattr(type(task), "only_calculator", None)
    machine = describe(task) if describe else None
    if network is None or machine is None:
        return None
    tables, spec = machine.tables(problems.stage.device), task.spec
    drawn = (None,) * 6
    if plan is not None:
        drawn = (plan.uniform, plan.program, plan.hints, plan.delay, plan.reach, plan.explore)
    given = (problems.context, problems.stage, problems.target, tables.rules, tables.upper, tables.lower, *drawn)
    numbers = [*tables.rules.shape[1:], machine.memories, spec.horizon, spec.start, spec.action_count]
    return *network[0], *given, *(columns[name] for name in COLUMNS.split()), columns["success"], network[1], numbers


def _fits(*args: Any) -> bool:
    *tensors, _, _ = args
    columns = tensors[PARAMETERS + GIVEN :]
    stride, places = columns[0].stride(0), columns[1].shape[2]
    regular = all(column.stride() == (stride, 1) for column in (columns[0], *columns[2:-1]))
    regular &= columns[1].stride() == (stride * places, places, 1) and columns[-1].is_contiguous()
    return regular and places == PLACES and len(columns[-1]) > 0 and tensors[0].shape[1] % lanes() == 0


def _forward(learns: bool, *args: Any) -> tuple[int, Saved]:
    """The actions of the longest episode."""
    *tensors, sizes, numbers = args
    columns, longest = tensors[PARAMETERS + GIVEN :], torch.zeros((), dtype=torch.int64)
    read = tensors[PARAMETERS : PARAMETERS + GIVEN]
    more = (len(read[0]), columns[0].stride(0), current_threads())
    PlayCall(*tensors[:PARAMETERS], *sizes, *read, *numbers, *more).run("play_columns", *columns, longest)
    return int(longest), ()


GIVEN_TENSORS = "context_of stage target rules upper lower"
DRAWN = "uniform program hints delay reach explore"
Kernel(
    f"play_columns({NETWORK}, {', '.join(f'Tensor {name}' for name in GIVEN_TENSORS.split())}, "
    f"{', '.join(f'Tensor? {name}' for name in DRAWN.split())}, "
    f"{', '.join(f'Tensor({chr(97 + k)}!) to_{name}' for k, name in enumerate([*COLUMNS.split(), 'success']))}, "
    "int[] sizes, int[] numbers) -> int",
    _forward,
    flatten=_flatten,
    fits=_fits,
)
