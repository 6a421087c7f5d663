"""What code in a session may reach, what it may take, and what happens where a layer is not to be had."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_sessions import opened
from unprivileged import run_as_ordinary_user

from cort_framework import HealthContext, Outcome, RequestError, ToolResult
from cort_framework.cli import main
from cort_python.calls import Caller, CallRaised
from cort_python.checks import IsolationCheck
from cort_python.folders import remove_tree
from cort_python.health import aim_lines, layer_line, look_at
from cort_python.isolation import LAYERS, REMEDY, Layer, State, seccomp
from cort_python.isolation.attacks import AIMS, ATTACKS, Attack
from cort_python.isolation.settings import IsolationConfig
from cort_python.isolation.surroundings import own_groups
from cort_python.isolation.trials import Trial, run_attacks, run_hangs
from cort_python.tool import PythonTool

Cells = Callable[..., list[ToolResult]]


def assert_held_or_named(layers: dict[Layer, State], trials: Iterable[Trial]) -> None:
    for trial in trials:
        assert trial.held or any(layer in trial.detail for layer in layers), trial
    if all(state.whole for state in layers.values()):
        assert [t for t in trials if not t.held] == []


def test_thirty_attacks_are_refused_or_the_missing_layer_is_named() -> None:
    layers, trials = asyncio.run(run_attacks())
    assert len(trials) == 30
    assert_held_or_named(layers, trials)


AS_ANOTHER = """
import json
from cort_python.checks import examine
print(json.dumps(examine(hangs=False)))
"""


@pytest.mark.slow
def test_for_an_ordinary_user_too() -> None:
    report = json.loads(run_as_ordinary_user(AS_ANOTHER))
    assert report["user"] != "root"
    layers = {layer: State(**state) for layer, state in report["layers"].items()}
    trials = [Trial(**trial) for trial in report["attacks"]]
    assert len(trials) == 30
    assert layers["rlimits"].in_force and layers["privileges"].in_force
    assert_held_or_named(layers, trials)


def test_the_attacks_are_real_they_get_through_where_nothing_is_in_force() -> None:
    harmless = (
        "outside",
        "private",
        "TCP",
        "UDP",
        "Unix socket",
        "another session's",
        "name space",
        "limits on",
    )
    chosen = [a for a in ATTACKS if any(word in a.name for word in harmless) and "mount" not in a.name]
    config = PythonTool.Config.model_validate({"isolation": {"without": LAYERS}})
    layers, trials = asyncio.run(run_attacks(config, chosen))
    assert not any(state.in_force for state in layers.values())
    assert [t.name for t in trials if t.held] == []
    assert len(trials) >= 12


@pytest.mark.slow
def test_thirteen_hangs_end_and_their_sessions_answer_again() -> None:
    config = PythonTool.Config(timeout_s=0.4, grace_s=0.3)
    trials = asyncio.run(run_hangs(config, slack_s=10))  # how fast is for `cort tools check` to say
    assert len(trials) == 13
    assert [t for t in trials if not t.held] == []


@pytest.mark.parametrize("layer", LAYERS)
def test_a_required_layer_that_is_missing_refuses_to_start_and_is_named(layer: str, tmp_path: Path) -> None:
    async def start() -> None:
        async with opened(tmp_path, backend="lite", isolation={"require": [layer], "without": [layer]}):
            pass

    with pytest.raises(RequestError, match=rf"{layer} .*isolation.without leaves it out") as refusal:
        asyncio.run(start())
    assert refusal.value.exit_code == 2


def test_a_run_refuses_before_its_first_stage_and_says_which_layer_and_what_would_bring_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = ["--set", 'rollout.tools.python.isolation.require=["cgroups"]']
    layers += ["--set", 'rollout.tools.python.isolation.without=["cgroups"]']
    assert main(["run", "cort_math", "--run-dir", str(tmp_path / "run"), *layers]) == 2
    error = capsys.readouterr().err
    assert "cgroups" in error and "systemd-run" in error
    assert not any((tmp_path / "run").glob("*/stage.json"))


def test_kernels_that_are_not_forked_do_not_pass_for_isolated(tmp_path: Path) -> None:
    async def start() -> None:
        async with opened(tmp_path, backend="local", isolation={"require": ["seccomp"]}):
            pass

    with pytest.raises(RequestError, match=r"seccomp .*not forked"):
        asyncio.run(start())


def test_what_is_in_force_is_reported_and_an_unknown_layer_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["tools", "check", "--no-attacks", "--no-hangs", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["layers"]) == set(LAYERS)
    assert all(state["in_force"] or state["detail"] for state in report["layers"].values())
    assert main(["tools", "check", "--require", "moat"]) == 2
    assert "moat" in capsys.readouterr().err
    missing = ["--require", "seccomp", "--without", "seccomp", "--no-attacks", "--no-hangs"]
    assert main(["tools", "check", *missing]) == 2
    assert "isolation.require" in capsys.readouterr().err


# --- what still works -------------------------------------------------------------------------------------------
def test_programs_files_and_threads_of_a_session_work_as_ever(cells: Cells) -> None:
    results = cells(
        "import subprocess\nprint(subprocess.run('echo a > f; cat f; ls', shell=True, capture_output=True, text=True).stdout)",
        "import pathlib, shutil\nshutil.copy('f', 'g')\npathlib.Path('d/e').mkdir(parents=True)\nshutil.move('g', 'd/e')",
        "from concurrent.futures import ThreadPoolExecutor as P\nwith P(4) as p: print(sum(p.map(int, '1234')))",
        "import tempfile\nwith tempfile.TemporaryDirectory() as t: open(t + '/x', 'w').write('x')\nprint('kept')",
        "import os, signal, time\nchild = subprocess.Popen(['sleep', '9'])\nchild.terminate()\nchild.wait()",
        "a, b = __import__('socket').socketpair()\na.send(b'x')\nb.recv(1)",
        "open('/dev/null', 'w').write('x')\n!python -c 'print(6 * 7)'",
    )
    assert [r.outcome for r in results] == [Outcome.OK] * len(results), [r.text for r in results]
    assert results[0].text.split()[:2] == ["a", "f"]
    assert results[2].text == "10"
    assert results[4].text == "-15"
    assert results[6].text.endswith("42")


def test_a_path_that_the_recipe_names_may_be_read_but_not_written(cells: Cells, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    (data / "table").write_text("17")
    (data / "table").chmod(0o644)
    read, written = f"open('{data}/table').read()", f"open('{data}/new', 'w')"
    seen, refused = cells(read, written, isolation={"readable": [str(data)]})
    hidden, _ = cells(read, written)
    assert seen.text == "'17'"
    assert refused.outcome is hidden.outcome is Outcome.PROGRAM_ERROR
    assert not (data / "new").exists()


def test_processor_time_is_limited_over_the_whole_session(cells: Cells) -> None:
    spent, later = cells("while True: pass", "1 + 1", cpu_s=1, timeout_s=20)
    assert spent.outcome is Outcome.RESOURCE_LIMIT
    assert "SIGXCPU" in (spent.error or "") or "processor" in spent.text
    assert later.text.endswith("2")


def test_without_a_network_nothing_can_be_installed_and_the_model_is_told_at_once(cells: Cells) -> None:
    (installed,) = cells("!pip install some-package-that-is-not-there")
    assert "ERROR" in installed.text or "network" in installed.text
    assert "Retrying" not in installed.text


def test_processes_may_share_work_where_each_session_has_a_mount_name_space(cells: Cells) -> None:
    code = "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as p: print(p.map(abs, [1, -2]))"
    pooled, seen = cells(code, "import os\nos.listdir('/dev/shm')")
    if pooled.outcome is Outcome.OK:
        assert (pooled.text, seen.text) == ("[1, 2]", "[]")
    else:
        layers, _ = asyncio.run(run_attacks(attacks=()))
        assert not layers["namespaces"].whole


def test_a_call_has_nowhere_to_write_and_nothing_to_execute(tmp_path: Path) -> None:
    attempts = {
        "open('/tmp/new', 'w')": "landlock",
        "open('new', 'w')": "landlock",
        "open('/etc/shadow').read()": "landlock",
        "__import__('os').fork()": "seccomp",
        "__import__('os').execv('/bin/true', ['true'])": "seccomp",
        "__import__('socket').socket()": "seccomp",
        "bytearray(2**30)": "rlimits",
    }

    async def run() -> tuple[list[str], dict[Layer, State]]:
        caller = Caller("builtins:eval", folder=tmp_path, timeout_s=20, memory_mb=256, backend="fork")
        await caller.open()
        through = []
        try:
            assert await caller.call("6 * 7") == 42
            for code in attempts:
                try:
                    await caller.call(code)
                except CallRaised:
                    continue
                through.append(code)
            return through, dict(caller.layers)
        finally:
            await caller.close()

    through, layers = asyncio.run(run())
    assert [code for code in through if layers[attempts[code]].in_force] == []  # type: ignore[index]


def test_sessions_without_jupyter_are_confined_alike() -> None:
    chosen = [a for a in ATTACKS if any(word in a.name for word in ("outside", "private", "template", "TCP"))]
    config = PythonTool.Config(backend="lite", timeout_s=10)
    assert_held_or_named(*asyncio.run(run_attacks(config, chosen)))


# --- cgroups ----------------------------------------------------------------------------------------------------
SYSTEMD = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
VERSION_1 = "31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
CONTAINER = "31 25 0:27 /docker/a1 /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory"


@pytest.mark.parametrize(
    ("memberships", "mounts", "expected"),
    [
        (
            "0::/user.slice/one.scope",
            SYSTEMD,
            [("", "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/one.scope")],
        ),
        ("0::/", SYSTEMD, [("", "/sys/fs/cgroup", "/sys/fs/cgroup")]),
        ("4:memory:/a\n0::/", VERSION_1, [("memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a")]),
        (
            "4:memory:/docker/a1/b",
            CONTAINER,
            [("memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/b")],
        ),
        ("4:memory:/elsewhere", CONTAINER, [("memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory")]),
        ("", SYSTEMD, []),
    ],
)
def test_a_process_finds_its_own_cgroups(
    memberships: str, mounts: str, expected: list[tuple[str, str, str]]
) -> None:
    assert own_groups(memberships, mounts) == [(c, Path(m), Path(g)) for c, m, g in expected]


# --- the filter, run by hand ------------------------------------------------------------------------------------
ALLOW, REFUSE, ABSENT, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


def verdict(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """What the filter says of a system call, as the system's own machine would run it."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, audit, 0, *padded)
    code = list(struct.iter_unpack("HBBI", program))
    accumulator = position = 0
    while True:
        operation, holds, fails, operand = code[position]
        position += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x06:
            return operand
        else:
            test = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }
            position += holds if test[operation] else fails


MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("machine", MACHINES)
@given(
    alone=st.booleans(), number=st.integers(0, 600), arguments=st.lists(st.integers(0, 2**64 - 1), max_size=6)
)
@settings(max_examples=300, deadline=None)
def test_the_filter_refuses_what_is_in_its_table_and_allows_all_else(
    machine: str, alone: bool, number: int, arguments: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "machine", lambda: machine)
        program = seccomp.program(alone=alone)
        words = seccomp._TABLES[machine][2].split()
    names = dict(zip(map(int, words[1::2]), words[::2], strict=True))
    audit = MACHINES[machine]
    said = verdict(program, audit, number, *arguments)
    name = names.get(number)
    given_arguments = [*arguments, *[0] * 6]
    if name is None or name in seccomp._SIGNALS or (name in seccomp._PROGRAMS and not alone):
        expected = ALLOW
    elif name == "clone3":
        expected = ABSENT
    elif name == "clone":
        flags = given_arguments[0] & 0xFFFFFFFF
        refused = not flags & 0x10000 if alone else bool(flags & seccomp._NEW_NAMESPACES)
        expected = REFUSE if refused else ALLOW
    elif name in seccomp._CONDITIONS:
        where = seccomp._CONDITIONS[name]
        value = given_arguments[where.argument]
        if where.value is not None:
            refused = value & 0xFFFFFFFF == where.value
        else:
            refused = bool(value & where.bits) if where.bits else bool(value)
        expected = REFUSE if refused else ALLOW
    else:
        expected = REFUSE
    assert said == expected
    assert verdict(program, audit ^ 1, number) == KILL


def test_where_signals_are_not_kept_within_a_session_a_process_may_signal_itself_alone() -> None:
    if platform.machine() not in MACHINES:
        pytest.skip("no filter on this machine type")
    words = seccomp._TABLES[platform.machine()][2].split()
    kill = int(words[words.index("kill") + 1])
    program = seccomp.program(signals_to=os.getpid())
    audit = MACHINES[platform.machine()]
    assert verdict(program, audit, kill, os.getpid(), 9) == ALLOW
    assert verdict(program, audit, kill, os.getppid(), 9) == REFUSE


def test_what_is_removed_after_a_session_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "session"
    outside.write_text("kept")
    outside.chmod(0o600)
    (folder / "shut").mkdir(parents=True)
    (folder / "shut" / "way").symlink_to(outside)
    (folder / "shut").chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    assert outside.read_text() == "kept" and outside.stat().st_mode & 0o777 == 0o600


WITHOUT_UNSHARE = """
import json, platform, struct
from cort_python.checks import examine
from cort_python.isolation import seccomp
from cort_python.limits import no_new_privileges

words = seccomp._TABLES[platform.machine()][2].split()
unshare = int(words[words.index("unshare") + 1])
code = [(0x20, 0, 0, 0), (0x15, 0, 1, unshare), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
no_new_privileges()
seccomp.Filter(b"".join(struct.pack("HBBI", *instruction) for instruction in code)).install()
print(json.dumps(examine(attacks=False, hangs=False)["layers"]["namespaces"]))
"""


def test_bwrap_makes_the_name_spaces_where_it_is_installed_and_we_may_not() -> None:
    if seccomp.missing():
        pytest.skip("nothing here can take unshare away")
    done = subprocess.run([sys.executable, "-c", WITHOUT_UNSHARE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    bwrap = ["bwrap", "--dev-bind", "/", "/", "--unshare-net", "true"]
    works = bool(shutil.which("bwrap")) and subprocess.run(bwrap, capture_output=True).returncode == 0
    assert state["in_force"] == works, state
    assert ("by bwrap" if works else "does not let us") in state["detail"]


@pytest.mark.slow
def test_the_doctor_tries_the_walls_and_says_what_held() -> None:
    reports = {report.name: report for report in IsolationCheck().check(HealthContext(Path("runs")))}
    assert reports["session"].state == "good", reports["session"]
    assert {f"isolation: {layer}" for layer in LAYERS} <= set(reports)
    assert {f"tried: {aim}" for aim in AIMS} <= set(reports) and reports["time"].state == "good"
    assert "broken" not in {report.state for report in reports.values()}


def test_a_layer_that_is_missing_is_a_warning_and_broken_where_the_recipe_requires_it() -> None:
    absent = State(False, "this kernel has none")
    assert layer_line("seccomp", State(True, "x86_64"), IsolationConfig()).state == "good"
    missing = layer_line("seccomp", absent, IsolationConfig())
    assert missing.state == "warning" and "sockets" in missing.detail and missing.fix == REMEDY["seccomp"]
    assert layer_line("seccomp", absent, IsolationConfig(require=("seccomp",))).state == "broken"


def test_what_gets_through_names_the_missing_layers_and_where_none_is_missing_the_walls_do_not_hold() -> None:
    attack = Attack("send a datagram", "", "seccomp namespaces")
    through = Trial(attack.name, False, "the owner's sockets have heard from it", 0.1)
    whole = dict.fromkeys(LAYERS, State(True, ""))
    (weak,) = aim_lines("network", [attack], [through], whole | {"seccomp": State(False, "none")})
    assert weak.state == "warning" and weak.fix.startswith("seccomp: ")
    (false,) = aim_lines("network", [attack], [through], whole)
    assert false.state == "broken"


@pytest.mark.slow
def test_the_doctor_says_of_walls_that_were_taken_down_what_is_not_isolated() -> None:
    without = tuple(layer for layer in LAYERS if layer not in ("rlimits", "privileges"))
    config = PythonTool.Config(isolation=IsolationConfig(without=without))
    reports = list(look_at(config))
    assert {r.name for r in reports if r.state == "broken"} == set()
    through = [r for r in reports if r.name == "tried: network"]
    assert through and all(r.state == "warning" and "not isolated" in r.detail for r in through)
