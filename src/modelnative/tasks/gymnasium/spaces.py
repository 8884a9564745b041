"""Observations and actions of Gymnasium spaces as tokens. Free of torch, because worker processes import it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from modelnative.errors import UserError

Array = npt.NDArray[Any]
MAX_VALUES = 4096  # of one number that is read as one token
MAX_PLACES = 1024  # tokens of an observation
MAX_INTEGERS = 256  # values of an integer box up to which each has a token of its own
FAR = 1e6  # a bound of a box beyond this one counts as none
SUPPORTED = "Discrete, MultiDiscrete, MultiBinary, Box, or a Tuple or Dict of these"


@dataclass(frozen=True)
class Component:
    """One number of an observation.

    Attributes:
        low, high: its bounds; infinite where there are none.
        values: how many values it has; 0 for a real number.
    """

    low: float
    high: float
    values: int


def components(space: spaces.Space[Any], name: str) -> list[Component]:
    """The numbers of an observation, in the order of `flatten`.

    Raises:
        UserError: the space is not supported.
    """
    if isinstance(space, spaces.Discrete):
        return [_whole(float(space.start), int(space.n), name)]
    if isinstance(space, spaces.MultiDiscrete):
        starts = space.start.ravel().tolist()
        return [_whole(low, n, name) for low, n in zip(starts, space.nvec.ravel().tolist(), strict=True)]
    if isinstance(space, spaces.MultiBinary):
        return [Component(0, 1, 2)] * int(np.prod(space.shape))
    if isinstance(space, spaces.Box):
        whole = np.issubdtype(space.dtype, np.integer) or space.dtype == np.bool_
        bounds = zip(*(bound.ravel().astype(float).tolist() for bound in (space.low, space.high)), strict=True)
        return [_bounded(low, high, bool(whole)) for low, high in bounds]
    if isinstance(space, spaces.Tuple | spaces.Dict):
        return [part for _, inner in _parts(space) for part in components(inner, name)]
    raise UserError(f"{name}: observation space {type(space).__name__} is not supported; expected {SUPPORTED}")


def flattener(space: spaces.Space[Any]) -> Callable[[Any], Array]:
    """A function that turns an observation into its numbers, float64 [D]."""
    if isinstance(space, spaces.Tuple | spaces.Dict):
        inner = [(key, flattener(part)) for key, part in _parts(space)]
        return lambda observation: np.concatenate([flat(observation[key]) for key, flat in inner])
    return lambda observation: np.asarray(observation, dtype=np.float64).ravel()


def action_sizes(space: spaces.Space[Any], name: str) -> list[int]:
    """How many values each part of an action has; each part is one token.

    Raises:
        UserError: the space is not supported.
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    raise UserError(
        f"{name}: action space {type(space).__name__} is not supported; expected Discrete, MultiDiscrete or MultiBinary"
    )


def action_maker(space: spaces.Space[Any]) -> Callable[[list[int]], Any]:
    """A function that turns the parts of an action, counted from 0, into what the environment takes."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return lambda parts: start + parts[0]
    shape, dtype = space.shape or (), space.dtype
    starts: Any = space.start if isinstance(space, spaces.MultiDiscrete) else 0
    return lambda parts: np.asarray(parts, dtype=dtype).reshape(shape) + np.asarray(starts, dtype=dtype)


class Encoder:
    """Turns the numbers of observations into tokens.

    A number with few values is one token. A real number is cut at its limits and written with `digits` digits of
    base `bins`, the most significant first, so that sums of embeddings can represent it with the precision of all
    digits.

    Args:
        parts: the numbers.
        low, high: float64 [D], the limits of real numbers.
        bins: the base.
        digits: how many.

    Attributes:
        width: tokens of an observation.
        values: the number of different tokens that it uses.
    """

    def __init__(self, parts: list[Component], low: Array, high: Array, bins: int, digits: int) -> None:
        self._start = np.array([part.low if part.values else 0 for part in parts])
        self._low, self._range = low, np.where(high > low, high - low, 1.0)
        self._bins, self._levels = bins, bins**digits
        self._real = np.array([part.values == 0 for part in parts], dtype=bool)
        self._most = np.array([max(part.values - 1, 0) for part in parts])
        self._powers = bins ** np.arange(digits - 1, -1, -1)
        # Where each number's tokens are among all.
        widths = np.where(self._real, digits, 1)
        first = widths.cumsum() - widths
        self.width = int(widths.sum())
        self.values = max([part.values for part in parts] + [bins if self._real.any() else 0])
        self._whole_places = first[~self._real]
        self._real_places = (first[self._real][:, None] + np.arange(digits)).ravel()

    def __call__(self, numbers: Array) -> npt.NDArray[np.int64]:
        """Float64 [m, D] -> int64 [m, width]."""
        tokens = np.empty((len(numbers), self.width), dtype=np.int64)
        whole, real = ~self._real, self._real
        values = np.clip(numbers[:, whole] - self._start[whole], 0, self._most[whole])
        tokens[:, self._whole_places] = values.astype(np.int64)
        if real.any():
            unit = (numbers[:, real] - self._low[real]) / self._range[real]
            level = np.clip(unit * self._levels, 0, self._levels - 1).astype(np.int64)
            digit = level[:, :, None] // self._powers % self._bins
            tokens[:, self._real_places] = digit.reshape(len(numbers), -1)
        return tokens


def _parts(space: spaces.Tuple[Any] | spaces.Dict) -> Iterator[tuple[Any, spaces.Space[Any]]]:
    return enumerate(space.spaces) if isinstance(space, spaces.Tuple) else iter(space.spaces.items())


def _whole(low: float, values: int, name: str) -> Component:
    if values > MAX_VALUES:
        raise UserError(f"{name}: an observation of {values} values is not supported; expected at most {MAX_VALUES}")
    return Component(low, low + values - 1, values)


def _bounded(low: float, high: float, whole: bool) -> Component:
    if whole and high - low < MAX_INTEGERS:
        return Component(low, high, int(high - low) + 1)
    return Component(low if low > -FAR else -np.inf, high if high < FAR else np.inf, 0)
