"""What both trainers share: the model, the common settings, progress, and the way in and out of a folder."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

import cort_framework as cort

REQUIRES = ("torch>=2.11", "transformers>=5.10", "trl>=1.16,<1.17", "accelerate>=1.15", "datasets>=4.0")
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"]


class TrainingSettings(cort.PluginConfig):
    """Settings of any training here. The defaults of a trainer's own ``Config`` come on top."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak of the schedule."""
    schedule: Schedule = "cosine"
    """How the learning rate falls from its peak."""
    warmup: float = Field(0.0, ge=0)
    """Steps of warm-up; a number below 1 is a share of all steps."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    micro_batch: int = Field(8, ge=1)
    """Sequences in one forward pass, on each device; changes memory and speed, not the result."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights that are trained and saved."""
    bf16: bool = False
    """Compute in bfloat16 where it is safe, with the weights in ``dtype``."""
    gradient_checkpointing: bool = False
    """Save memory for time: worth it from about a billion parameters on."""
    save_every: int = Field(100, ge=1)
    """Steps between two checkpoints to resume from."""
    log_every: int = Field(1, ge=1)
    """Steps between two lines of metrics."""


def load(reference: str, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer. Raises ``RequestError`` where they cannot be loaded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(reference, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(reference)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise cort.RequestError(
            f"cannot load '{reference}' to train it: {reason}", "name a save_pretrained folder or a hub id"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def arguments(settings: TrainingSettings, context: cort.TrainContext) -> dict[str, Any]:
    """The part of TRL's arguments that both trainers have in common."""
    import torch

    return {
        "output_dir": str(context.folder / "training"),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "per_device_train_batch_size": settings.micro_batch,
        "bf16": settings.bf16,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "save_total_limit": 1,
        "logging_steps": settings.log_every,
        "logging_nan_inf_filter": False,  # a loss that is no number must be seen
        "report_to": list(context.report_to) or "none",
        "seed": context.seed,
        "data_seed": context.seed,
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }


def last_checkpoint(context: cort.TrainContext) -> str | None:
    """The newest complete checkpoint under ``folder / "training"``: the trainer's state is what is written last."""
    found = [
        (int(state.parent.name.rpartition("-")[2]), str(state.parent))
        for state in (context.folder / "training").glob("checkpoint-*/trainer_state.json")
    ]
    return max(found)[1] if found else None


def fit(trainer: Any, context: cort.TrainContext, description: str) -> cort.Checkpoint:
    """Train from the last checkpoint on, with progress and metrics, and write ``folder / "checkpoint"``.

    Raises ``CortError`` when the loss is no number.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    resume = last_checkpoint(context)
    reporter: Any = context.reporter
    with reporter.progress(description, trainer.args.max_steps) as progress, quiet():
        trainer.add_callback(_reporting(context, progress))
        trainer.train(resume_from_checkpoint=resume)
        target = context.folder / "checkpoint"
        if trainer.accelerator.is_main_process:
            partial = context.folder / "checkpoint.partial"
            shutil.rmtree(partial, ignore_errors=True)
            trainer.accelerator.unwrap_model(trainer.model).save_pretrained(partial)
            trainer.processing_class.save_pretrained(partial)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        trainer.accelerator.wait_for_everyone()
    return cort.Checkpoint(target)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own bars and warnings, which would break into the framework's progress."""
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    data_bars = datasets_logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    datasets_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if data_bars:
            datasets_logging.enable_progress_bar()


def _reporting(context: cort.TrainContext, progress: Any) -> Any:
    from transformers import TrainerCallback

    class Reporting(TrainerCallback):
        """Passes steps and metrics on, and stops a training whose loss is no number."""

        def __init__(self) -> None:
            self.done = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._advance(state.global_step)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            values = {k: v for k, v in (logs or {}).items() if isinstance(v, int | float)}
            context.reporter.metrics(step=state.global_step, **values)
            for name in ("loss", "grad_norm"):
                if not math.isfinite(values.get(name, 0.0)):
                    raise cort.CortError(
                        f"{name} is {values[name]} at step {state.global_step}: the training has come apart",
                        "lower learning_rate; checkpoints written before this step are kept",
                    )
            if "loss" in values:
                progress.advance(0, loss=values["loss"])

        def _advance(self, step: int) -> None:
            progress.advance(step - self.done)
            self.done = step

    return Reporting()
