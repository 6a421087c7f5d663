"""generate → parse → call → append, for one trajectory and for many at once.

The ids that the engine samples are the ids that stay: a turn is never tokenised again, and a token that crosses a
closing fence stays whole. A failure of the machinery ends its own trajectory, is recorded on it, and is never shown
to the model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cort_framework.errors import CortError, DeadlineExceeded
from cort_framework.guards.calls import Patience, blame, checked, deadline, run_plugin
from cort_framework.interfaces import (
    Engine,
    HintInjector,
    RolloutRequest,
    Tokenizer,
    Tool,
)
from cort_framework.parsing import CallParser, ParsedCall, ToolCallParser
from cort_framework.recipe import RolloutSettings
from cort_framework.rendering import Detokenizer, cut, last_texts, prompt_turn
from cort_framework.rollout.sessions import Sessions
from cort_framework.types import (
    Author,
    Generation,
    Hint,
    Outcome,
    Sampling,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    derive_seed,
)

LIMIT_NOTE = "[This was the last program that could be run here; go on by reasoning.]"
"""Appended to the output of the last call that a trajectory may make (paper, inference)."""


@dataclass(frozen=True)
class RolloutSetup:
    """What every trajectory of a batch shares; all plugins in it are open."""

    engine: Engine
    tools: Mapping[str, Tool]
    """By the tools' own names."""
    settings: RolloutSettings
    template: str
    """Prompt template with ``{problem}``."""
    seed: int = 0
    injectors: Sequence[HintInjector] = ()
    allow_rewind: bool = True
    """False in RL: the policy did not sample what comes after a cut."""
    began: float | None = None
    """When the batch did, by ``time.monotonic``, for its deadline; by default each trajectory is one."""
    observe: Callable[[Trajectory], None] | None = None
    """Shown the trajectory each time it has grown, at least every ``check_every`` tokens: for a person who watches."""


class _Growing:
    """A trajectory while it grows: the list of turns, with its ids and text kept at hand."""

    def __init__(self, trajectory: Trajectory, tokenizer: Tokenizer) -> None:
        self.trajectory = trajectory
        self.tokenizer = tokenizer
        self.ids = trajectory.ids
        self.detokenizer = Detokenizer(tokenizer, self.ids)
        self.sampled = 0
        """How many of the last ids are the last generation's."""
        self.eos = False
        """The last token is the model's end of sequence."""
        self.pending = ""
        """Text since the last tool output: where a call may stand."""
        self.searched = 0
        """Characters of it that hold no call: what was looked through is not looked through again."""
        for turn, _, _ in trajectory.segments():
            self.pending = "" if turn.author == "tool" else self.pending + turn.text

    def add_generation(self, generation: Generation) -> None:
        """Append sampled tokens; a stretch that goes on from one with the same weights is the same turn."""
        self.eos = generation.stop == "eos"
        self.sampled = len(generation.ids)
        text = self.detokenizer.feed(generation.ids)
        if self.eos:
            text += self.detokenizer.flush()
        last = self.trajectory.turns[-1]
        if (
            last.author == "model"
            and last.weights_version == generation.weights_version
            and (last.logprobs is None) == (generation.logprobs is None)
        ):
            self.trajectory.turns[-1] = Turn(  # a model's turn has nothing else, and `replace` takes its time
                "model",
                last.ids + generation.ids,
                last.text + text,
                _joined(last.logprobs, generation.logprobs),
                last.weights_version,
            )
        else:
            turn = Turn("model", generation.ids, text, generation.logprobs, generation.weights_version)
            self.trajectory.turns.append(turn)
        self.ids.extend(generation.ids)
        self.pending += text

    @property
    def said(self) -> str:
        """``pending`` without the end of sequence."""
        return self.pending.removesuffix(self.tokenizer.decode(self.ids[-1:])) if self.eos else self.pending

    def find(self, parser: CallParser) -> tuple[ParsedCall, ToolCallParser] | None:
        """The first complete call in ``pending``."""
        if not self.eos and not parser.may_end_in(self.pending, self.searched):
            found = None
        else:
            found = parser.parse(self.said, ended=self.eos)
        if found is None:
            self.searched = len(self.pending)
        return found

    def trim(self, end: int) -> None:
        """Drop the last generation's tokens that lie wholly behind position ``end`` of ``pending``: an engine that went on
        after a call sampled them without the call's output. What comes before them was sampled as if they never were."""
        surplus = len(self.pending) - end
        pieces = last_texts(self.tokenizer, self.ids, self.sampled, surplus, ended=self.eos)
        keep = len(pieces)
        while keep and len(pieces[keep - 1]) <= surplus:
            keep -= 1
            surplus -= len(pieces[keep])
        dropped = len(pieces) - keep
        if not dropped:
            return
        turn = self.trajectory.turns[-1]
        text = "".join(pieces[keep:])
        n = len(turn.ids) - dropped
        kept = replace(
            turn,
            ids=turn.ids[:n],
            text=turn.text[: len(turn.text) - len(text)],
            logprobs=None if turn.logprobs is None else turn.logprobs[:n],
        )
        self.trajectory.turns[-1:] = [kept] if n else []
        self.trajectory.discarded_tokens += dropped
        del self.ids[-dropped:]
        self.pending = self.pending[: len(self.pending) - len(text)]
        self.detokenizer = Detokenizer(self.tokenizer, self.ids)
        self.sampled, self.eos = self.sampled - dropped, False

    def flush(self) -> None:
        """Nothing follows that could complete a character."""
        if rest := self.detokenizer.flush():
            last = self.trajectory.turns[-1]
            self.trajectory.turns[-1] = replace(last, text=last.text + rest)
            self.pending += rest

    def add_text(self, author: Author, text: str, **fields: Any) -> None:
        """Append text that no model sampled. An end of sequence that it follows was none, and is dropped."""
        if self.eos:
            self.trim(len(self.said))
        self.flush()
        ids = self.tokenizer.encode(text.encode(errors="replace").decode())
        text = self.detokenizer.feed(ids) + self.detokenizer.flush()  # a tokenizer may put a space in front
        self.trajectory.turns.append(Turn(author, tuple(ids), text, **fields))
        self.ids.extend(ids)
        self.sampled, self.eos = 0, False
        self.pending = "" if author == "tool" else self.pending + text
        self.searched = min(self.searched, len(self.pending))


def _joined(first: tuple[float, ...] | None, second: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if first is None or second is None else first + second


async def rollout(request: RolloutRequest, setup: RolloutSetup) -> list[Trajectory]:
    """Make one trajectory. Returns its line of descent: the versions that rewinds cut back, then the final one.

    Never raises for a failure of tool, engine or plugin: it is on the last version, as ``error``.
    """
    task = request.task
    seed = derive_seed(setup.seed, task.id, request.sample)
    first = Trajectory(f"{task.id}/{request.sample}", task, request.sample, seed)

    async def begin(line: list[Trajectory], sessions: Sessions) -> None:
        with blame("engine", setup.engine):
            tools = setup.tools.values()
            first.turns.append(prompt_turn(setup.engine.tokenizer, setup.template, task, tools))

    return await _make([first], setup, begin)


async def go_on(line: Sequence[Trajectory], hint: Hint, setup: RolloutSetup) -> list[Trajectory]:
    """Cut the last version of a line of descent at ``hint.rewind_to``, insert the hint, and go on live: for a person who
    knows better. Returns the line with what came of it; what was given stays as it was. Fails as ``rollout`` does."""
    last = replace(line[-1], turns=list(line[-1].turns), rewards={}, verdicts=[])
    number = last.id.removeprefix(f"{line[0].id}~")
    new = int(number) + 1 if number.isdecimal() else 1

    async def begin(versions: list[Trajectory], sessions: Sessions) -> None:
        live = _Growing(last, setup.engine.tokenizer)
        live = await _insert(hint, live, versions, sessions, setup, new)
        if len(live.trajectory.calls) == len(last.calls):  # else they have been replayed already
            await sessions.restart(live.trajectory.calls)

    return await _make([*line[:-1], last], setup, begin, new)


async def _make(
    line: list[Trajectory],
    setup: RolloutSetup,
    begin: Callable[[list[Trajectory], Sessions], Awaitable[None]],
    versions: int = 0,
) -> list[Trajectory]:
    """Grow the last of the line after ``begin``, in sessions of its own. ``versions``: as many were numbered before."""
    settings = setup.settings
    sessions = Sessions(setup.tools, settings, line[-1])
    started = time.perf_counter()
    doing = ["its beginning"]

    def at() -> str:
        return f"trajectory {line[-1].id}, at {doing[0]},"

    try:
        with Patience(settings.turn_timeout_s, lambda: doing[0]) as patience:
            async with (
                deadline(settings.batch_timeout_s, lambda: f"the batch, with {at()}", setup.began),
                deadline(settings.trajectory_timeout_s, at),
            ):
                await begin(line, sessions)
                await _grow(line, sessions, setup, doing, patience, versions)
    except DeadlineExceeded as error:
        line[-1].stop_reason, line[-1].error = "deadline", error.message
    except CortError as error:
        line[-1].stop_reason, line[-1].error = "error", error.message
    except Exception as error:  # nobody's in particular; it costs this one sample, and their share is watched
        line[-1].stop_reason, line[-1].error = "error", f"at {doing[0]}: {type(error).__name__}: {error}"
    finally:
        await sessions.close()
    line[-1].seconds = time.perf_counter() - started
    return line


async def _grow(
    line: list[Trajectory],
    sessions: Sessions,
    setup: RolloutSetup,
    doing: list[str],
    patience: Patience,
    versions: int = 0,
) -> None:
    settings, tokenizer = setup.settings, setup.engine.tokenizer
    parser = CallParser(setup.tools.values())
    live = _Growing(line[-1], tokenizer)
    hints, engine = 0, f"engine '{setup.engine.name}' (from {setup.engine.distribution})"
    while True:
        if setup.observe is not None:
            setup.observe(live.trajectory)
        trajectory = live.trajectory
        calls = len(trajectory.calls)
        may_call = calls < settings.max_tool_calls and bool(parser.parsers)
        found = live.find(parser) if may_call else None
        if found and live.eos and "</think>" in trajectory.model_text:
            found = None  # the end of the answer, not a pause for a tool
        if found:
            live.trim(found[0].end)

        # A fault that ends in a call is cut before the call is paid for; a hint that is only appended waits for the output.
        hint = await _next_hint(trajectory, setup, doing, patience) if hints < settings.max_hints else None
        if hint and not (found and hint.rewind_to is None):
            hints += 1
            doing[0] = f"the hint '{hint.reason}'"
            live = await _insert(hint, live, line, sessions, setup, versions + hints)
        elif found:
            doing[0] = f"tool '{found[0].tool}', call {calls}"
            await _answer(*found, live, sessions, setup)
        elif live.eos:
            trajectory.stop_reason = "eos"
            return
        elif (left := settings.max_tokens - trajectory.response_tokens) <= 0:
            live.flush()
            trajectory.stop_reason = "length"
            return
        else:
            doing[0] = engine
            await _generate(live, left, parser.stop if may_call else (), setup, patience)


async def _generate(
    live: _Growing, left: int, stop: tuple[str, ...], setup: RolloutSetup, patience: Patience
) -> None:
    settings, engine = setup.settings, setup.engine
    sampling = Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=min(left, settings.check_every) if setup.injectors or setup.observe else left,
        stop=stop,
        seed=live.trajectory.seed,
    )
    with blame("engine", engine):
        async with patience:
            generation = checked(await engine.generate(live.ids, sampling), Generation)
        if not 0 < len(generation.ids) <= sampling.max_tokens:
            raise ValueError(
                f"it returned {len(generation.ids)} tokens where 1 to {sampling.max_tokens} were asked for"
            )
        if generation.logprobs is not None and not math.isfinite(math.fsum(generation.logprobs)):
            raise ValueError("it returned log-probs that are no finite numbers")
        live.add_generation(generation)


async def _answer(
    parsed: ParsedCall, dialect: ToolCallParser, live: _Growing, sessions: Sessions, setup: RolloutSetup
) -> None:
    """Run the call and append what came of it."""
    done = live.trajectory.calls
    call = ToolCall(parsed.tool, parsed.code, parsed.arguments, index=len(done))
    if parsed.problem is not None:
        result = ToolResult(Outcome.PROGRAM_ERROR, parsed.problem, error=parsed.problem)
    else:
        result = await sessions.call(call, done)
    shown = result.text
    if len(done) + 1 == setup.settings.max_tool_calls:
        shown = f"{shown.rstrip()}\n{LIMIT_NOTE}".lstrip("\n")
    live.add_text("tool", dialect.render(shown, live.pending), call=call, result=result)


async def _next_hint(
    trajectory: Trajectory, setup: RolloutSetup, doing: list[str], patience: Patience
) -> Hint | None:
    """The hint that reaches back furthest, of all that the injectors ask for now."""
    wanted: list[Hint] = []
    for injector in setup.injectors:
        doing[0] = f"hint injector '{injector.name}' (from {injector.distribution})"
        async with patience:
            hint = await run_plugin("hint injector", injector, injector.inject, trajectory)
        if hint is None:
            continue
        with blame("hint injector", injector):
            checked(hint, Hint)
        wanted.append(
            replace(hint, reason=f"{injector.name}: {hint.reason}" if hint.reason else injector.name)
        )
    if not wanted:
        return None
    end = len(trajectory.response)
    hint = min(wanted, key=lambda h: end if h.rewind_to is None else h.rewind_to)
    return replace(hint, rewind_to=None) if hint.rewind_to is not None and hint.rewind_to >= end else hint


async def _insert(
    hint: Hint, live: _Growing, line: list[Trajectory], sessions: Sessions, setup: RolloutSetup, count: int
) -> _Growing:
    """Append the hint; where it reaches back, cut, and go on in a child. The parent stays as it was."""
    parent = live.trajectory
    if hint.rewind_to is None:
        live.add_text("hint", hint.text, reason=hint.reason)
        return live
    if not setup.allow_rewind:
        raise CortError(
            f"the hint '{hint.reason}' asks for a rewind, which RL does not allow",
            "name only hints that do not rewind in this stage's `hints`",
        )
    turns, shared = cut(parent, hint.rewind_to, setup.engine.tokenizer)
    kept = sum(len(t.ids) for t in turns)
    generated = sum(len(t.ids) for t in parent.turns if t.author == "model")
    child = Trajectory(
        f"{line[0].id}~{count}",
        parent.task,
        parent.sample,
        derive_seed(parent.seed, "rewind", count),
        turns=turns,
        parent=parent.id,
        kept_tokens=kept,
        discarded_tokens=parent.discarded_tokens
        + generated
        - sum(len(t.ids) for t in turns if t.author == "model"),
    )
    parent.stop_reason = "rewound"
    line.append(child)
    if len(child.calls) < len(parent.calls):
        await sessions.restart(child.calls)
    grown = _Growing(child, setup.engine.tokenizer)
    grown.add_text("hint", shared + hint.text, reason=hint.reason)
    return grown
