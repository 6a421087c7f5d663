"""A tokenizer and random models of a few thousand parameters, as ``save_pretrained`` folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges, so that tokens cross line ends and characters are spread over tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        ["```python\nprint(6*7)\n```\n```output\n42\n```\n"] * 3,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=4,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", chat_template=TEMPLATE
    )


def tiny_model(kind: str, vocab_size: int, **shape: Any) -> Any:
    """A random ``qwen2`` or ``llama``, always the same one. Its logits are spread as a trained model's are."""
    config_class, model_class = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = config_class(vocab_size=vocab_size, initializer_range=0.2, **{**SHAPE, **shape})
        return model_class(config).eval()


def save_tiny(folder: Path, kind: str = "qwen2", **shape: Any) -> Path:
    tokenizer = tiny_tokenizer()
    tiny_model(kind, len(tokenizer), **shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
