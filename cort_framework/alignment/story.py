"""A story with every boundary in it, rolled out for real by an engine that recites it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Literal

from cort_framework.alignment.findings import ANSWER, PROBLEM, Boundary, Finding, difference, quoted, same
from cort_framework.alignment.inputs import boundary_of, check_inputs
from cort_framework.alignment.tokens import WISHED, after_problem, there_and_back, usual_end
from cort_framework.interfaces import (
    Engine,
    HintInjector,
    RolloutRequest,
    Tokenizer,
    Tool,
    ToolSession,
    Trainer,
)
from cort_framework.parsing import CallParser
from cort_framework.recipe import RolloutSettings
from cort_framework.rendering import Detokenizer, cut, render, token_texts
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.types import (
    Generation,
    Hint,
    Outcome,
    Sampling,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Weights,
)

SPLICED: tuple[Boundary, ...] = ("hint", "output")
"""What no model writes."""
CUT = "y hand"
"""What the hint cuts off, in the middle of a word."""
CROSSING = "\nNow"
"""What the model goes on with after its call: its first token may hold the end of the call as well."""
MEND = (
    "decode of the model's tokenizer does not give back what encode was given: mend its decoder or normalizer"
)


@dataclass(frozen=True)
class Dialect:
    """One way to call a tool: what the hint ends with, and what the model writes, after the hint and by itself."""

    tool: Tool
    native: bool
    opening: str
    after_hint: str
    alone: str


def dialects(tools: Sequence[Tool]) -> list[Dialect]:
    """The ways in which the recipe's tools are called, each with the first tool that is."""
    found = []
    if fenced := next((t for t in tools if t.language), None):
        opening = f"```{fenced.language}\n"
        alone = f"{opening}if 12*34 == 408:\n    print('yes')\n```\n"
        found.append(Dialect(fenced, False, opening, "print(12*34)\n```\n", alone))
    if native := next((t for t in tools if t.parameters is not None), None):
        body = json.dumps({"name": native.name, "arguments": {"x": "12*34"}})
        call = f"<tool_call>\n{body}\n</tool_call>"
        found.append(Dialect(native, True, "", call, call))
    return found


class Story:
    """Rolled out once, in the tokens that the tokenizer makes of each stretch or, ``finely``, a character at a time."""

    def __init__(self, tokenizer: Tokenizer, dialect: Dialect | None, finely: bool) -> None:
        """``dialect``: ``None`` for a recipe without tools."""
        self.tokenizer, self.dialect, self.finely = tokenizer, dialect, finely
        self.tools: dict[str, Tool] = {}
        usual = usual_end(tokenizer)
        self.end = min(tokenizer.eos_ids) if usual is None else usual
        after = after_problem(tokenizer)
        self.thinks = "</think>" not in after
        begun = "" if "<think>" in after else "<think>\n"
        closed = "\n</think>" if self.thinks else ""
        self.script: list[tuple[Boundary, str]] = [
            ("thinking", f"{begun}12*34 is 12*30 + 12*4, b"),
            ("hint", "\nThat is tedious, and a program is exact.\n" + (dialect.opening if dialect else "")),
            *self._calls(),
            ("thinking", f"It is 408.{closed}"),
            ("end", f"\n\n{ANSWER}"),
        ]

    def _calls(self) -> Iterator[tuple[Boundary, str]]:
        if self.dialect is None:
            return
        printed = "408\n  [1, 2]" + "".join(f" {c}" for c in WISHED if there_and_back(self.tokenizer, c) == c)
        tool = _Answering(self.dialect, printed)
        self.tools[tool.name] = tool
        (parser,) = CallParser([tool]).parsers
        for call in (self.dialect.after_hint, f"So it is.\n{self.dialect.alone}"):
            yield "fence", call
            yield "output", parser.render(printed, call)

    def check(self, trainers: Mapping[str, Trainer]) -> Iterator[Finding]:
        """Roll it out and compare. ``trainers``: as ``check_tokens`` has them."""
        parts = groupby(self.script, key=lambda piece: piece[0] in SPLICED)
        stretches = ["".join(text for _, text in part) for spliced, part in parts if not spliced]
        stretches[0] += CUT
        if self.dialect is not None:
            stretches[1] += CROSSING
        setup = RolloutSetup(
            _Reciter(self.tokenizer, stretches, self.end, self.finely),
            self.tools,
            RolloutSettings(max_tokens=1 << 20, check_every=3, max_hints=1),
            "{problem}",
            injectors=[_Doubt(self.script[1][1])],
        )
        line = asyncio.run(rollout(RolloutRequest(Task("check", PROBLEM)), setup))
        found = [*self._reads(line[-1]), *self._cuts(line[0])]
        yield from found
        if not any(f.level == "fault" for f in found):
            yield from self._trained(line[-1], trainers)

    # --- what is compared -------------------------------------------------------------------------------------
    def _reads(self, made: Trajectory) -> Iterator[Finding]:
        """The response against the script, to the first difference."""
        response, at = made.response, 0
        end = self.tokenizer.decode([self.end])
        how = " (a character at a time)" if self.finely else ""
        for boundary, text in [*self.script[:-1], ("end", self.script[-1][1] + end)]:
            if boundary == "output":  # it may begin behind what the call's last token holds beside the call
                ahead = (CROSSING[:n] for n in range(len(CROSSING), 0, -1))
                at += next((len(a) for a in ahead if response.startswith(a, at)), 0)
                text = text.lstrip("\n") if response[at - 1 : at] == "\n" else "\n" + text.lstrip("\n")
            if response.startswith(f" {text}", at):
                words = "a space stands in front: the tokenizer puts it before any text that is encoded alone, and the model sees it"
                yield Finding(boundary, "note", words)
                at += 1
            if not response.startswith(text, at):
                fault = made.error if made.error and at == len(response) else difference(text, response[at:])
                yield Finding(boundary, "fault", f"{fault}{how}", MEND)
                return
            at += len(text)
        whole, said = self.tokenizer.decode(made.ids), made.prompt + response
        if whole != said:
            ends = accumulate(map(len, token_texts(self.tokenizer, made.ids)))
            index = next((n for n, at in enumerate(ends) if at > same(whole, said)), len(made.ids))
            words = f"decoded as a whole, {difference(said, whole)}{how}"
            yield Finding(boundary_of(made, index), "fault", words, MEND)
        elif made.stop_reason != "eos":
            yield Finding("end", "fault", f"{quoted(end)} was not taken for the end: {made.stop_reason}{how}")
        elif self.thinks and made.final_text.removesuffix(end).strip() != ANSWER:
            words = f"the answer after the thinking reads {quoted(made.final_text)}{how}"
            yield Finding("thinking", "fault", words, MEND)
        else:
            yield from self._agreed(made, end)

    def _agreed(self, made: Trajectory, end: str) -> Iterator[Finding]:
        if self.dialect is not None:
            calls = "native calls" if self.dialect.native else f"```{self.dialect.tool.language} blocks"
            turn = next(t for n, t in enumerate(made.turns[:-1]) if made.turns[n + 1].author == "tool")
            token = token_texts(self.tokenizer, turn.ids)[-1]
            crosses = not turn.text.endswith(self.dialect.after_hint)
            yield Finding("fence", "ok", f"{calls} are found")
            if crosses:
                yield Finding("fence", "ok", f"{quoted(token)}, which crosses the end of one, stays whole")
            yield Finding("output", "ok", "reads as it was printed")
        yield Finding("end", "ok", f"{quoted(end)} is the last token")

    def _cuts(self, parent: Trajectory) -> Iterator[Finding]:
        """A hint may cut back to any character, also inside a token."""
        response = parent.response
        for position in range(len(response) + 1):
            turns, shared = cut(parent, position, self.tokenizer)
            kept = "".join(t.text for t in turns if t.author != "prompt") + shared
            ids = [i for t in turns for i in t.ids]
            if kept != response[:position] or ids != parent.ids[: len(ids)]:
                words = f"cut back to character {position}, {difference(response[:position], kept)}"
                yield Finding("hint", "fault", words, MEND)
                return
        yield Finding("hint", "ok", "reads as it was given, and may cut back to any character")

    def _trained(self, made: Trajectory, trainers: Mapping[str, Trainer]) -> Iterator[Finding]:
        given = {f"{t.name} ({stages})": t.inputs(made) for stages, t in trainers.items()}
        for who, fed in given.items():
            if fed is not None:
                yield from check_inputs(made, *fed, who, self.tokenizer)
        if not any(given.values()):
            seen = render(made)
            yield from check_inputs(made, seen.input_ids, seen.mask, "a trainer", self.tokenizer)


# --- who plays in it --------------------------------------------------------------------------------------------
class _Reciter(Engine):
    """Says one stretch after another, in tokens that read as it where they stand; the next one begins where something
    was spliced, or the last was said."""

    name = "reciter"

    def __init__(self, tokenizer: Tokenizer, stretches: Sequence[str], end: int, finely: bool) -> None:
        super().__init__()
        self.tokenizer, self.end, self.finely = tokenizer, end, finely
        self._stretches = list(stretches)
        self._left: list[int] = []
        self._seen: list[int] | None = None
        self._text = ""

    async def load_weights(self, weights: Weights) -> None:
        """It has none."""

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        if self._seen != list(ids) or not self._left:
            self._left, self._text = self._next(ids), ""
        said: list[int] = []
        decoder = Detokenizer(self.tokenizer, ids)
        stop: Literal["eos", "stop", "length"] = "length"
        while self._left and len(said) < sampling.max_tokens and stop == "length":
            said.append(self._left.pop(0))
            before, self._text = self._text, self._text + decoder.feed(said[-1:])
            if said[-1] == self.end and not self._left:
                stop = "eos"
            elif any(self._text.count(s) > before.count(s) for s in sampling.stop):
                stop = "stop"
        self._seen = [*ids, *said]
        return Generation(tuple(said), (-0.5,) * len(said), stop)

    def _next(self, ids: Sequence[int]) -> list[int]:
        if not self._stretches:
            return [self.end]
        text = self._stretches.pop(0)
        said: list[int] = []
        for part in text if self.finely else [text]:
            said += _continuation(self.tokenizer, [*ids, *said], part)
        return said if self._stretches else [*said, self.end]


def _continuation(tokenizer: Tokenizer, before: Sequence[int], text: str) -> list[int]:
    """Ids that read as ``text`` where they follow ``before``. Encoded alone it may begin with a space that no model
    would sample, so it is encoded after something, too."""
    found = [tokenizer.encode(text)]
    for lead in ("\n", "a", ".", "0"):
        ahead, joined = tokenizer.encode(lead), tokenizer.encode(lead + text)
        if joined[: len(ahead)] == ahead:
            found.append(joined[len(ahead) :])
    for ids in found:
        decoder = Detokenizer(tokenizer, before)
        if decoder.feed(ids) + decoder.flush() == text:
            return ids
    return found[0]


class _Doubt(HintInjector):
    """Cuts back into the middle of a word."""

    name = "doubt"

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def inject(self, trajectory: Trajectory) -> Hint | None:
        at = trajectory.response.find(CUT)
        return None if at < 0 else Hint(self.text, rewind_to=at)


class _Answering(Tool):
    """Is called in one of the ways of another tool, and prints always the same."""

    name = "answering"

    def __init__(self, dialect: Dialect, output: str) -> None:
        super().__init__()
        tool = dialect.tool
        self.name = tool.name  # type: ignore[misc]
        self.language = None if dialect.native else tool.language  # type: ignore[misc]
        self.parameters = tool.parameters if dialect.native else None  # type: ignore[misc]
        self.output = output

    @asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[ToolSession]:
        yield self

    async def call(self, call: ToolCall) -> ToolResult:
        return ToolResult(Outcome.OK, self.output)
