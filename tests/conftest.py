"""For all tests: no timed asserts, not by hypothesis either, and a length of run that a laptop bears."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("cort", deadline=None, max_examples=50)
settings.load_profile("cort")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """``pytest`` alone takes two processes, each a file at a time. What is named by path or marker runs in this one: few
    tests are done sooner, and those that kill, count or measure what runs here need the machine to themselves."""
    alone = (
        hasattr(config, "workerinput") or config.option.usepdb or not config.pluginmanager.has_plugin("xdist")
    )
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    default = str(config.option.markexpr).startswith("not slow")
    if whole and default and not alone and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = 2, "loadfile"
