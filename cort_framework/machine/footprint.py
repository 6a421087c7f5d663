"""What a stage will take: the words in which plugins say it, and the shape of a model as its ``config.json`` gives it.

A plugin that knows what it takes overrides ``Plugin.footprint(work)``. Bytes are those of tensors; what is rounded,
measured or left out is said where it is computed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cort_framework.errors import RequestError

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number, by the names that ``config.json`` has for them."""

Span = Literal["working", "awake", "always"]
"""How long memory is held: while its owner is at work; as long as it is open and awake; also while it sleeps."""


@dataclass(frozen=True)
class Need:
    """Memory of one process, or disk, that a plugin takes for one thing."""

    what: str
    """``keys and values``, ``logits``."""
    bytes: int
    held: Span = "working"
    change: str = ""
    """The setting of the plugin's own that makes it smaller: ``max_batch``. Of the stage: ``rollout.…``, ``launch.…``."""


@dataclass(frozen=True)
class Device:
    """What one process computes on."""

    name: str
    bytes: int
    gpu: bool = False
    count: int = 1
    """Such devices in this machine."""


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama family: grouped attention, gated feed-forward layers, root-mean-square norms."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    """Tokens that it reads at most."""
    tied: bool
    """The output head is the embedding."""
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    dtype: str = "float32"
    """Number format of the saved weights."""

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of an output head of its own."""
        return self.vocabulary * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        h, q, k, i = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.intermediate
        weights = h * q + 2 * h * k + q * h + 3 * h * i
        biases = (
            self.qkv_bias * (q + 2 * k) + self.output_bias * h + self.mlp_bias * (2 * i + h)
        )  # a flag is 0 or 1
        return weights + biases + 2 * h + self.qk_norm * 2 * self.head_dim

    @property
    def parameters(self) -> int:
        return self.embedding * (1 if self.tied else 2) + self.layers * self.layer + self.hidden

    def key_value_bytes(self, number: int) -> int:
        """Keys and values of one token, in numbers of so many bytes."""
        return self.layers * 2 * self.kv_heads * self.head_dim * number


@dataclass(frozen=True)
class Work:
    """What a stage asks of the stage kind, the trainer or the engine whose footprint is wanted. ``None``: not known."""

    model: Architecture | None
    device: Device
    tasks: Mapping[str, int | None] = field(default_factory=dict)
    """The stage's task sets, and how many tasks each has."""
    data: int | None = 0
    """Trajectories at most that the stages named as ``data`` keep."""
    sequences: int | None = 0
    """For an engine: trajectories at most to make. For a trainer: at most to train on."""
    longest: int | None = None
    """Tokens at most of one of them, prompt included."""
    at_once: int = 1
    """Trajectories in the making at once, in one process."""
    processes: int = 1
    """Processes that train together."""
    sharded: bool = False
    """They share weights, gradients and optimizer between them, instead of each having its own."""
    lent: bool = False
    """For an engine: ``model`` is the trainer's own, and its weights take no memory a second time."""


@dataclass(frozen=True)
class Footprint:
    """What a plugin takes for a piece of work. Counts are upper bounds; ``None``: not known."""

    trajectories: int | None = 0
    """That it has the engine make."""
    kept: int | None = 0
    """Of those, and of what else it makes, that later stages may find."""
    longest: int | None = None
    """Tokens at most of one of them, where the engine does not make them."""
    trains_on: int | None = 0
    """Stage kinds: trajectories that it gives its trainer."""
    trained_tokens: int | None = 0
    """Trainers: tokens that go through the model with gradients, all passes counted."""
    model: Architecture | None = None
    """Of the model that it makes, where that is another than it was given: a stage kind's from nothing, a trainer's in
    another number format."""
    memory: tuple[Need, ...] = ()
    """Of one process; empty where ``work.model`` or ``work.longest`` is not known."""
    disk: tuple[Need, ...] = ()


def times(*counts: int | None) -> int | None:
    """The product; of what is not known, nothing is known, unless it is multiplied by 0."""
    if 0 in counts:
        return 0
    return None if None in counts else math.prod(c for c in counts if c is not None)


def plus(*counts: int | None) -> int | None:
    """The sum, not known where a part of it is not."""
    return None if None in counts else sum(c for c in counts if c is not None)


# --- config.json ------------------------------------------------------------------------------------------------
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of the families whose layers are as ``Architecture`` counts them."""


def architecture(model: str) -> Architecture:
    """The shape of a model: a folder, or a hub id whose ``config.json`` lies in the hub's cache on this machine. Nothing
    is fetched and nothing is guessed. Raises ``RequestError`` with the reason why it cannot be had."""
    path = _config_file(model)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return from_config(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise RequestError(f"{path} tells no shape that is known here: {reason}") from error


def weights_here(model: str) -> bool:
    """Whether this machine has the weights of a model: a folder, or a hub id in the hub's cache."""
    try:
        folder = _config_file(model).parent
    except RequestError:
        return False
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def from_config(config: Mapping[str, Any]) -> Architecture:
    """From the content of a ``config.json``. Raises ``ValueError`` for a family that is not known, ``KeyError`` for a key
    that is not there."""
    family = config["model_type"]
    if family not in FAMILIES:
        raise ValueError(f"model type {family!r}; known are {', '.join(FAMILIES)}")
    if config.get("quantization_config"):
        raise ValueError("its weights are quantised")
    heads = int(config["num_attention_heads"])
    bias = family != "qwen2" and bool(config.get("attention_bias", False))
    return Architecture(
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        intermediate=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        vocabulary=int(config["vocab_size"]),
        context=int(config["max_position_embeddings"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        dtype=config.get("dtype") or config.get("torch_dtype") or "float32",
        qkv_bias=bias or family == "qwen2",
        output_bias=bias,
        mlp_bias=bool(config.get("mlp_bias", False)),
        qk_norm=family == "qwen3",
    )


def _config_file(model: str) -> Path:
    if (folder := Path(model)).is_dir():
        return folder / "config.json"
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    cached = hub / f"models--{model.replace('/', '--')}"
    for revision in _revisions(cached):
        if (path := cached / "snapshots" / revision / "config.json").is_file():
            return path
    raise RequestError(
        f"the config.json of {model} is not on this machine", f"fetch it: hf download {model} config.json"
    )


def _revisions(cached: Path) -> list[str]:
    try:
        return [(cached / "refs" / "main").read_text(encoding="utf-8").strip()]
    except OSError:
        return sorted(p.name for p in cached.glob("snapshots/*"))
