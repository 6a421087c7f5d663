"""Stage kind `tiny-corpus`: a model with random weights, its tokenizer, and the texts that it is to be trained on."""

from __future__ import annotations

import os
import re
import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from cort_framework.interfaces import PluginConfig, Stage, StageResult
from cort_framework.machine.footprint import BYTES, Architecture, Footprint, Need, Work
from cort_framework.types import Author, Task, Trajectory, Turn
from cort_tiny.corpus import Mixture, texts
from cort_tiny.texts import Text
from cort_tiny.tokenizer import END, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cort_framework.pipeline import Run

OUTPUT = re.compile(r"(```output\n.*?\n```\n)", re.DOTALL)
CONTEXT = 2048
"""Tokens that the model reads at most."""
TEXT_BYTES = 2300
"""On disk, of a text with its tokens: measured."""
TOKENIZER_TEXTS = 10_000  # enough for every word; more texts of the same templates change no merge


class TinyCorpus(Stage):
    """What a base is trained from: the next stage is an `sft` on its trajectories, prompt and response alike."""

    name = "tiny-corpus"
    produces_checkpoint = True
    needs_model = False
    requires = ("tokenizers>=0.22", "torch>=2.11", "transformers>=5.0")

    class Config(PluginConfig):
        """How many texts of which kinds, and how large a model."""

        texts: int = Field(default=80_000, ge=1)
        """Texts in the corpus."""
        corpus_seed: int = Field(default=0, ge=0)
        """Seed of the texts; the recipe's seed is that of the weights."""
        natural: float = Field(default=Mixture.natural, ge=0)
        """Share of the texts that work by hand under a plain prompt."""
        tool: float = Field(default=Mixture.tool, ge=0)
        """Share of the texts under the tool prompt, with its faults."""
        program: float = Field(default=Mixture.program, ge=0)
        """Share of the texts that write a program for a problem and do not run it."""
        literacy: float = Field(default=Mixture.literacy, ge=0)
        """Share of the short texts about reading and writing code."""
        chemistry: float = Field(default=Mixture.chemistry, ge=0)
        """Share of the texts with SMILES and RDKit: a few in a hundred of all of a base's, as in a pretraining corpus."""
        vocabulary: int = Field(default=1024, ge=300)
        """Tokens in the vocabulary."""
        hidden_size: int = Field(default=192, ge=8)
        """Width of the model."""
        layers: int = Field(default=4, ge=1)
        """Its layers."""
        heads: int = Field(default=6, ge=1)
        """Attention heads."""
        key_value_heads: int = Field(default=3, ge=1)
        """Heads of keys and values; divides `heads`."""
        intermediate_size: int = Field(default=512, ge=8)
        """Width inside the feed-forward layers."""

        @model_validator(mode="after")
        def _consistent(self) -> TinyCorpus.Config:
            shares = self.natural + self.tool + self.program + self.literacy + self.chemistry
            if abs(shares - 1) > 1e-6:
                raise ValueError(
                    f"natural, tool, program, literacy and chemistry are shares and add up to 1, not {shares:g}"
                )
            if self.hidden_size % self.heads or self.heads % self.key_value_heads:
                raise ValueError("heads divides hidden_size, and key_value_heads divides heads")
            return self

    config: Any

    def footprint(self, work: Work) -> Footprint:
        """How long its texts come out is known when they are drawn; they fit what the model reads."""
        config = self.config
        model = work.model or Architecture(
            layers=config.layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.heads,
            kv_heads=config.key_value_heads,
            head_dim=config.hidden_size // config.heads,
            vocabulary=config.vocabulary,
            context=CONTEXT,
            tied=True,
            qkv_bias=True,
        )
        weights = Need("checkpoint", model.parameters * BYTES[model.dtype])
        texts = Need("texts", config.texts * TEXT_BYTES)
        return Footprint(kept=config.texts, longest=model.context, model=model, disk=(weights, texts))

    def run(self, run: Run) -> StageResult:
        """Draws the texts and encodes them for the model that a stage before has made; where there is none, trains a
        tokenizer and begins a model with random weights."""
        from transformers import AutoTokenizer

        config = self.config
        mixture = Mixture(config.natural, config.tool, config.program, config.literacy, config.chemistry)
        corpus = list(islice(texts(config.corpus_seed, mixture), config.texts))
        checkpoint = run.folder / "checkpoint"
        if run.model:
            shutil.copytree(run.model, checkpoint, dirs_exist_ok=True)
        else:
            self._begin(checkpoint, run.plan.recipe.seed)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)

        path = run.folder / "trajectories.jsonl"
        unfinished = path.with_suffix(".part")
        tokens = 0
        with (
            open(unfinished, "w", encoding="utf-8") as file,
            run.reporter.progress("texts", len(corpus)) as progress,
        ):
            for number, text in enumerate(corpus):
                trajectory = as_trajectory(text, tokenizer, number)
                tokens += len(trajectory.ids)
                file.write(f"{trajectory.to_json()}\n")
                progress.advance()
        os.replace(unfinished, path)
        run.reporter.note(f"{len(corpus)} texts, {tokens} tokens")
        return StageResult(
            checkpoint=checkpoint,
            trajectories=path,
            summary={"texts": len(corpus), "tokens": tokens},
        )

    def _begin(self, folder: Path, seed: int) -> None:
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        config = self.config
        # texts of every kind, whatever this corpus is made of
        mixture = islice(texts(config.corpus_seed), TOKENIZER_TEXTS)
        tokenizer = train_tokenizer((f"{t.prompt}\n{t.response}" for t in mixture), config.vocabulary)
        tokenizer.save_pretrained(folder)
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(  # type: ignore[no-untyped-call]
            Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.key_value_heads,
                max_position_embeddings=CONTEXT,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                bos_token_id=None,
            )
        )
        model.save_pretrained(folder)


def as_trajectory(text: Text, tokenizer: PreTrainedTokenizerBase, number: int) -> Trajectory:
    """A text as a trajectory: the prompt's turn, then the model's, with the interpreter's where there is an output."""
    message = [{"role": "user", "content": text.prompt}]
    prompt = str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    identifier = f"text-{number:06d}"
    return Trajectory(
        id=f"{identifier}/0",
        task=Task(identifier, text.prompt, metadata={"kind": text.kind, "family": text.family}),
        turns=[
            _turn("prompt", prompt, tokenizer),
            *(
                _turn("tool" if part.startswith("```output\n") else "model", part, tokenizer)
                for part in OUTPUT.split(text.response + END)
            ),
        ],
        stop_reason="eos",
    )


def _turn(author: Author, text: str, tokenizer: PreTrainedTokenizerBase) -> Turn:
    return Turn(author, tuple(tokenizer(text, add_special_tokens=False).input_ids), text)
