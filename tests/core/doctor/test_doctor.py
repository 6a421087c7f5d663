"""What the doctor finds, on plugins, packages and folders that are as wrong as they can be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from pupil import recipe
from pupil import registry as pupils

import cort_framework as cort
from cort_framework.doctor import Finding, Packages, examine, health
from cort_framework.doctor.health import Needs, existing, gpu_lines, try_folder
from cort_framework.machine.device import processes_left, processors
from cort_framework.machine.footprint import Device
from cort_framework.recipe import make_plan
from cort_framework.recipe.settings import LaunchSettings
from cort_framework.registry import Registry
from cort_framework.registry.discovery import CORE, discover

if TYPE_CHECKING:
    from sites import Site

CHECK = """
import time
class Look(cort.HealthCheck):
    name = "look"
    timeout_s = 0.5
    {more}
    def check(self, context):
        {body}

@cort.hookimpl
def cort_health_checks(): return [Look]
"""
HERE = cort.HealthContext(Path("runs"))


def only(*distributions: str) -> Registry:
    """The core and these."""
    return Registry([p for p in discover() if p.distribution in (CORE, *distributions)])


def found(registry: Registry, context: cort.HealthContext = HERE) -> list[Finding]:
    return list(examine(context, registry))


def about(findings: list[Finding], distribution: str) -> list[cort.HealthReport]:
    return [f.report for f in findings if f.distribution == distribution]


# --- the checks of plugins --------------------------------------------------------------------------------------
BAD = {
    "raises": ("raise OSError('no such device')", "", "OSError: no such device"),
    "exits": ("raise SystemExit(3)", "", "SystemExit: 3"),
    "says nothing": ("return None", "", "TypeError"),
    "says nonsense": ("yield 'fine'", "", "HealthReports, not 'fine'"),
    "never returns": ("time.sleep(60)", "", "did not end within 0.5 s"),
    "cannot be built": ("yield", "def __init__(self, config=None): 1 / 0", "ZeroDivisionError"),
    "exits when built": ("yield", "def __init__(self, config=None): exit(3)", "SystemExit"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_check_that_fails_in_any_way_is_broken_names_its_distribution_and_stops_no_other(
    site: Site, kind: str
) -> None:
    body, more, said = BAD[kind]
    site.write("cort-looker", CHECK.format(body=body, more=more))
    site.write(
        "cort-zebra",
        CHECK.format(body="yield cort.HealthReport('stripes', 'good', 'there', 'paint')", more=""),
    )
    findings = found(only("cort-looker", "cort-zebra"))
    (report,) = about(findings, "cort-looker")
    assert report.state == "broken" and said in report.detail and report.fix
    assert about(findings, "cort-zebra") == [cort.HealthReport("stripes", "good", "there")]
    assert {"plugins", "versions", "memory", "folder of runs"} <= {r.name for r in about(findings, CORE)}


def test_what_a_check_requires_and_is_not_there_is_a_warning_with_the_pip_line(site: Site) -> None:
    site.write("cort-looker", CHECK.format(body="yield 1 / 0", more='requires = ("not-there>=2",)'))
    reports = about(found(only("cort-looker")), "cort-looker")
    assert {r.state for r in reports} == {"warning"}
    assert all('pip install "not-there>=2"' in r.fix for r in reports)


def test_a_plugin_that_does_not_load_is_broken_with_its_fix(site: Site) -> None:
    site.write("cort-broken", "import not_there", requires=("not-there>=2",))
    reports = about(found(only("cort-broken")), "cort-broken")
    assert [r.name for r in reports] == ["plugin broken", "cort-broken 1.0"]
    assert reports[0].state == "broken" and "No module named 'not_there'" in reports[0].detail
    assert reports[0].fix == 'pip install "not-there>=2"'


def test_what_a_recipe_makes_no_use_of_is_no_more_than_a_warning(site: Site, tmp_path: Path) -> None:
    site.write("cort-looker", CHECK.format(body="raise OSError('no such device')", more=""))
    plan = make_plan(recipe(tmp_path), pupils())
    (report,) = about(found(only("cort-looker"), replace(HERE, plan=plan)), "cort-looker")
    assert report.state == "warning" and "no use of cort-looker" in report.detail


# --- versions ---------------------------------------------------------------------------------------------------
def disagreements(names: set[str]) -> dict[str, cort.HealthReport]:
    return {f.report.name: f.report for f in Packages().disagreements(names)}


def test_a_requirement_that_is_not_met_is_broken_however_far_behind_a_plugin_it_stands(site: Site) -> None:
    site.write("cort-near", "", requires=("far-one>=1", "click>=8", 'not-there; extra == "more"'))
    site.write("far-one", "", requires=("click<2", 'not-there; python_version < "3"'), entry="far")
    told = disagreements({"cort-near"})["far-one 1.0"]
    assert told.state == "broken" and "needs click<2, but" in told.detail
    assert told.fix == 'pip install "click<2"'


def test_another_package_that_wants_another_version_of_ours_is_a_warning(site: Site) -> None:
    site.write("cort-near", "", requires=("click>=8",))
    site.write("bystander", "", requires=("click<2", "not-there"), entry="by")
    told = disagreements({"cort-near"})
    assert told["bystander 1.0"].state == "warning" and "click<2" in told["bystander 1.0"].detail


def test_what_only_a_class_requires_is_looked_at_too_and_is_a_warning(site: Site) -> None:
    body = CHECK.format(body="return []", more='requires = ("far-one>=1",)')
    site.write("cort-looker", body)
    site.write("far-one", "", requires=("not-there",), entry="far")
    reports = {r.name: r for r in about(found(only("cort-looker")), "cort-looker")}
    assert reports["far-one 1.0"].state == "warning"
    assert reports["far-one 1.0"].fix == 'pip install "not-there"'


def test_damaged_metadata_is_no_fault_of_the_doctor(site: Site) -> None:
    site.write("cort-near", "", requires=("odd-one>=1", "no version; at all"))
    site.write("odd-one", "", version="today", entry="odd")
    (site.folder / "gone-1.0.dist-info").mkdir()
    (site.folder / "gone-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")
    told = disagreements({"cort-near"})
    assert told["cort-near 1.0"].detail == "needs odd-one>=1, but today is installed"


def test_two_versions_of_one_package_are_a_warning(site: Site) -> None:
    site.write("cort-near", "", requires=("click>=8",))
    site.write("click", "", version="99.0", entry="nothing")
    told = disagreements({"cort-near"})["click"]
    assert told.state == "warning" and "99.0, which is used" in told.detail


def test_where_all_agree_one_line_says_so(site: Site) -> None:
    site.write("cort-near", "", requires=("click>=8", "pluggy"))
    (told,) = disagreements({"cort-near"}).values()
    assert (told.name, told.state) == ("versions", "good")


# --- the machine ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("membership", "files", "allowed"),
    [
        ("0::/a", {"a/cpu.max": "max 100000"}, 99.0),
        ("0::/a", {"a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/cpu.max": "400000 100000", "cpu.max": "200000 100000"}, 2.0),
        ("1:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 99.0),
    ],
)
def test_a_control_group_limits_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str], allowed: float
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(99), raising=False)
    assert processors(*groups(tmp_path, membership, files)) == allowed


@pytest.mark.parametrize(
    ("limit", "now", "left"), [("max", "5", None), ("100", "40", 60), ("100", "120", -20)]
)
def test_a_control_group_limits_the_processes(tmp_path: Path, limit: str, now: str, left: int | None) -> None:
    files = {"pids/pids.max": limit, "pids/pids.current": now}
    assert processes_left(*groups(tmp_path, "8:pids:/", files)) == left


def groups(folder: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    (folder / "groups").write_text(membership + "\n")
    for name, text in files.items():
        path = folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder / "groups", folder / "fs"


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    assert try_folder(tmp_path) is None and not list(tmp_path.iterdir())
    assert existing(tmp_path / "not" / "yet") == tmp_path
    assert try_folder(Path("/proc")) is not None


def test_a_folder_whose_locks_keep_nobody_out_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health.fcntl, "flock", lambda *_: None)
    assert "two runs could write" in str(try_folder(tmp_path))


def test_a_gpu_that_others_fill_is_a_warning() -> None:
    free, full = gpu_lines([["H100", "81559", "4", "570.1"], ["H100", "81559", "70000", "570.1"]])
    assert (free.state, full.state) == ("good", "warning") and "70000 in use" in full.detail


def test_a_driver_that_fails_is_broken_and_one_without_a_gpu_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    told = {}
    for said, code in (
        ("No devices were found", 6),
        ("Driver/library version mismatch", 18),
        ("H100, 9, 0, 570", 0),
    ):
        command.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
        command.chmod(0o755)
        (report,) = health.Gpus().check(HERE)
        told[code] = (report.name, report.state)
    assert told == {6: ("gpu", "good"), 18: ("gpu", "broken"), 0: ("gpu 0", "good")}


def test_scarce_room_is_said_with_what_makes_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = make_plan(recipe(tmp_path), pupils())
    plan = replace(plan, stages=[replace(s, launch=LaunchSettings(processes=3)) for s in plan.stages])
    context = cort.HealthContext(tmp_path, plan)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(health, "processors", lambda: 2.5)
    monkeypatch.setattr(health, "processes_left", lambda: 100)
    monkeypatch.setattr(health, "free_memory", lambda: 1 << 30)
    monkeypatch.setattr(
        health.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20, "total": 1 << 26})
    )
    checks = (health.Processors, health.Limits, health.Memory, health.Folders)
    told = {report.name: report for check in checks for report in check().check(context)}
    assert told["processors"].state == "warning" and told["processors"].fix == "export OMP_NUM_THREADS=2"
    assert told["processes"].state == "warning" and "--pids-limit" in told["processes"].fix
    assert told["memory"].state == "warning" and told["shared memory"].state == "warning"
    assert told["folder of runs"].state == "broken"
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert "OMP_NUM_THREADS=64" in list(health.Processors().check(context))[1].detail
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "trains in 3 processes" in list(health.Processors().check(context))[1].detail
    monkeypatch.setattr(health, "processors", lambda: 64.0)
    assert list(health.Processors().check(context))[1].state == "good"


# --- a recipe ---------------------------------------------------------------------------------------------------
def needs(plan: Any, folder: Path) -> dict[str, cort.HealthReport]:
    return {report.name: report for report in Needs().check(cort.HealthContext(folder, plan))}


def test_what_a_recipe_needs_and_this_machine_lacks_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(recipe(tmp_path), pupils())
    (tmp_path / "base-3" / "model.safetensors").touch()
    assert {r.state for r in needs(plan, tmp_path).values()} <= {"good", "warning"}

    def refuse(self: Any) -> None:
        raise cort.RequestError("there is no sandbox", "install one")

    def no_tasks(self: Any) -> list[cort.Task]:
        return []

    for resolved in plan.tools.values():
        monkeypatch.setattr(resolved.cls, "preflight", refuse)
    for resolved in plan.tasks.values():
        monkeypatch.setattr(resolved.cls, "tasks", no_tasks)
    told = needs(plan, tmp_path)
    assert all(told[f"tool {key}"].state == "broken" for key in plan.tools)
    assert [told[f"tool {key}"].fix for key in plan.tools] == ["install one"] * len(plan.tools)
    assert all(told[f"tasks {key}"].state == "broken" for key in plan.tasks) and plan.tasks


def test_a_stage_that_does_not_fit_is_broken_and_its_settings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(cort.load_recipe("cort_math"))
    monkeypatch.setattr(
        "cort_framework.forecast.find_device", lambda: Device("a small one", 50 << 20, gpu=True)
    )
    told = needs(plan, tmp_path)
    assert told["stage sft"].state == "broken" and "stage.sft.options." in told["stage sft"].fix


def test_a_model_without_weights_is_broken_and_one_that_has_to_be_fetched_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plan = make_plan(recipe(tmp_path), pupils())  # its model is a folder with a config alone
    assert needs(plan, tmp_path)["model"].state == "broken"
    elsewhere = make_plan(recipe(tmp_path, model="somebody/something"), pupils())
    told = needs(elsewhere, tmp_path)["model"]
    assert told.state == "warning" and told.fix == "hf download somebody/something"
    assert "model" not in needs(make_plan(cort.load_recipe("cort_math")), tmp_path)


# --- the command ------------------------------------------------------------------------------------------------
def run(monkeypatch: pytest.MonkeyPatch, registry: Registry, *arguments: str) -> tuple[int, str]:
    from cort_framework.cli import doctor

    monkeypatch.setattr(doctor, "default_registry", lambda: registry)
    done = CliRunner().invoke(doctor.doctor, arguments)
    return (1 if isinstance(done.exception, cort.CortError) else done.exit_code), done.stdout


def test_the_command_ends_with_1_where_something_is_broken_and_with_0_where_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(
        "cort-looker",
        CHECK.format(body="yield cort.HealthReport('eye', 'broken', 'shut', 'open it')", more=""),
    )
    code, text = run(monkeypatch, only("cort-looker"))
    assert code == 1 and "broken   eye: shut" in text and "fix: open it" in text and "1 broken" in text
    code, text = run(monkeypatch, only("cort-looker"), "--json")
    told = json.loads(text)
    eye = {
        "distribution": "cort-looker",
        "name": "eye",
        "state": "broken",
        "detail": "shut",
        "fix": "open it",
    }
    assert code == 1 and eye in told["checks"] and told["counts"]["broken"] == 1
    code, text = run(monkeypatch, only())
    assert code == 0 and "0 broken" in text


def test_a_recipe_that_cannot_be_planned_is_one_finding_among_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('schema = 1\nname = "bad"\nmodel = "no-such-model"\n')
    code, text = run(monkeypatch, only(), "--recipe", str(path), "--json")
    told = {check["name"]: check for check in json.loads(text)["checks"]}
    assert code == 1 and told["recipe"]["state"] == "broken" and "memory" in told
