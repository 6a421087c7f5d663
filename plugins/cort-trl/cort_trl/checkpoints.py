"""When a training writes down how far it is, how that is known to be whole, and what Ctrl-C does.

A checkpoint counts once ``digests.json`` is in it, which is written last and says what every file of it is; the one before
goes only then. So a training that is killed anywhere, or whose disk is damaged, never goes on from half of one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

import cort_framework as cort
from cort_framework.runs.inputs import content_digest
from cort_framework.store import write_json
from cort_framework.training.launch import stop_file

DIGESTS = "digests.json"
GRACE_S = 20
"""Seconds that an interrupted training has to come to a place where it can be saved."""


# --- whole checkpoints ------------------------------------------------------------------------------------------
def last_checkpoint(trainer: Any, context: cort.TrainContext) -> str | None:
    """The newest one that is whole: found by the first process, for all of them."""
    found: list[str | None] = [None]
    if trainer.accelerator.is_main_process:
        for folder in sorted((context.folder / "training").glob("checkpoint-*"), key=_step, reverse=True):
            if is_whole(folder):
                found = [str(folder)]
                break
            if (folder / DIGESTS).exists():
                context.reporter.note(f"{folder.name} is damaged: going on from what is before it")
    broadcast_object_list(found)
    return found[0]


def is_whole(folder: Path) -> bool:
    """Whether all that was written is there, as it was written."""
    try:
        digests = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        return all(content_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def seal(folder: Path) -> None:
    """Write down what a checkpoint's files are, and remove the ones before it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS)
    write_json(folder / DIGESTS, {str(path.relative_to(folder)): content_digest(path) for path in files})
    for other in folder.parent.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


# --- when -------------------------------------------------------------------------------------------------------
class Checkpoints(TrainerCallback):
    """Seals what the trainer saves, and has it save by the clock as well, and where it is asked to stop."""

    def __init__(
        self, trainer: Any, context: cort.TrainContext, minutes: float, unit: int = 1, ahead: bool = False
    ) -> None:
        """``unit``: optimizer steps that belong together: between them nothing can be saved. ``ahead``: what is rolled out
        ahead has to be waited for, so that nothing is saved in a hurry."""
        self.trainer, self.context, self.seconds = trainer, context, 60 * minutes
        self.unit, self.ahead = unit, ahead
        self.stop_file = None if context.launch is None else stop_file(context.folder)
        self.asked = self.at_once = self.computing = False
        self.noise = noise()
        self.saved, self.saved_at = 0, time.monotonic()

    # --- while it trains --------------------------------------------------------------------------------------
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved, self.computing = state.global_step, True

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.noise = noise()
        self._stop_here(state)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stop_here(state)

    def _stop_here(self, state: Any) -> None:
        """The weights are those of the last step."""
        if self.asked and self.stop_file is None and state.global_step % self.unit == 0:
            raise KeyboardInterrupt

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.unit == 0:
            stop = self.asked or (self.stop_file is not None and self.stop_file.exists())
            said = [stop, time.monotonic() - self.saved_at > self.seconds]
            broadcast_object_list(said)  # all save or none does: the first process decides
            self.asked = said[0]
            control.should_save |= any(said)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        accelerator = self.trainer.accelerator
        accelerator.wait_for_everyone()  # each has written a part
        if accelerator.is_main_process:
            seal(self.context.folder / "training" / f"checkpoint-{state.global_step}")
        self.saved, self.saved_at = state.global_step, time.monotonic()
        if self.asked and state.global_step < state.max_steps:
            raise KeyboardInterrupt

    @contextmanager
    def idle(self) -> Iterator[None]:
        """While nothing is computed here, it can be stopped at any moment."""
        self.computing = False
        try:
            yield
        finally:
            self.computing = True

    # --- Ctrl-C -----------------------------------------------------------------------------------------------
    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the training where the weights are those of whole steps, and those are saved; a second one, or
        ``GRACE_S`` without such a place, ends it at once. Either way ``KeyboardInterrupt`` is raised. One of several
        processes is asked by a file instead."""
        before = signal.getsignal(signal.SIGINT)
        main = threading.current_thread() is threading.main_thread()
        if not main or self.stop_file is not None or before != signal.default_int_handler:
            yield
            return
        timer = threading.Timer(GRACE_S, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True

        def ask(*_: Any) -> None:
            self.at_once, self.asked = self.asked, True
            if self.at_once or not self.computing:
                raise KeyboardInterrupt
            timer.start()

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        except KeyboardInterrupt:
            timer.cancel()
            if self.asked and not self.at_once:
                self._save()
            raise
        finally:
            timer.cancel()
            signal.signal(signal.SIGINT, before)

    def _save(self) -> None:
        """As at the end of the last step, if that can be."""
        trainer, step = self.trainer, self.trainer.state.global_step
        if step != self.saved and step % self.unit == 0 and not self.ahead:
            self.noise()
            trainer._save_checkpoint(trainer.model, trial=None)
            seal(self.context.folder / "training" / f"checkpoint-{step}")
            self.context.reporter.note(f"saved after step {step} of {trainer.state.max_steps}")


def noise() -> Callable[[], None]:
    """All random states as they are, to be set again by calling what is returned."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def again() -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return again
