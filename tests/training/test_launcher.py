"""The variables of a launcher are believed together, or refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.training.launcher import Launch, launch
from modelnative.training.parallel import Group

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Launch(0, 1, 0)),
        ({"RANK": "1"}, Launch(0, 1, 0)),
        ({"RANK": "7", "LOCAL_RANK": "x", "TORCHELASTIC_RUN_ID": "x"}, Launch(0, 1, 0)),
        ({"RANK": "1", "WORLD_SIZE": "1"}, Launch(0, 1, 0)),
        ({"RANK": "", "WORLD_SIZE": ""}, Launch(0, 1, 0)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Launch(1, 2, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Launch(5, 8, 1)),
    ],
)
def test_without_a_group_this_is_rank_0(alone: pytest.MonkeyPatch, variables: dict[str, str], expected: Launch) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    assert launch() == expected
    if expected.size == 1:
        group = Group()
        assert (group.rank, group.size, group.is_leader) == (0, 1, True)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK: is not set, but WORLD_SIZE is 2; start with torchrun, or unset WORLD_SIZE"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: 'two' is not allowed; expected a whole number from 1 to"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: '0' is not allowed"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE: '-2' is not allowed"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK: '2' is not allowed; expected a whole number from 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "1.0"}, "RANK: '1.0' is not allowed"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "9"}, "LOCAL_RANK: '9' is not allowed"),
    ],
)
def test_odd_values_get_one_line(alone: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    for name, value in variables.items():
        alone.setenv(name, value)
    with pytest.raises(UserError, match=message):
        Group()


@given(st.dictionaries(st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_any_value_is_a_place_or_one_line(variables: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            rank, size, local_rank = launch()
        except UserError:
            return
        assert 0 <= rank < size
        assert 0 <= local_rank < size
