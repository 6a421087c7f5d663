"""Plugins are found, kept apart and resolved, through real distributions on a real path."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

import pytest

import cort_framework as cort
from cort_framework.errors import PluginError, PluginFault
from cort_framework.registry import Registry, Resolved, check_requirements, discovery

if TYPE_CHECKING:
    from sites import Site

GOOD = """
class Brief(cort.RewardFunction):
    name = "brief"
    async def score(self, trajectory): return 1.0

@cort.hookimpl
def cort_reward_functions(): return [Brief]
"""

BROKEN = {
    "import of what is missing": ("import not_there", "import", "not_there"),
    "exit at import": ("raise SystemExit(3)", "import", "SystemExit"),
    "no python": ("def :", "import", "SyntaxError"),
    "misspelt hook": ("@cort.hookimpl\ndef cort_rewards(): return []", "import", "cort_reward_functions"),
    "unmarked hook": ("def cort_tools(): return []", "import", "@cort.hookimpl"),
    "hook that takes arguments": ("@cort.hookimpl\ndef cort_tools(x): return []", "import", "x"),
    "hook that raises": (
        "@cort.hookimpl\ndef cort_reward_functions(): return 1 / 0",
        "cort_reward_functions",
        "ZeroDivisionError",
    ),
    "hook that exits": (
        "@cort.hookimpl\ndef cort_reward_functions(): exit(1)",
        "cort_reward_functions",
        "SystemExit",
    ),
    "hangs at import": ("import time\ntime.sleep(100)", "import", "not come back within 0.5 s"),
    "hook that hangs": (
        "@cort.hookimpl\ndef cort_reward_functions():\n while True: pass",
        "cort_reward_functions",
        "not come back within 0.5 s",
    ),
    "no list": ("@cort.hookimpl\ndef cort_reward_functions(): return 7", "cort_reward_functions", "int"),
    "wrong base": (
        "@cort.hookimpl\ndef cort_reward_functions(): return [cort.Tool]",
        "cort_reward_functions",
        "RewardFunction",
    ),
    "no class": (
        "@cort.hookimpl\ndef cort_reward_functions(): return [1]",
        "cort_reward_functions",
        "RewardFunction",
    ),
    "no name": (
        "class R(cort.RewardFunction):\n async def score(self, t): return 1\n"
        "@cort.hookimpl\ndef cort_reward_functions(): return [R]",
        "cort_reward_functions",
        "no name",
    ),
    "abstract": (
        "class R(cort.RewardFunction):\n name = 'r'\n@cort.hookimpl\ndef cort_reward_functions(): return [R]",
        "cort_reward_functions",
        "score",
    ),
}


def test_a_plugin_is_imported_only_when_its_kind_is_asked_for(site: Site) -> None:
    site.write("cort-brief", GOOD)
    registry = Registry()
    assert "brief" in registry.command_groups()
    assert "cort_brief" not in sys.modules
    provider = registry.resolve("reward-function", "brief")
    assert (provider.distribution, provider.version) == ("cort-brief", "1.0")


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_remembered_and_harms_no_other(
    site: Site, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, where, word = BROKEN[case]
    if "hang" in case:
        Registry().load_all()  # those that are installed may take their time
        monkeypatch.setattr(discovery, "PATIENCE_S", 0.5)
    site.write("cort-wreck", source)
    site.write("cort-brief", GOOD)
    registry = Registry()
    registry.load_all()
    assert registry.resolve("reward-function", "brief").name == "brief"
    wreck = next(p for p in registry.plugins if p.distribution == "cort-wreck")
    assert [f.where for f in wreck.failures] == [where]
    assert word in wreck.failures[0].reason
    assert "cort-wreck" in wreck.failures[0].fix or "pip install" in wreck.failures[0].fix


def test_an_interrupt_during_import_is_no_failure_of_the_plugin(site: Site) -> None:
    site.write("cort-wreck", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry().load_all()


def test_the_fix_for_a_missing_module_is_the_requirement_that_the_distribution_declares(site: Site) -> None:
    site.write("cort-wreck", "import Not_There.sub", requires=("not-there>=2; python_version > '3'",))
    registry = Registry()
    registry.load_all()
    (failure,) = next(p for p in registry.plugins if p.distribution == "cort-wreck").failures
    assert failure.fix == 'pip install "not-there>=2"'


def test_a_name_that_a_failed_plugin_may_have_had_carries_its_exception(site: Site) -> None:
    site.write("cort-wreck", "import not_there")
    with pytest.raises(PluginError, match=r"cort-wreck 1\.0.*not_there") as caught:
        Registry().resolve("tool", "wreck")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert caught.value.hint == "pip install not_there"


def test_an_unknown_name_is_answered_with_the_nearest(site: Site) -> None:
    site.write("cort-brief", GOOD)
    with pytest.raises(PluginError) as caught:
        Registry().resolve("reward-function", "breif")
    assert caught.value.hint == "did you mean 'brief'?"


def test_what_this_project_leaves_apart_is_answered_with_the_line_that_installs_it() -> None:
    with pytest.raises(PluginError) as caught:
        Registry([]).resolve("engine", "vllm")
    assert caught.value.hint == "pip install cort-vllm"


def test_two_that_claim_a_name_are_named_when_it_is_resolved_and_the_distribution_settles_it(
    site: Site,
) -> None:
    site.write("cort-brief", GOOD)
    site.write("other-brief", GOOD)
    registry = Registry()
    assert len([p for p in registry.providers("reward-function") if p.name == "brief"]) == 2
    with pytest.raises(PluginError, match="cort-brief and by other-brief"):
        registry.resolve("reward-function", "brief")
    assert registry.resolve("reward-function", "other-brief/brief").distribution == "other-brief"
    assert registry.resolve("reward-function", "Other_Brief/brief").distribution == "other-brief"


def test_two_plugins_with_a_model_of_one_name_are_named(site: Site) -> None:
    for name in ("cort-one", "cort-two"):
        site.write(name, "@cort.hookimpl\ndef cort_models(): return {'shared': '/m'}")
    with pytest.raises(PluginError, match="cort-one and by cort-two"):
        Registry().model("shared")
    assert Registry().model("other") is None


def test_a_damaged_distribution_is_listed_as_unknown(site: Site) -> None:
    site.write("cort-brief", GOOD)
    next(site.folder.glob("*.dist-info/METADATA")).write_text("")
    registry = Registry()
    registry.load_all()
    assert registry.resolve("reward-function", "brief").distribution == "unknown"


def test_an_editable_plugin_has_another_version_when_its_source_changes(site: Site) -> None:
    path = site.write("cort-brief", GOOD)
    (next(site.folder.glob("*.dist-info")) / "direct_url.json").write_text('{"dir_info": {"editable": true}}')
    before = Registry().resolve("reward-function", "brief").version
    assert before.startswith("1.0+")
    from cort_framework.registry.discovery import _source_hash

    assert before == f"1.0+{_source_hash(path)}"
    path.write_text(path.read_text() + "# changed\n")
    _source_hash.cache_clear()
    assert Registry().resolve("reward-function", "brief").version != before


class Needy(cort.RewardFunction):
    """Needs what is there, what is too old and what is not there."""

    name = "needy"
    requires: ClassVar = ("pydantic>=2", "click>=99", "not-there>=1.5", 'absent; python_version < "3"')

    async def score(self, trajectory: cort.Trajectory) -> float | None:
        raise NotImplementedError


def test_an_unmet_requirement_is_an_error_with_the_pip_line() -> None:
    with pytest.raises(PluginError, match="not-there is not installed") as caught:
        check_requirements(Needy)
    assert caught.value.hint == 'pip install "click>=99" "not-there>=1.5"'


def test_a_class_of_a_script_is_registered_under_its_name_and_replaced_by_the_next() -> None:
    registry = Registry()
    assert registry.register(Needy) is Needy
    registry.register(Needy)
    provider = registry.resolve("reward-function", "needy")
    assert provider.cls is Needy
    assert provider.distribution == __name__
    with pytest.raises(PluginError, match="no plugin kind"):
        registry.register(int)  # type: ignore[type-var]


def test_a_constructor_that_raises_is_blamed_on_its_distribution() -> None:
    class Wreck(Needy):
        def __init__(self, config: object = None) -> None:
            raise ValueError("no")

    with pytest.raises(PluginFault, match="from cort-wreck") as caught:
        Resolved("reward-function", "w", Wreck, Wreck.Config(), "cort-wreck", "1").build()
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_builtin_stages_come_through_the_same_hooks() -> None:
    assert {"evaluate", "synthesize", "sft", "rft", "rl"} <= set(Registry().names("stage"))
    assert Registry().resolve("executor", "local").distribution == "cort-framework"
