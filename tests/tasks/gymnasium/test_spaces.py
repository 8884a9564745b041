"""Observations as tokens."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.tasks.gymnasium.spaces import (
    Component,
    Encoder,
    action_maker,
    action_sizes,
    components,
    flattener,
)


@given(
    st.integers(2, 20),
    st.integers(1, 3),
    st.floats(-50, 50),
    st.floats(0.1, 100),
    st.lists(st.floats(-200, 200), min_size=1, max_size=20),
)
def test_digits_are_the_value_with_their_precision(
    bins: int, digits: int, low: float, width: float, values: list[float]
) -> None:
    encode = Encoder([Component(-np.inf, np.inf, 0)], np.array([low]), np.array([low + width]), bins, digits)
    tokens = encode(np.array(values)[:, None])
    assert tokens.shape == (len(values), digits)
    assert ((tokens >= 0) & (tokens < bins)).all()
    level = tokens @ bins ** np.arange(digits - 1, -1, -1)
    middle = low + width * (level + 0.5) / bins**digits
    assert np.abs(middle - np.clip(values, low, low + width)).max() <= width / bins**digits * (0.5 + 1e-6)


@given(st.data())
def test_whole_numbers_have_a_token_each(data: st.DataObject) -> None:
    start = data.draw(st.integers(-5, 5))
    space = spaces.Tuple(
        [spaces.Discrete(4, start=start), spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,), np.int8)]
    )
    parts = components(space, "task")
    encode = Encoder(parts, *(np.array([getattr(p, side) for p in parts]) for side in ("low", "high")), 16, 2)
    space.seed(data.draw(st.integers(0, 1000)))
    first, second, third = sample = space.sample()
    tokens = encode(flattener(space)(sample)[None])
    assert tokens.tolist() == [[first - start, *second, *(third + 1)]]
    assert encode.values == 4


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3, start=-1), spaces.MultiDiscrete([[2, 3], [4, 1]]), spaces.MultiBinary(3)]
)
def test_every_action_can_be_made_from_its_parts(space: spaces.Space) -> None:
    sizes, make = action_sizes(space, "task"), action_maker(space)
    made = {np.asarray(make(list(parts))).tobytes() for parts in np.ndindex(*sizes)}
    assert len(made) == np.prod(sizes)
    assert all(space.contains(make(list(parts))) for parts in np.ndindex(*sizes))


def test_what_has_no_tokens_is_refused_in_one_line() -> None:
    for space in (spaces.Text(5), spaces.Discrete(10**6), spaces.Dict({"a": spaces.Graph(spaces.Discrete(2), None)})):
        with pytest.raises(
            UserError, match=r"^task: an? ?observation .* is not supported; expected|^task: observation"
        ):
            components(space, "task")
    with pytest.raises(UserError, match=r"^task: action space Box is not supported; expected Discrete,"):
        action_sizes(spaces.Box(0, 1), "task")
