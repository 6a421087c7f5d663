"""What both trainers share: the model, the common settings, progress, and the way in and out of a folder."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

import cort_framework as cort
from cort_trl.world import prove, prove_sharding

REQUIRES = ("torch>=2.11", "transformers>=5.10", "trl>=1.16,<1.17", "accelerate>=1.15", "datasets>=4.0")
SHARDED = ("FSDP", "DEEPSPEED")
"""What Accelerate calls a model that no process has all of."""
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"]


class Lora(cort.PluginConfig):
    """Low-rank adapters on frozen weights (Hu et al. 2021): the optimizer holds their numbers alone, and the weights
    without them are GRPO's reference model. Learning rates some ten times higher suit them. What is saved is merged."""

    rank: int = Field(16, ge=1)
    """Width of an adapter."""
    alpha: float = Field(32.0, gt=0)
    """An adapter's output is scaled by ``alpha / rank``."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs that are left out in training."""
    targets: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get one, such as ``q_proj``; all-linear: every linear layer but the output head."""


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
    packing: bool = False
    """Lay the sequences of a forward pass end to end in one row, without padding. The loss is the same but for rounding;
    faster wherever lengths differ."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights that are trained and saved."""
    bf16: bool = False
    """Compute in bfloat16 where it is safe, with the weights in ``dtype``. What an engine samples in another format has
    other log-probs: look at ``logprob_gap``."""
    gradient_checkpointing: bool = False
    """Save memory for time: worth it from about a billion parameters on."""
    liger: bool = False
    """Liger's fused kernels for norms, rotary positions and the feed-forward layers; needs a GPU."""
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights."""
    save_every: int = Field(100, ge=1)
    """Steps between two checkpoints to resume from."""
    save_minutes: float = Field(10.0, gt=0)
    """Minutes between two, where that many steps take longer."""
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


def adapters(settings: TrainingSettings) -> Any:
    """peft's configuration of what ``lora`` asks for; ``None`` where it asks for nothing."""
    if settings.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=settings.lora.targets,
        task_type="CAUSAL_LM",
    )


def arguments(settings: TrainingSettings, context: cort.TrainContext) -> dict[str, Any]:
    """The part of TRL's arguments that both trainers have in common.

    Raises ``RequestError`` where this machine cannot do what they ask for.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    if settings.liger and not on_gpu:
        raise cort.RequestError("liger needs a GPU, and there is none here", "leave out liger = true")
    if settings.liger and importlib.util.find_spec("liger_kernel") is None:
        raise cort.RequestError("Liger's kernels are not installed", 'pip install "cort-trl[liger]"')
    if settings.bf16 and on_gpu and not torch.cuda.is_bf16_supported():
        raise cort.RequestError("this GPU does not compute in bfloat16", "leave out bf16 = true")
    if settings.lora is not None and context.launch is not None and context.launch.sharding is not None:
        raise cort.RequestError(
            f"adapters cannot be merged into weights that {context.launch.sharding} has in shards",
            f"leave out lora, or launch.{context.launch.sharding}: with lora, neither gradients nor optimizer take much",
        )
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
        "use_liger_kernel": settings.liger,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "logging_steps": settings.log_every,
        "logging_nan_inf_filter": False,  # a loss that is no number must be seen
        "report_to": list(context.report_to) or "none",
        "seed": context.seed,
        "data_seed": context.seed,
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "use_cpu": not on_gpu,
        "ddp_find_unused_parameters": False,  # every weight that is trained is used in every pass
    }


def fit(
    trainer: Any, context: cort.TrainContext, description: str, minutes: float, **checkpoints: Any
) -> cort.Checkpoint:
    """Train from the last checkpoint on, with progress and metrics, and write ``folder / "checkpoint"``. ``minutes`` and
    ``checkpoints``: see ``Checkpoints``.

    Raises what the context's reporter raises where it does not like the metrics.
    """
    from transformers import PrinterCallback

    from cort_trl.checkpoints import Checkpoints, last_checkpoint

    prove(trainer.accelerator, context)
    prove_sharding(trainer.accelerator, context)
    trainer.remove_callback(PrinterCallback)
    resume = last_checkpoint(trainer, context)
    trainer.checkpoints = Checkpoints(trainer, context, minutes, **checkpoints)
    trainer.add_callback(trainer.checkpoints)
    reporter: Any = context.reporter
    with reporter.progress(description, trainer.args.max_steps) as progress, quiet():
        trainer.add_callback(_reporting(context, progress))
        with trainer.checkpoints.interruptible():
            trainer.train(resume_from_checkpoint=resume)
        target, partial = context.folder / "checkpoint", context.folder / "checkpoint.partial"
        if trainer.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        save(trainer, partial)
        if trainer.accelerator.is_main_process:
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        trainer.accelerator.wait_for_everyone()
    return cort.Checkpoint(target)


def policy(trainer: Any) -> Any:
    """The live model as transformers knows it, with LoRA's adapters in its layers."""
    from accelerate.utils import is_peft_model

    model = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if is_peft_model(model) else model


def save(trainer: Any, folder: Path) -> None:
    """Write the weights, LoRA's adapters merged into them, and the tokenizer as a plain ``save_pretrained`` folder. The
    live model is left as it is: merging into it and out again would leave rounding behind.

    To be called in all processes: one writes, the others wait, and give it their shards where the model is sharded."""
    accelerator = trainer.accelerator
    weights = plain_weights(trainer) if changed(trainer) else None
    if accelerator.is_main_process:
        policy(trainer).save_pretrained(folder, state_dict=weights)
        trainer.processing_class.save_pretrained(folder)
    accelerator.wait_for_everyone()


def changed(trainer: Any) -> bool:
    """Whether the live model's own tensors are not those of a checkpoint: they are shards, or have adapters beside them."""
    return trainer.accelerator.distributed_type in SHARDED or policy(
        trainer
    ) is not trainer.accelerator.unwrap_model(trainer.model)


def plain_weights(trainer: Any) -> dict[str, Any]:
    """The weights by the names of a checkpoint, LoRA's adapters merged into them. To be called in all processes; where the
    model is sharded, the first one alone gets them."""
    accelerator, model = trainer.accelerator, policy(trainer)
    if accelerator.distributed_type in SHARDED:
        found: dict[str, Any] = accelerator.get_state_dict(trainer.model)
    elif changed(trainer):
        found = merged(model)
    else:
        found = model.state_dict()
    return found


def merged(model: Any) -> dict[str, Any]:
    """The weights by name, LoRA's adapters merged into them; those of the model stay as they are."""
    from peft.tuners.lora import LoraLayer

    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    state = {}
    for name, value in model.state_dict().items():
        owner, _, rest = name.partition(".base_layer.")
        if rest == "weight":
            value = value + adapted[owner].get_delta_weight("default").to(value.dtype)
        if ".lora_" not in name:
            state[f"{owner}.{rest}" if rest else name] = value
    return state


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
            warnings.filterwarnings("ignore", "`use_liger_kernel=True` is deprecated")
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
        """Passes steps and metrics on; a reporter that raises ends the training."""

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
            if "loss" in values:
                progress.advance(0, loss=values["loss"])

        def _advance(self, step: int) -> None:
            progress.advance(step - self.done)
            self.done = step

    return Reporting()
