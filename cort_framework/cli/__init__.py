"""The command line. A command's module is imported when it is invoked; the help reads from a table.

Progress and errors go to stderr, data to stdout. Exit codes: 0 good, 1 the work failed, 2 the request was wrong,
130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from cort_framework import __version__
from cort_framework.errors import CortError

COMMANDS = {
    "run": ("cort_framework.cli.run", "run", "Run a recipe: train, evaluate, show the effect."),
    "eval": ("cort_framework.cli.evaluate", "evaluate", "Measure a model on a recipe's task sets."),
    "solve": ("cort_framework.cli.solve", "solve", "Solve one problem, live."),
    "trace": ("cort_framework.cli.trace", "trace", "View, count and export trajectories."),
    "check": ("cort_framework.cli.check", "check", "Check a model's tokens before anything is trained."),
    "recipes": ("cort_framework.cli.recipes", "recipes", "List, show and check recipes."),
    "plugins": ("cort_framework.cli.plugins", "plugins", "List, show and write plugins."),
    "doctor": ("cort_framework.cli.doctor", "doctor", "Look whether all works on this machine."),
}
"""Name: module, attribute, help in one line; in the order of the help. Add a command by adding its line."""


class LazyGroup(click.Group):
    """Builtin commands by the table above, then a group for each plugin that has commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, attribute, _ = COMMANDS[cmd_name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        from cort_framework.registry import default_registry

        registry = default_registry()
        behind = registry.command_groups().get(cmd_name, [])
        there = registry.commands(cmd_name) or any(p.failures for p in behind)
        return PluginGroup(cmd_name) if there else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from cort_framework.registry import default_registry

        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in COMMANDS.items()])
        registry = default_registry()
        groups = {
            name: plugins for name, plugins in registry.command_groups().items() if name not in COMMANDS
        }
        rows = [
            (name, f"from {' and '.join(dict.fromkeys(owners))}")
            for name, plugins in groups.items()
            if (owners := [f"{p.distribution} {p.release}" for p in plugins if p.call("cort_commands")])
        ]
        if rows:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(rows)


class PluginGroup(click.Group):
    """The commands of all plugins of one name: several may share a group."""

    def __init__(self, name: str) -> None:
        from cort_framework.registry import default_registry

        self._registry = default_registry()
        owners = dict.fromkeys(p.distribution for p in self._registry.command_groups()[name])
        super().__init__(name, help=f"Commands from {' and '.join(owners)}.")

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._registry.commands(str(self.name)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._registry.command(str(self.name), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Also where two claim a command: its line says so."""
        rows = [
            (
                name,
                " and ".join(d for d, _ in found) + " claim it"
                if found[1:]
                else found[0][1].get_short_help_str(80),
            )
            for name, found in sorted(self._registry.commands(str(self.name)).items())
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cort")
@click.option("--traceback", is_flag=True, help="Show the traceback of an error. May stand anywhere.")
def cort(traceback: bool) -> None:
    """Teach reasoning models to think with tools."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The ``cort`` script. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    with_traceback = "--traceback" in options
    given = [a for a in options if a != "--traceback"] + given[len(options) :]
    try:
        result = cort.main(given, prog_name="cort", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" {context.command_path.removeprefix('cort').strip()}".rstrip() if context else ""
        _report(error.format_message(), f"`cort{where} --help` shows what there is")
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.secho("interrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CortError as error:
        if with_traceback:
            traceback.print_exc()
        _report(error.message, error.hint)
        return error.exit_code
    except Exception as error:
        if with_traceback:
            traceback.print_exc()
        _report(f"{type(error).__name__}: {error}", f"{_whose(error)}; --traceback shows where")
        return 1


def _report(message: str, hint: str | None) -> None:
    click.echo(click.style("error:", fg="red", bold=True) + f" {message}", err=True)
    if hint:
        click.echo(click.style("hint:", fg="cyan", bold=True) + f" {hint}", err=True)


def _whose(error: BaseException) -> str:
    """Which distribution's code was running, innermost first."""
    from cort_framework.registry import default_registry
    from cort_framework.registry.discovery import CORE

    owners = {p.package: p.distribution for p in default_registry().plugins}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        owner = owners.get(str(frame.f_globals.get("__name__", "")).partition(".")[0])
        if owner is not None and owner != CORE:
            return f"the fault is in the plugin {owner}"
    return "this is a fault of cort-framework itself: please report it"
