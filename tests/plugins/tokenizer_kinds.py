"""Kinds of tokenizer and chat template as models have them, small, and made on the spot."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cort_transformers.tokenizer import HuggingFaceTokenizer

CORPUS = [
    "Let me see: 12*34 is 12*30 + 12*4, by hand. That is tedious, and a program is exact.\n",
    "```python\nif 12*34 == 408:\n    print('yes')\n```\n\nNow\n```output\n408\n  [1, 2]\n```\n",
    "Please reason step by step, and put your final answer within \\boxed{}. (a_1 = x^2) <think>\n</think>\n\n",
    "".join(map(chr, range(32, 127))),
] * 8
MARKS = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OPENS = CHAT.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")
"""As those of reasoning models: the prompt opens the thinking."""
STRIPS = OPENS.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
"""As DeepSeek-R1's: thinking that has passed is left out."""
REWRITES = OPENS.replace("{{ m.content }}", "{{ m.content.replace('<think>', 'Thoughts:') }}")
CLOSED = CHAT.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n\n</think>\n\n{% endif %}")
"""As Qwen3's where thinking is switched off."""


def wrapped(
    tokenizer: Tokenizer, template: str = OPENS, eos: tuple[str, ...] = ("<|end|>",)
) -> HuggingFaceTokenizer:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token=next(iter(eos), None),
        chat_template=template,
    )
    fast.add_special_tokens({"additional_special_tokens": MARKS[2:]})
    return HuggingFaceTokenizer(fast, frozenset(fast.convert_tokens_to_ids(word) for word in eos))


def byte_level(size: int = 420, corpus: list[str] = CORPUS, words: bool = True) -> Tokenizer:
    """As GPT-2's, Qwen's and Llama 3's: every byte is a token, so a character may be spread over several. Unless it keeps to
    ``words``, one token may hold the end of a line and the beginning of another."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def unigram(size: int = 260) -> Tokenizer:
    """As Llama 2's or Gemma's: a space is put before a text, and taken from it again."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=[*MARKS, "<unk>"],
        unk_token="<unk>",
        show_progress=False,
        initial_alphabet=[*map(chr, range(33, 127)), "\n"],
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2's: a character that is no token is spelt in byte tokens."""
    pieces = [*MARKS, "<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def words_only() -> Tokenizer:
    """As BERT's or T5's: runs of white space are one space."""
    tokenizer = unigram()
    tokenizer.normalizer = normalizers.Replace("\n", " ")
    return tokenizer
