"""``kind = "distill"``: a teacher's trajectories train another, smaller model (paper, the 1.5B models' SFT).

The one place where text is tokenised again: the student has a tokenizer and a chat template of its own. What comes of it
is marked so, in the metadata of every trajectory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from pydantic import Field, PositiveInt

from cort_framework.errors import StageFailed
from cort_framework.interfaces import PluginConfig, Stage, StageResult, Tokenizer, Tool
from cort_framework.machine.footprint import Footprint, Work
from cort_framework.pipeline import Run
from cort_framework.rendering import RETOLD, Detokenizer, prompt_turn
from cort_framework.store import Trajectories
from cort_framework.types import Trajectory, Turn, Verdict, Weights

THINK = "<think>"
END_OF_SEQUENCE = re.compile(r"(?:<[|｜][^<>|｜]{1,40}[|｜]>|</s>|<eos>|<end_of_turn>)\s*$")
"""How the tokenizers of today's models write their last token."""


class Distill(Stage):
    name = "distill"
    produces_checkpoint = True
    default_trainer = "sft"

    class Config(PluginConfig):
        data: list[str] = Field(min_length=1)
        """Earlier stages whose kept trajectories, the teacher's, are told again. `model` names the student."""
        tools: list[str] | None = None
        """Which of the recipe's tools the student's prompt speaks of; all by default."""
        max_tokens: PositiveInt | None = None
        """Leave out what is longer than this in the student's tokens, prompt included."""

    config: Config

    def footprint(self, work: Work) -> Footprint:
        return Footprint(trains_on=work.data, kept=work.data)

    def run(self, run: Run) -> StageResult:
        config: Distill.Config = run.config
        engine = run.runtime.engine(run.stage.engine, Weights(path=run.model))
        template = run.plan.recipe.prompts[run.stage.rollout.prompt]
        names = run.plan.tools if config.tools is None else config.tools
        tools = [run.runtime.plugin(run.plan.tools[name], Tool) for name in names]
        taught = run.kept(config.data)
        with run.log() as log, run.reporter.progress("told again", len(taught)) as progress:
            order = []
            for number, trajectory in enumerate(taught):
                prompt = prompt_turn(engine.tokenizer, template, trajectory.task, tools)
                told = retold(trajectory, prompt, engine.tokenizer)
                # two stages, or two teachers, may have sampled one task under one number
                told.id, told.sample = f"{told.task.id}/{number}", number
                if config.max_tokens is not None and len(told.ids) > config.max_tokens:
                    told.verdicts.append(Verdict(False, f"{len(told.ids)} tokens", filter="max-tokens"))
                log.append([told])
                order.append((told.task.id, told.sample))
                progress.advance(1)
            log.finish(order)
        kept = Trajectories.kept(log.path)
        if not kept:
            raise StageFailed(
                f"stage '{run.stage.name}' has no trajectory to train on: of {len(taught)} that its data stages kept, "
                "none can be told in the student's tokens",
                f"`cort trace stats {run.folder.parent}` says why",
            )
        checkpoint = run.train(kept)
        summary = {"samples": len(kept), "data tokens": sum(len(t.ids) for t in kept)}
        return StageResult(checkpoint=checkpoint.path, trajectories=log.path, summary=summary)


def retold(trajectory: Trajectory, prompt: Turn, tokenizer: Tokenizer) -> Trajectory:
    """The trajectory with the student's ids: the student's ``prompt``, then the text of each turn, encoded alone, as a rollout
    encodes what it appends. ``</think>`` and the like become the student's own token where it has one, but in what a tool
    printed. Authors stay; log-probs and weights' versions go, since no model has sampled these ids.

    ``<think>`` is moved where one chat template opens it in the prompt and the other leaves it to the model; a last token
    that ends the sequence becomes the student's. A turn that does not decode to its text again, or ends the student's
    sequence before its end, gives a verdict that drops the trajectory.
    """
    turns = [prompt]
    decoder = Detokenizer(tokenizer, prompt.ids)
    own = [turn for turn in trajectory.turns if turn.author != "prompt"]
    texts = list(_texts(own, trajectory, prompt))
    broken: Verdict | None = None
    position = 0
    for number, (turn, text) in enumerate(zip(own, texts, strict=True)):
        ids = tokenizer.encode(text, special=turn.author != "tool")
        read = decoder.feed(ids) + decoder.flush()
        why = None
        if read.strip() != text.strip():
            why = "the student's tokenizer does not give the text back"
        elif not tokenizer.eos_ids.isdisjoint(ids):
            why = "the text spells a token that ends the student's sequences"
        if why is not None and broken is None:
            broken = Verdict(False, why, (position, position + len(read)), filter="retold")
        if number == len(own) - 1 and trajectory.stop_reason == "eos":
            end = end_of_sequence(tokenizer)
            ids, read = [*ids, end], read + decoder.feed([end]) + decoder.flush()
        turns.append(replace(turn, ids=tuple(ids), text=read, logprobs=None, weights_version=0))
        position += len(read)
    return Trajectory(
        trajectory.id,
        trajectory.task,
        trajectory.sample,
        trajectory.seed,
        turns=turns,
        stop_reason=trajectory.stop_reason,
        rewards=trajectory.rewards,
        verdicts=[*trajectory.verdicts, broken] if broken else list(trajectory.verdicts),
        metadata={**trajectory.metadata, RETOLD: trajectory.id},
    )


def _texts(own: list[Turn], trajectory: Trajectory, prompt: Turn) -> Iterator[str]:
    opens, opened = (p.rstrip().endswith(THINK) for p in (prompt.text, trajectory.prompt))
    for number, turn in enumerate(own):
        text = turn.text
        if number == 0 and opened and not opens:
            text = f"{THINK}\n{text}"
        elif number == 0 and opens and not opened:
            text = re.sub(rf"^\s*{THINK}\n?", "", text)
        if number == len(own) - 1 and trajectory.stop_reason == "eos":
            text = END_OF_SEQUENCE.sub("", text)
        yield text


def end_of_sequence(tokenizer: Tokenizer) -> int:
    """The token with which the chat template ends an answer, or else the first that ends a sequence."""
    conversation = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    try:
        ids = tokenizer.apply_chat_template(conversation)
    except Exception:  # a template may refuse such a conversation
        ids = []
    ends = [i for i in ids if i in tokenizer.eos_ids]
    return ends[-1] if ends else min(tokenizer.eos_ids)
