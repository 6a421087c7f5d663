"""A tool cassette: what tools answered, kept in a file and given again. A run that is replayed from one needs no tool.

A call is found by all that its answer may depend on: the tool and its settings, the trajectory and its seed (a kernel's
random numbers come from it), every call of the session before it, and the call itself.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cort_framework.errors import CortError, InfrastructureError
from cort_framework.interfaces import OpenContext, Plugin, PluginConfig, Tool, ToolSession
from cort_framework.types import Outcome, Task, ToolCall, ToolResult


class Cassette(Plugin):
    """The file: a database of SQLite, which several processes of a machine may have open. What is in it is never changed."""

    name = "cassette"

    class Config(PluginConfig):
        path: str
        """The file."""
        replay: bool = False
        """It has to be there, and nothing is added to it."""

    config: Config

    async def open(self, context: OpenContext) -> None:
        path = Path(self.config.path).expanduser().resolve()
        with self._explained():
            if self.config.replay:
                self._rows = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
                self._rows.execute("SELECT result FROM calls LIMIT 1")
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(path, timeout=30, isolation_level=None)
            # without waiting for the disk at every call: a process that is killed loses nothing of it
            self._rows.execute("PRAGMA synchronous = OFF")
            self._rows.execute(
                "CREATE TABLE IF NOT EXISTS calls (key BLOB PRIMARY KEY, call, result) WITHOUT ROWID"
            )

    async def close(self) -> None:
        if hasattr(self, "_rows"):
            self._rows.close()

    def find(self, key: bytes) -> ToolResult | None:
        with self._explained():
            row = self._rows.execute("SELECT result FROM calls WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            data = json.loads(row[0])
            return ToolResult(**{**data, "outcome": Outcome(data["outcome"])})

    def keep(self, key: bytes, call: ToolCall, result: ToolResult) -> None:
        with self._explained():
            row = key, json.dumps(vars(call), default=dict), json.dumps(vars(result))
            self._rows.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?)", row)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError, TypeError, KeyError) as error:
            raise CortError(
                f"the cassette {self.config.path} cannot be used: {error}",
                "is it there, and made by `rollout.cassette`? move it away to record it anew",
            ) from error


class Taped(Tool):
    """A tool as it is, but that what it was asked before is answered from a cassette, and what it was not is kept there;
    with ``replay``, the tool is never asked, and need not be open."""

    name = "taped"

    def __init__(self, tool: Tool, identity: Any, cassette: Cassette) -> None:
        """``identity``: what of the tool its answers depend on; plain data."""
        super().__init__(tool.config)
        self.tool, self.cassette = tool, cassette
        self.identity = _hash(b"", identity)
        vars(self).update(
            name=tool.name,
            language=tool.language,
            aliases=tool.aliases,
            description=tool.description,
            parameters=tool.parameters,
            distribution=tool.distribution,
        )

    @asynccontextmanager
    async def session(self, task: Task, *, trajectory_id: str, seed: int) -> AsyncIterator[ToolSession]:
        async with AsyncExitStack() as stack:
            yield _Session(self, task, trajectory_id, seed, stack)


class _Session:
    """Opens the tool's own session at the first call that the cassette does not hold."""

    def __init__(
        self, taped: Taped, task: Task, trajectory_id: str, seed: int, stack: AsyncExitStack
    ) -> None:
        self._taped, self._stack = taped, stack
        self._begin = partial(taped.tool.session, task, trajectory_id=trajectory_id, seed=seed)
        self._trajectory = trajectory_id
        self._key = _hash(taped.identity, [trajectory_id, seed])
        """Of all that has happened in the session."""
        self._live: ToolSession | None = None
        self._played: list[tuple[ToolCall, ToolResult]] = []
        """Calls that the tool's own session does not know of."""

    async def call(self, call: ToolCall) -> ToolResult:
        cassette = self._taped.cassette
        self._key = _hash(self._key, [call.code, call.arguments])
        if self._live is None:
            if (known := cassette.find(self._key)) is not None:
                self._played.append((call, known))
                return known
            if cassette.config.replay:
                raise InfrastructureError(
                    f"call {call.index} of {self._trajectory} is not in the cassette {cassette.config.path}",
                    'rollout.cassette_miss = "call" makes it, and keeps it',
                )
            self._live = await self._catch_up()
        result = await self._live.call(call)
        if isinstance(result, ToolResult) and result.outcome != Outcome.INFRA_ERROR:
            cassette.keep(self._key, call, result)
        return result

    async def _catch_up(self) -> ToolSession:
        """A session of the tool in which all that was played has happened."""
        live = await self._stack.enter_async_context(self._begin())
        for call, known in self._played:
            again = await live.call(call)
            if (again.outcome, again.text) != (known.outcome, known.text):
                raise InfrastructureError(
                    f"call {call.index} of {self._trajectory} ends differently than in the cassette",
                    "what it shows changes from time to time; move the cassette away to record it anew",
                )
        return live


def _hash(before: bytes, data: Any) -> bytes:
    return hashlib.blake2b(
        before + json.dumps(data, sort_keys=True, default=dict).encode(), digest_size=16
    ).digest()
