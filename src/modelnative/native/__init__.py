"""Kernels in C++ for what training a GRU on a CPU spends its time on, compiled when first needed (`build.py`).

Each has a plain form in torch, which defines it, and which computes instead where there is no compiler, on other
devices and in double precision; `tests/native` holds the two together.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import Structure, byref, c_bool, c_float, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.native.build import describe, library

__all__ = [
    "Choices",
    "Inputs",
    "choose",
    "computes",
    "crew",
    "describe",
    "fits",
    "gru_backward",
    "gru_forward",
    "judge",
]


_own = threading.local()


@contextmanager
def crew(threads: int) -> Iterator[None]:
    """Inside, kernels called by this thread share their work among so many threads; the results stay the same.

    Torch's own operations are too small to be shared, and run in this thread alone.
    """
    before, torch_before = getattr(_own, "threads", 1), torch.get_num_threads()
    _own.threads = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _own.threads = before
        torch.set_num_threads(torch_before)


def fits(width: int, *tensors: Tensor) -> bool:
    """Whether there are kernels for float tensors like these, with rows of that many numbers."""
    if not all(tensor.element_size() == ctypes.sizeof(c_float) and computes(tensor.device) for tensor in tensors):
        return False
    return width % _lib().lanes() == 0


def computes(device: torch.device) -> bool:
    """Whether there are kernels for a device; where `torch.compile` looks on, there are none."""
    return device.type == "cpu" and not torch.compiler.is_compiling() and library() is not None


@dataclass
class Inputs:
    """What a GRU reads at each of N tokens of n episodes: a sum of rows of a table.

    Attributes:
        token: int64 [*], a row each.
        feedback: int64 [*, F]; the place p adds row vocabulary + stages + p · vocabulary + token, unless it is `blank`.
        stage: int64 [n], adds row vocabulary + stage at each token of the episode; None for no such row.
        vocabulary, stages, blank: as they are.
        where: int64 [N], which rows of `token` and `feedback` are meant; None for all.
    """

    token: Tensor
    feedback: Tensor
    stage: Tensor | None
    vocabulary: int
    stages: int
    blank: int
    where: Tensor | None = None


class _Inputs(Structure):
    _fields_ = [(name, c_void_p) for name in ("table", "token", "feedback", "where", "stage")] + [
        (name, c_int64) for name in ("places", "vocabulary", "stages", "blank")
    ]


class _Packed(Structure):
    _fields_ = [
        ("sizes", c_void_p),
        *((name, c_int64) for name in ("steps", "episodes", "width")),
        *((name, c_void_p) for name in ("h0", "weight", "bias")),
    ]


class _Call:
    """The arguments that both passes of a GRU share; holds the tensors while C++ looks at them."""

    def __init__(
        self,
        sizes: Sequence[int],
        h0: Tensor,
        weight: Tensor,
        bias: Tensor,
        table: Tensor | None,
        inputs: Inputs | None,
    ) -> None:
        self.held = [torch.tensor(sizes), *(x.detach().contiguous() for x in (h0, weight, bias))]
        start = [tensor.data_ptr() for tensor in self.held]
        self.packed = _Packed(start[0], len(sizes), *h0.shape, *start[1:])
        self.inputs = _Inputs(*[None] * 5, *[0] * 4)
        if inputs is not None and table is not None:
            columns = (table.detach(), inputs.token, inputs.feedback, inputs.where, inputs.stage)
            held = [None if column is None else column.contiguous() for column in columns]
            numbers = (inputs.feedback.shape[1], inputs.vocabulary, inputs.stages, inputs.blank)
            self.inputs = _Inputs(*map(_at, held), *numbers)
            self.held += [tensor for tensor in held if tensor is not None]


def gru_forward(
    sizes: Sequence[int],
    h0: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    table: Tensor | None = None,
    inputs: Inputs | None = None,
    gates: Tensor | None = None,
    keep: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """As `recurrence.gru`, of one network: `gates` float [N, 3H] is given and overwritten, or made of `inputs`.

    Returns:
        Hidden states float [N, H]; and, if `keep`, what `gru_backward` wants: gates and inner.
    """
    tokens, width = sum(sizes), h0.shape[1]
    hidden, inner = h0.new_empty(tokens, width), h0.new_empty(tokens, width) if keep else None
    if gates is None and keep:
        gates = h0.new_empty(tokens, 3 * width)
    call = _Call(sizes, h0, weight, bias, table, inputs)
    _lib().gru_forward(byref(call.packed), byref(call.inputs), _at(gates), _at(hidden), _at(inner), _threads())
    return hidden, gates, inner


def gru_backward(
    sizes: Sequence[int],
    h0: Tensor,
    weight: Tensor,
    bias: Tensor,
    saved: tuple[Tensor, Tensor, Tensor],
    grad: Tensor,
    *,
    table: Tensor | None = None,
    inputs: Inputs | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the table, or of the gates where there is none, of h0, weight and bias.

    `saved` is what `gru_forward` returned.
    """
    hidden, gates, inner = saved
    call = _Call(sizes, h0, weight, bias, table, inputs)
    grad = grad.contiguous()
    of_gates, of_table = (torch.empty_like(gates), None) if table is None else (None, table.new_empty(table.shape))
    of_h0, of_weight, of_bias = (x.new_empty(x.shape) for x in (h0, weight, bias))
    before = map(_at, (gates, hidden, inner, grad, of_gates, of_h0, of_table))
    rows = c_int64(0 if table is None else len(table))
    after = (rows, _at(of_weight), _at(of_bias), _threads())
    _lib().gru_backward(byref(call.packed), byref(call.inputs), *before, *after)
    first = of_gates if of_table is None else of_table
    assert first is not None
    return first, of_h0, of_weight, of_bias


@dataclass
class Choices:
    """M distributions over the next token, as hidden states and the heads that read them; see `Heads`.

    Attributes:
        hidden: float [*, H].
        weight, bias: float [S, H] and [S], S = V + 1, or V + 1 + C + V with a copy head.
        context: int64 [*, C].
        heed: int64 [M], which rows of `hidden` are meant; None for all.
        episode: int64 [M], which row of `context` each reads; None for its own.
        vocabulary, padding: V, and the token that is never copied.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    context: Tensor
    heed: Tensor | None
    episode: Tensor | None
    vocabulary: int
    padding: int

    def __len__(self) -> int:
        return len(self.hidden if self.heed is None else self.heed)


class _Choices(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("hidden", "heed", "weight", "bias", "context", "episode")),
        *((name, c_int64) for name in ("rows", "width", "vocabulary", "places", "padding")),
    ]


def _lower(choices: Choices) -> tuple[_Choices, list[Tensor | None]]:
    """The same for C++, and the tensors that must live as long."""
    c = choices
    given = (c.hidden, c.heed, c.weight, c.bias, c.context, c.episode)
    held = [None if tensor is None else tensor.detach().contiguous() for tensor in given]
    places = c.context.shape[1] if len(c.bias) > c.vocabulary + 1 else 0
    return _Choices(*map(_at, held), len(c), c.hidden.shape[1], c.vocabulary, places, c.padding), held


def choose(
    choices: Choices | Sequence[Choices],
    uniform: Tensor | None = None,
    share: Tensor | None = None,
    blind: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The next actions, int64 [M], the log-probabilities that they were chosen with, and the values, both float [M].

    Args:
        choices: of M tokens; those of several networks are M altogether.
        uniform: float [M] in [0, 1), what they are drawn with; None for the likeliest.
        share: float [M], the weight of `blind` in the mixture that they are drawn from; None for none.
        blind: float [M, V].
    """
    if not isinstance(choices, Choices):
        parts = [
            (None,) * len(choices) if given is None else given.split([len(own) for own in choices])
            for given in (uniform, share, blind)
        ]
        actions, log_probs, values = zip(*map(choose, choices, *parts), strict=True)
        return torch.cat(actions), torch.cat(log_probs), torch.cat(values)
    lowered, held = _lower(choices)
    rows = len(choices)
    action, log_prob, value = torch.empty(rows, dtype=torch.int64), torch.empty(rows), torch.empty(rows)
    given = [None if tensor is None else tensor.contiguous() for tensor in (uniform, share, blind)]
    _lib().choose(byref(lowered), *map(_at, (*given, action, log_prob, value)), _threads())
    del held
    return action, log_prob, value


class _Judged(Structure):
    _fields_ = [
        (name, c_void_p)
        for name in ("action", "behavior_log_prob", "advantage", "target", "free", "explored", "forced", "where")
    ]


class _Weights(Structure):
    _fields_ = [(name, c_float) for name in ("clip_low", "clip_high", "imitation", "hint", "value", "entropy", "count")]


def judge(
    choices: Choices, columns: Sequence[Tensor | None], where: Tensor | None, weights: Sequence[float]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss of `training/loss.py`, and its gradient.

    Args:
        choices: of M tokens.
        columns: action, behavior_log_prob, advantage, target, free, explored, each [*]; and forced, or None.
        where: int64 [M], which rows of the columns are meant; None for all.
        weights: clip low and high, of imitation, hints, value and entropy, and the number that sums are divided by.

    Returns:
        The loss and the other terms in the order of `Terms`, float [6]; the gradients of hidden, weight and bias.
    """
    lowered, held = _lower(choices)
    kept = [None if column is None else column.contiguous() for column in (*columns, where)]
    terms = torch.zeros(6, dtype=torch.float64)
    of_hidden = torch.empty_like(choices.hidden) if choices.heed is None else torch.zeros_like(choices.hidden)
    weight, bias = choices.weight, choices.bias
    gradients = (of_hidden, weight.new_empty(weight.shape), bias.new_empty(bias.shape))
    judged = _Judged(*map(_at, kept))
    pointers = map(_at, (terms, *gradients))
    _lib().judge(byref(lowered), byref(judged), byref(_Weights(*weights)), *pointers, _threads())
    del held
    return terms.float(), gradients


def _lib() -> ctypes.CDLL:
    lib = library()
    assert lib is not None, "see `fits`"
    return lib


def _threads() -> c_int64:
    return c_int64(getattr(_own, "threads", 1))


def _at(tensor: Tensor | None) -> c_void_p | None:
    return None if tensor is None else c_void_p(tensor.data_ptr())


assert ctypes.sizeof(c_bool) == 1  # as torch stores it
