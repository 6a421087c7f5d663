"""``python nursery.py RECIPE``: a warm process that forks a run for each line that it reads: a recipe and a folder, with a tab
between them. It prints the run's process id, and how it ended. Only the start is cheaper than that of ``cort run``: what is
killed is a process of its own."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    from cort_framework import load_recipe
    from cort_framework.recipe import make_plan
    from cort_framework.runs.folder import _packages

    make_plan(
        load_recipe(sys.argv[1])
    )  # what is read once a process, such as the source of plugins, is read here
    _packages()
    import cort_trl.checkpoints
    import cort_trl.policy  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        recipe, folder = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            run(recipe, Path(folder))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def run(recipe: str, folder: Path) -> None:
    """In the child; never returns."""
    import signal

    from cort_framework import load_recipe
    from cort_framework.display import Display
    from cort_framework.errors import CortError
    from cort_framework.pipeline import run
    from cort_framework.recipe import make_plan

    code = 1
    with open(folder.with_suffix(".log"), "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(make_plan(load_recipe(recipe)), folder, display=Display())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except CortError as error:
        print(f"error: {error}")
        code = 3
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
