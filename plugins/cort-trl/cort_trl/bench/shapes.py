"""Models of known shapes with random weights, made on the spot, and trajectories of their tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import cort_framework as cort


@dataclass(frozen=True)
class Shape:
    """Of a Qwen2 with an output head of its own."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int

    def save(self, folder: Path, dtype: str, device: str = "cpu") -> Path:
        """A ``save_pretrained`` folder of it, with a byte tokenizer; always the same weights on one device."""
        import torch
        from transformers import AutoModelForCausalLM, Qwen2Config

        config = Qwen2Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=32768,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
        )
        torch.manual_seed(0)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        model.save_pretrained(folder)
        tokenizer(self.vocabulary).save_pretrained(folder)
        return folder


SHAPES = {
    "tiny": Shape(64, 160, 2, 4, 2, 512),
    "small": Shape(256, 704, 6, 4, 2, 1024),
    "1.5b": Shape(1536, 8960, 28, 12, 2, 151936),
}
"""``1.5b`` is DeepSeek-R1-Distill-Qwen-1.5B, the paper's smaller model."""


def tokenizer(vocabulary: int) -> Any:
    """Two special tokens and the 256 bytes; what a model has beyond them are words of their own that no text has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<|pad|>", "<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"<{i}>" for i in range(len(words), vocabulary)]
    bpe = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
    )


def trajectory(task: cort.Task, sample: int, vocabulary: int, length: int) -> cort.Trajectory:
    """Random tokens: a prompt, and a response of two stretches with a tool's output between. The log-probs that it was
    sampled with are those of a model that knows nothing; the reward is a coin's."""
    noise = random.Random(f"{task.id}/{sample}")

    def ids(count: int) -> tuple[int, ...]:
        return tuple(noise.randrange(2, vocabulary) for _ in range(max(1, count)))

    turns = []
    for author, share in (("prompt", 0.15), ("model", 0.5), ("tool", 0.1), ("model", 0.25)):
        new = ids(round(length * share))
        logprobs = tuple(-6.0 for _ in new) if author == "model" else None
        turns.append(cort.Turn(author, new, "", logprobs))  # type: ignore[arg-type]
    reward = cort.Reward(float(noise.random() < 0.5))
    name = f"{task.id}/{sample}"
    return cort.Trajectory(name, task, sample, turns=turns, stop_reason="eos", rewards={"answer": reward})


def long_tailed(count: int, mean: float, most: int, seed: int = 0) -> list[int]:
    """Lengths as responses have them: log-normal, half of them under 0.8 times the mean."""
    noise = random.Random(seed)
    return [min(most, max(16, round(mean * noise.lognormvariate(-0.25, 0.7)))) for _ in range(count)]


def now() -> float:
    """Seconds: the wall's where a GPU computes; elsewhere this process's own, which other programs move less."""
    import torch

    return perf_counter() if torch.cuda.is_available() else process_time()


@dataclass
class Clock:
    """A reporter that notes when each step ended."""

    now: Callable[[], float] = now
    ends: list[float] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Clock]:
        yield self

    def advance(self, n: int = 1, **fields: Any) -> None:
        pass

    def metrics(self, **values: float | int | str) -> None:
        if "loss" in values:
            self.ends.append(self.now())
        self.lines.append(values)

    def note(self, text: str) -> None:
        pass

    @property
    def steps(self) -> list[float]:
        """Seconds of each step but the first, which warms up."""
        return [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
