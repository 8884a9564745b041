from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelnative.errors import UserError, choose, in_words

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


def test_an_exception_in_words() -> None:
    try:
        int("x\ny")
    except ValueError as error:
        said = in_words(error)
    line = test_an_exception_in_words.__code__.co_firstlineno + 2
    where = f"(test_errors.py, line {line}, in test_an_exception_in_words)"
    assert said == f"ValueError: invalid literal for int() with base 10: 'x\\ny' {where}"
    assert in_words(AssertionError()) == "AssertionError"
    assert in_words(ValueError("two\nlines")) == "ValueError: two lines"


def test_our_own_errors_say_by_themselves_what_is_wrong() -> None:
    with pytest.raises(UserError) as caught:
        choose("core", "zzz", NAMES)
    assert in_words(caught.value) == str(caught.value)
