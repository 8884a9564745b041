"""Any table of a sweep, however strange, is a plan or an error of one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.sweeps.plan import plan
from modelnative.sweeps.spec import FIELDS, PARTS, parse_spec

NAMES = st.sampled_from(
    [*PARTS, *FIELDS, "options", "policy", "options.x", "format", "dials", "seed.x", "policy.width.x", ""]
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["ppo", "gru"])
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=2), inner, max_size=3)
)
FIELD_TABLES = st.dictionaries(st.sampled_from(FIELDS) | NAMES, VALUES, max_size=3)
TABLES = st.dictionaries(st.sampled_from(PARTS) | st.text(max_size=2), VALUES, max_size=4) | st.fixed_dictionaries(
    {},
    optional={
        "seeds": st.integers() | st.lists(st.integers(), max_size=3) | VALUES,
        "base": FIELD_TABLES,
        "grid": st.dictionaries(st.sampled_from(FIELDS), st.lists(PLAIN, min_size=1, max_size=3), max_size=2),
        "trials": st.lists(FIELD_TABLES, max_size=2),
    },
)


def require_a_plan_or_one_line(table: dict[str, Any]) -> None:
    message = ""
    try:
        spec = parse_spec(table)
        plan(spec)
        json.dumps(vars(spec))
    except UserError as error:
        message = str(error)
    assert "\n" not in message


@given(TABLES)
def test_any_table_is_a_plan_or_one_line(table: dict[str, Any]) -> None:
    require_a_plan_or_one_line(table)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(TABLES)
def test_very_many_tables_are_a_plan_or_one_line(table: dict[str, Any]) -> None:
    require_a_plan_or_one_line(table)
