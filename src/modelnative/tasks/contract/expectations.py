"""The comparisons of `check_task`; each raises a `TaskError` that names the clause of the contract."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask


class TaskError(AssertionError):
    """A task violates the contract; the message names the clause and the place."""


def expect_pure(function: Callable[..., Batch | Tensor], argument: Batch, name: str, *more: Tensor) -> None:
    """The function does not change its arguments and returns the same result twice."""
    kept, kept_more = argument.map(torch.clone), [tensor.clone() for tensor in more]
    first = function(argument, *more)
    expect_same(argument, kept, f"{name}: changes its argument")
    expect(all(map(torch.equal, more, kept_more)), f"{name}: changes its argument `action`")
    expect_same(function(argument, *more), first, f"{name}: the same arguments give two results")


def expect_independent(mixed: Batch | Tensor, plain: Batch | Tensor, perturbed: Tensor, name: str) -> None:
    """Rows that are not perturbed are equal in both results."""
    clause = f"{name}: a row depends on other rows of the batch"
    for left, right in zip(all_tensors(mixed), all_tensors(plain), strict=True):
        expect(torch.equal(left[~perturbed], right[~perturbed]), clause)


def expect_same(left: Batch | Tensor, right: Batch | Tensor, clause: str) -> None:
    """All tensors are equal."""
    for a, b in zip(all_tensors(left), all_tensors(right), strict=True):
        expect(torch.equal(a, b), clause)


def all_tensors(value: Batch | Tensor) -> list[Tensor]:
    """Return all tensors of a batch, those of nested batches included."""
    return [value] if isinstance(value, Tensor) else value.tensors()


def expect_tokens(task: AnyTask, tokens: Tensor, shape: tuple[int, ...], what: str) -> None:
    """The value is an int64 tensor with this shape that holds tokens of the vocabulary."""
    expect_tensor(tokens, shape, torch.int64, what)
    known = ((tokens >= 0) & (tokens < len(task.spec.vocabulary))).all()
    expect(bool(known), f"{what}: contains ids that are not in the vocabulary")


def expect_tensor(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> None:
    """The value is a tensor with this shape and dtype."""
    expect(isinstance(tensor, Tensor), f"{what}: expected a tensor, got {type(tensor).__name__}")
    expect(tensor.dtype == dtype, f"{what}: expected {dtype}, got {tensor.dtype}")
    expect(tensor.shape == shape, f"{what}: expected shape {list(shape)}, got {list(tensor.shape)}")


def expect_length(batch: Batch, n: int, what: str) -> None:
    """Every field has n rows."""
    lengths = {len(tensor) for tensor in all_tensors(batch)}
    expect(lengths == {n}, f"{what}: expected {n} rows in every field, got {sorted(lengths)}")


def expect(condition: bool, clause: str) -> None:
    """Raise a `TaskError` unless the condition holds."""
    if not condition:
        raise TaskError(clause)
