"""What every tool keeps, as a test that any tool's author can run; see ``check_tool_conformance``.

Nothing here knows what a tool does: a ``ToolCase`` says which calls work, fail, remember and never end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cort_framework.interfaces import OpenContext, Tool, ToolSession
from cort_framework.types import Outcome, Task, ToolCall, ToolResult

Call = str | Mapping[str, Any]
"""The code of a fence, or the arguments of a native call."""

SLACK_S = 10.0
"""What a busy machine may add to a tool's own limit before it counts as broken."""


@dataclass(frozen=True)
class ToolCase:
    """What to call a tool with. A field left out means that the tool has no such thing."""

    tool: type[Tool]
    works: Call
    """Succeeds, always with the same text."""
    text: str
    """The text, without the line break at its end."""
    native: Mapping[str, Any] | None = None
    """Arguments of a native call with the same text. Needed where the tool has ``parameters``."""
    fails: Call | None = None
    """Is the caller's own fault: a ``program_error``."""
    state: tuple[Call, Call, str] | None = None
    """A call that leaves something behind, one that reads it in the same session, and that one's text."""
    hangs: Call | None = None
    """Never ends by itself."""
    limit_s: float = 2.0
    """With ``config``, the seconds within which the tool itself ends such a call."""
    floods: Call | None = None
    """Would show more than ``shown`` characters."""
    shown: int = 1000
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the tool: a short limit, where it has one."""


def check_tool_conformance(case: ToolCase) -> None:
    """Opens the tool once, runs every check of ``CHECKS``, and closes it: nothing of it may be left.

    Raises ``AssertionError`` with the sentences that do not hold, and why.
    """
    broken: list[str] = []

    async def run(scratch: Path) -> None:
        tool = case.tool(case.tool.Config.model_validate(dict(case.config)))
        try:
            await tool.open(OpenContext(scratch))
            for check in CHECKS:
                try:
                    await check(Bench(case, tool))
                except Exception as error:
                    why = (
                        str(error)
                        if isinstance(error, AssertionError)
                        else f"{type(error).__name__}: {error}"
                    )
                    broken.append(f"{check.__name__.replace('_', ' ')}: {why}")
        finally:
            await tool.close()

    try:
        with _nothing_left_behind() as scratch:
            asyncio.run(run(scratch))
    except AssertionError as error:
        broken.append(str(error))
    if broken:
        raise AssertionError(f"{case.tool.__name__} breaks the contract of tools:\n- " + "\n- ".join(broken))


# --- a session to check -----------------------------------------------------------------------------------------
class Bench:
    """An open tool and short ways to call it."""

    def __init__(self, case: ToolCase, tool: Tool) -> None:
        self.case = case
        self.tool = tool
        self._count = 0

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        self._count += 1
        name = f"task/{self._count}"
        async with self.tool.session(Task("task", "?"), trajectory_id=name, seed=self._count) as session:
            yield session

    async def call(self, session: ToolSession, call: Call | None) -> ToolResult:
        """Makes the call, and sees that what comes back is a result."""
        name = self.case.tool.name
        made = ToolCall(name, call) if isinstance(call, str) else ToolCall(name, arguments=call)
        result = await session.call(made)
        assert isinstance(result, ToolResult), f"call returned {result!r}, not a ToolResult"
        assert isinstance(result.outcome, Outcome) and isinstance(result.text, str)
        assert result.outcome is not Outcome.INFRA_ERROR, "a tool raises what is its own fault"
        assert result.seconds >= 0 and result.dropped_characters >= 0
        try:
            result.text.encode()
        except UnicodeEncodeError:
            raise AssertionError(f"the text holds half a character: {result.text[:200]!r}") from None
        return result

    async def still_works(self, session: ToolSession) -> None:
        result = await self.call(session, self.case.works)
        assert result.outcome is Outcome.OK, f"{result.outcome}: {result.text[:500]}"
        lines = result.text.rstrip().split("\n")
        told_of_a_restart = result.restarted and lines[
            -len(self.case.text.split("\n")) :
        ] == self.case.text.split("\n")
        assert result.text.rstrip() == self.case.text or told_of_a_restart, result.text[:500]


Check = Callable[[Bench], Awaitable[None]]


@contextlib.contextmanager
def _nothing_left_behind() -> Iterator[Path]:
    """A scratch folder; at the end no process, thread, descriptor or temporary file is there that was not before."""
    before = _held()
    with tempfile.TemporaryDirectory(prefix="cort-") as folder:
        scratch, temporary = Path(folder, "scratch"), Path(folder, "tmp")
        scratch.mkdir()
        temporary.mkdir()
        saved = os.environ.get("TMPDIR"), tempfile.tempdir
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        try:
            yield scratch
        finally:
            tempfile.tempdir = saved[1]
            if saved[0] is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = saved[0]
        left = sorted(path.name for path in temporary.iterdir())
        assert not left, f"after close() there are still temporary files: {left}"
    give_up = time.monotonic() + SLACK_S
    while (extra := [(what, more) for what, more in _held().items() if more - before[what]]) and (
        time.monotonic() < give_up
    ):
        time.sleep(0.02)  # what has ended a moment ago may still be shown
    assert not extra, "after close() there are still " + ", ".join(
        f"{what}: {sorted(more - before[what])}" for what, more in extra
    )


def _held() -> dict[str, frozenset[str]]:
    held = {"threads": frozenset(f"{t.name} {t.ident}" for t in threading.enumerate())}
    proc = Path("/proc/self")
    if proc.is_dir():
        children: set[str] = set()
        for task in proc.glob("task/*/children"):
            with contextlib.suppress(OSError):
                children.update(task.read_text().split())
        links: dict[str, str] = {}
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                links[number] = os.readlink(f"/proc/self/fd/{number}")
        held["processes"] = frozenset(children)
        held["descriptors"] = frozenset(
            f"{number} {to}" for number, to in links.items() if not to.startswith("/proc/")
        )
    return held


# --- the checks: each name is the sentence that it proves -------------------------------------------------------
async def it_says_how_it_is_called(bench: Bench) -> None:
    tool = bench.tool
    assert tool.language or tool.parameters, "it has neither a language nor parameters"
    if tool.parameters is None:
        return
    assert tool.description.strip(), "native calls need a description"
    schema = json.loads(json.dumps(tool.parameters))
    assert schema.get("type") == "object", "parameters are the JSON schema of an object"
    shapes = schema.get("anyOf") or schema.get("oneOf") or [schema]
    for shape in shapes:
        missing = set(shape.get("required", ())) - set(shape.get("properties", {}))
        assert not missing, f"required but not described: {missing}"
    assert bench.case.native is not None, "the case has no native call, but the tool has parameters"


async def a_call_that_works_works_again_and_natively(bench: Bench) -> None:
    for _ in range(2):
        async with bench.session() as session:
            await bench.still_works(session)
            await bench.still_works(session)
            if bench.case.native is not None:
                native = await bench.call(session, bench.case.native)
                assert (native.outcome, native.text.rstrip()) == (Outcome.OK, bench.case.text), native


async def a_call_that_fails_is_a_program_error_and_costs_nothing_else(bench: Bench) -> None:
    if bench.case.fails is None:
        return
    async with bench.session() as session:
        failed = await bench.call(session, bench.case.fails)
        assert failed.outcome is Outcome.PROGRAM_ERROR, f"{failed.outcome}: {failed.text[:500]}"
        assert failed.text.strip(), "a failure is told in the text"
        assert failed.error, "a failure is named in `error`"
        await bench.still_works(session)


async def whatever_is_written_has_an_outcome(bench: Bench) -> None:
    odd: list[Call | None] = [
        "",
        " \n",
        "\0",
        "é😀\u2028",
        "(" * 3000,
        "x" * 10**6,
        "```",
        "{",
        "[]",
        '{"a": 1}',
    ]
    if bench.tool.language is None:
        odd = []
    if bench.tool.parameters is not None:
        odd += [
            {},
            {"no such thing": 1},
            {"code": None},
            {"code": 5},
            {"code": ["1"]},
            {"operation": []},
            None,
        ]
    async with bench.session() as session:
        for call in odd:
            result = await bench.call(session, call)
            assert result.outcome is Outcome.OK or result.text.strip(), f"{call!r} fails and nobody is told"
        await bench.still_works(session)


async def arguments_that_do_not_fit_are_a_program_error(bench: Bench) -> None:
    if bench.case.native is None:
        return
    key = next(iter(bench.case.native))
    wrong = [
        {k: v for k, v in bench.case.native.items() if k != key},
        {**bench.case.native, key: {"deep": [None]}},
        {**bench.case.native, "no such argument": "1"},
    ]
    async with bench.session() as session:
        for arguments in wrong:
            result = await bench.call(session, arguments)
            assert result.outcome is Outcome.PROGRAM_ERROR and result.text.strip(), f"{arguments}: {result}"


async def a_session_remembers_and_no_other_one_knows(bench: Bench) -> None:
    if bench.case.state is None:
        return
    leave, read, text = bench.case.state
    async with bench.session() as one, bench.session() as other:
        left = await bench.call(one, leave)
        assert left.outcome is Outcome.OK, left
        assert (await bench.call(one, read)).text.rstrip() == text
        assert (await bench.call(other, read)).text.rstrip() != text, "state leaks between sessions"
    async with bench.session() as later:
        assert (await bench.call(later, read)).text.rstrip() != text, "state outlives its session"


async def sessions_at_the_same_time_have_each_their_own_answers(bench: Bench) -> None:
    async def one() -> None:
        async with bench.session() as session:
            for _ in range(2):
                await bench.still_works(session)

    await asyncio.gather(*(one() for _ in range(6)))


async def a_call_that_never_ends_is_ended_and_the_session_goes_on(bench: Bench) -> None:
    if bench.case.hangs is None:
        return
    async with bench.session() as session:
        await bench.still_works(session)  # what is started at a first call is no part of the limit
        try:
            async with asyncio.timeout(bench.case.limit_s + SLACK_S):
                ended = await bench.call(session, bench.case.hangs)
        except TimeoutError:
            raise AssertionError(f"the call was not ended within {bench.case.limit_s:g} s") from None
        assert ended.outcome is Outcome.TIMEOUT, f"{ended.outcome}: {ended.text[:500]}"
        assert ended.text.strip(), "the model is told that its call was ended"
        await bench.still_works(session)


async def a_cancelled_call_ends_at_once_and_the_session_goes_on(bench: Bench) -> None:
    call = bench.case.hangs or bench.case.works
    async with bench.session() as session:
        await bench.still_works(session)
        making = asyncio.ensure_future(bench.call(session, call))
        await asyncio.sleep(0.1)
        ended = making.done()
        making.cancel()
        done, _ = await asyncio.wait([making], timeout=SLACK_S)
        assert done, "a cancelled call goes on"
        assert ended or making.cancelled(), "a cancelled call must not swallow its cancellation"
        await bench.still_works(session)


async def a_session_that_is_left_in_the_middle_of_a_call_leaves_nothing(bench: Bench) -> None:
    if bench.case.hangs is None:
        return

    async def one() -> None:
        async with bench.session() as session:
            await bench.call(session, bench.case.hangs)

    making = asyncio.ensure_future(one())
    await asyncio.sleep(0.1)
    ended = making.done()
    making.cancel()
    done, _ = await asyncio.wait([making], timeout=SLACK_S)
    assert ended or (done and making.cancelled()), "a session does not end when it is cancelled"


async def a_flood_is_cut_and_what_is_missing_is_counted(bench: Bench) -> None:
    if bench.case.floods is None:
        return
    async with bench.session() as session:
        flood = await bench.call(session, bench.case.floods)
        assert len(flood.text) <= bench.case.shown, f"{len(flood.text)} characters are shown"
        assert flood.dropped_characters > 0, "nobody is told how much is missing"
        await bench.still_works(session)


async def a_session_without_a_call_costs_nothing(bench: Bench) -> None:
    async with bench.session():
        pass


CHECKS: tuple[Check, ...] = (
    it_says_how_it_is_called,
    a_call_that_works_works_again_and_natively,
    a_call_that_fails_is_a_program_error_and_costs_nothing_else,
    whatever_is_written_has_an_outcome,
    arguments_that_do_not_fit_are_a_program_error,
    a_session_remembers_and_no_other_one_knows,
    sessions_at_the_same_time_have_each_their_own_answers,
    a_call_that_never_ends_is_ended_and_the_session_goes_on,
    a_cancelled_call_ends_at_once_and_the_session_goes_on,
    a_session_that_is_left_in_the_middle_of_a_call_leaves_nothing,
    a_flood_is_cut_and_what_is_missing_is_counted,
    a_session_without_a_call_costs_nothing,
)
