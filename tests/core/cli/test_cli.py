"""The command line: what it lists, what it says of an error, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from cort_framework import cli
from cort_framework.cli import COMMANDS, main
from cort_framework.cli.scaffold import SCAFFOLDS
from cort_framework.errors import CortError

if TYPE_CHECKING:
    from sites import Site

Capture = pytest.CaptureFixture[str]


def test_help_names_every_command_and_exits_with_0(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\S", shown, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_of_the_table_is_there_and_has_help(name: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: cort {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["recipes", "shwo"], "Did you mean 'show'?"),
        (["recipes", "show"], "Missing argument 'RECIPE'"),
        (["recipes", "list", "--jsn"], "No such option"),
        (["recipes", "show", "no-such-recipe"], "there is no recipe no-such-recipe"),
        (
            ["recipes", "show", "cort_math", "--set", "stage.rll.options.lr=1"],
            "no stage is called 'rll'; did you mean 'rl'?",
        ),
        (["recipes", "show", "cort_math", "--profile", "no-such"], "no profile 'no-such'"),
        (["plugins", "show", "pyhton"], "did you mean 'python'"),
        (["plugins", "new", "Bad Name", "--kind", "tool"], "no name for a plugin"),
        (["plugins", "new", "good", "--kind", "hammer"], "'hammer' is not one of"),
    ],
)
def test_a_wrong_request_is_an_error_and_a_hint_on_stderr_with_code_2(
    arguments: list[str], complaint: str, capsys: Capture
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and complaint in shown.err
    assert "Traceback" not in shown.err


@click.command()
@click.argument("how")
def fail(how: str) -> int:
    """Fails as it is told."""
    errors = {
        "work": CortError("the work failed", "do it again"),
        "interrupt": KeyboardInterrupt(),
        "bug": RuntimeError("oh"),
    }
    if how in errors:
        raise errors[how]
    return int(how)


@pytest.mark.parametrize(
    ("how", "code", "shown"),
    [
        ("work", 1, "error: the work failed\nhint: do it again\n"),
        ("interrupt", 130, "interrupted\n"),
        ("bug", 1, "error: RuntimeError: oh\nhint: this is a fault of cort-framework itself"),
        ("0", 0, ""),
        ("1", 1, ""),
    ],
)
def test_a_command_ends_with_the_code_of_its_error(
    how: str, code: int, shown: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fail", (__name__, "fail", "Fails."))
    assert main(["fail", how]) == code
    assert capsys.readouterr().err.lstrip().startswith(shown)


def test_a_traceback_is_shown_where_it_is_asked_for(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fail", (__name__, "fail", "Fails."))
    assert main(["fail", "--traceback", "work"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert main(["fail", "--", "--traceback"]) == 1  # behind the dashes it is an argument
    assert "invalid literal" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_told_nothing() -> None:
    code = "import sys; from cort_framework.cli import main; sys.exit(main(['recipes', 'schema']))"
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    assert writer.stderr.read() == ""
    assert writer.wait(60) == 1


# --- recipes ----------------------------------------------------------------------------------------------------
def test_recipes_are_listed_with_their_stages(capsys: Capture) -> None:
    assert main(["recipes", "list", "--json"]) == 0
    (record,) = [r for r in json.loads(capsys.readouterr().out) if r["name"] == "cort_math"]
    assert {"synthesize", "sft", "rft", "rl"} <= set(record["stages"])
    assert main(["recipes", "list"]) == 0
    assert "cort_math" in capsys.readouterr().out


def test_a_recipe_is_shown_as_it_stands_after_set(capsys: Capture) -> None:
    assert main(["recipes", "show", "cort_math", "--set", "seed=41", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 41
    assert main(["recipes", "show", "cort_math", "--set", "seed=41"]) == 0
    assert "seed = 41\n" in capsys.readouterr().out


def test_validate_says_what_is_good_and_what_is_not(tmp_path: Path, capsys: Capture) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(
        'name = "x"\nmodel = "a/b"\n[[stage]]\nname = "m"\nkind = "evaluate"\nsystem = "x"\ntasks = ["t"]\n[tasks.t]\nsource = "tiny"\n'
    )
    bad.write_text(good.read_text().replace("system", "sytem"))
    assert main(["recipes", "validate", str(good)]) == 0
    assert f"{good}: good, 1 stages: m" in capsys.readouterr().out
    assert main(["recipes", "validate", str(good), str(bad)]) == 2
    shown = capsys.readouterr()
    assert (
        str(good) in shown.out and "line 6: stage.m.sytem: unknown key; did you mean 'system'?" in shown.err
    )


def test_the_schema_describes_every_key(capsys: Capture) -> None:
    assert main(["recipes", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["properties"]["seed"]["description"]
    assert schema["$defs"]["RolloutTable"]["properties"]["max_tokens"]["minimum"] == 1


# --- plugins ----------------------------------------------------------------------------------------------------
def test_installed_plugins_are_listed_and_shown(capsys: Capture) -> None:
    assert main(["plugins", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["plugins"]
    assert {("stage", "evaluate", "cort-framework"), ("tool", "python", "cort-python")} <= {
        (p["kind"], p["name"], p["distribution"]) for p in listed
    }
    assert main(["plugins", "list", "--kind", "tool"]) == 0
    assert "evaluate" not in capsys.readouterr().out
    assert main(["plugins", "show", "python"]) == 0
    assert "timeout_s = " in capsys.readouterr().out
    assert main(["plugins", "show", "cort-python", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["config"]["properties"]["timeout_s"]


def test_broken_and_clashing_distributions_are_listed_with_why_and_what_to_do(site: Site) -> None:
    for fixture in ("outside-plugin", "broken-plugin", "clashing-plugin"):
        site.install(fixture)
    assert site.cort("--help").returncode == 0
    listed = site.cort("plugins", "list")
    assert listed.returncode == 0 and listed.stderr == ""
    assert "outside-broken 0.3 failed (import: ModuleNotFoundError" in listed.stdout
    assert 'pip install "a-module-that-nobody-has>=3"' in listed.stdout
    assert "tool 'shout' is claimed by outside-rival and by outside-shout" in listed.stdout
    record = json.loads(site.cort("plugins", "list", "--json").stdout)
    assert "outside-broken" in [f["distribution"] for f in record["failed"]]
    assert {p["distribution"] for p in record["plugins"] if p["clash"]} == {"outside-rival", "outside-shout"}
    shown = site.cort("plugins", "show", "outside-broken")
    assert shown.returncode == 2 and "a-module-that-nobody-has>=3" in shown.stderr


def test_a_plugin_s_commands_are_a_group_of_their_own(site: Site) -> None:
    site.install("outside-plugin")
    site.install("broken-plugin")
    assert re.search(r"^  shout +from outside-shout 1\.2$", site.cort("--help").stdout, re.MULTILINE)
    assert site.cort("shout", "whisper").stdout == "hello\n"
    broken = site.cort("broken", "anything")
    assert broken.returncode == 2 and "outside-broken" in broken.stderr


def commands(*names: str) -> str:
    """The source of a plugin with commands that print their own names."""
    made = "".join(f"@click.command()\ndef {n}(): click.echo('{n} of ' + __name__)\n" for n in names)
    return f"import click\n{made}@cort.hookimpl\ndef cort_commands(): return [{', '.join(names)}]\n"


def test_plugins_of_one_name_share_a_group_of_commands_and_a_name_claimed_twice_is_nobody_s(
    site: Site,
) -> None:
    site.write("cort-one", commands("brew", "pour"), entry="bench")
    site.write("cort-two", commands("grind", "pour"), entry="bench")
    site.write("cort-three", "import a_module_that_nobody_has", entry="bench")
    assert site.cort("bench", "brew").stdout == "brew of cort_one\n"
    assert site.cort("bench", "grind").stdout == "grind of cort_two\n"
    claimed = site.cort("bench", "pour")
    assert claimed.returncode == 2
    assert "the command 'bench pour' is claimed by cort-one and by cort-two" in claimed.stderr
    absent = site.cort("bench", "roast")
    assert absent.returncode == 2 and "cort-three 1.0" in absent.stderr
    shown = " ".join(site.cort("bench", "--help").stdout.split())
    assert "brew" in shown and "pour cort-one and cort-two claim it" in shown


def test_a_fault_in_a_plugin_s_code_is_said_to_be_the_plugin_s(site: Site) -> None:
    command = "import click\n@click.command()\ndef oops(): raise ValueError('no')\n"
    site.write("cort-oops", f"{command}@cort.hookimpl\ndef cort_commands(): return [oops]")
    done = site.cort("oops", "oops")
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: ValueError: no\nhint: the fault is in the plugin cort-oops; --traceback shows where\n"
    )


def test_a_new_plugin_of_every_kind_passes_its_own_tests(tmp_path: Path, capsys: Capture) -> None:
    for kind in SCAFFOLDS:
        assert main(["plugins", "new", f"my-{kind}", "--kind", kind, "--dir", str(tmp_path)]) == 0
    roots = sorted(tmp_path.iterdir())
    assert [p.name for p in roots] == sorted(f"cort-my-{kind}" for kind in SCAFFOLDS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(r) for r in roots)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        env={
            **os.environ,
            "PYTEST_ADDOPTS": "",
            "PYTHONPATH": ":".join(map(str, roots)),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    assert done.returncode == 0, done.stdout
    leftovers = [
        p for p in tmp_path.rglob("*.*") if re.search(r"\b(NAME|CLASS|PACKAGE|KIND|BODY)\b", p.read_text())
    ]
    assert not leftovers
    assert main(["plugins", "new", "cort-my-tool", "--kind", "tool", "--dir", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
