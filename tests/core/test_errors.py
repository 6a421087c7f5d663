"""Errors are for people, in whichever process they are read."""

from __future__ import annotations

import pickle

import pytest

from cort_framework.errors import CortError, PluginFault, RecipeError, RequestError


@pytest.mark.parametrize(
    "error",
    [
        CortError("It broke", "mend it"),
        RequestError("not so"),
        RecipeError(["line 3: unknown key", "line 9: no task"], "see the docs", "r.toml"),
        PluginFault("tool 'shout'", "cort-shout", ValueError("loud")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_from_another_process_says_what_it_said_there(error: CortError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert (str(other), other.hint, other.exit_code) == (str(error), error.hint, error.exit_code)
