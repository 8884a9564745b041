from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelnative.errors import UserError, choose

NAMES = ("gru", "transformer", "mingru")


@given(st.sampled_from(NAMES))
def test_choose_returns_what_is_allowed(name: str) -> None:
    assert choose("core", name, NAMES) == name


@given(st.text() | st.integers() | st.booleans() | st.none())
def test_choose_refuses_all_else(value: object) -> None:
    if value in NAMES:
        return
    with pytest.raises(UserError) as caught:
        choose("core", value, iter(NAMES))
    message = str(caught.value)
    assert message.startswith(f"core: unknown value {value!r}")
    assert message.endswith("Allowed: gru, transformer, mingru")


def test_choose_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'transformer'\\?"):
        choose("core", "transfromer", NAMES)


def test_choose_names_nothing_where_nothing_is_near() -> None:
    with pytest.raises(UserError) as caught:
        choose("core", "zzz", NAMES)
    assert "did you mean" not in str(caught.value)


def test_user_error_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)
