"""Tables as TOML, and the line on which a key stands."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cort_framework.recipe.tables import key_lines, to_toml

names = st.text("ab-_1 .\"'é", min_size=1, max_size=4)
plain = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8)
inner_tables = st.dictionaries(names, plain | st.lists(plain, max_size=2), max_size=2)
values = (
    plain
    | inner_tables
    | st.lists(inner_tables, max_size=2)
    | st.dictionaries(names, inner_tables, max_size=2)
)
tables = st.dictionaries(names, values, max_size=3)


@given(tables)
@settings(max_examples=50, deadline=None)
def test_tables_written_as_toml_read_back_equal(table: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(table)) == table


@given(tables)
@settings(max_examples=50, deadline=None)
def test_the_line_of_a_key_is_one_that_holds_its_name(table: dict[str, Any]) -> None:
    text = to_toml(table)
    lines = text.splitlines()
    for key, line in key_lines(text).items():
        last = next(part for part in reversed(key) if isinstance(part, str))
        assert last in lines[line - 1] or json.dumps(last, ensure_ascii=False) in lines[line - 1]
