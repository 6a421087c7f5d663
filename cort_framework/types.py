"""The nouns of the framework: what a rollout makes, what rewards and filters read, what trainers see.

Everything here is plain data that goes to disk as JSON and comes back equal (``to_json`` / ``from_json``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

Author = Literal["prompt", "model", "tool", "hint"]
"""Who wrote a turn. The loss mask is read from it and from nothing else."""

StopReason = Literal["eos", "length", "tool_limit", "deadline", "error", "rewound"]
"""Why a trajectory ended. ``rewound``: it was cut back and a child goes on from it."""

_AUTHORS, _STOP_REASONS = frozenset(get_args(Author)), frozenset((*get_args(StopReason), None))


class Outcome(StrEnum):
    """How a tool call ended. The first four are shown to the model, ``infra_error`` never is."""

    OK = "ok"
    PROGRAM_ERROR = "program_error"
    TIMEOUT = "timeout"
    RESOURCE_LIMIT = "resource_limit"
    INFRA_ERROR = "infra_error"


@dataclass(frozen=True)
class Task:
    """One problem. ``prompt`` is the bare problem text; the recipe's prompt template is put around it later."""

    id: str
    prompt: str
    answer: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolCall:
    """One call as the model wrote it: ``code`` for a fence, ``arguments`` for a native call."""

    tool: str
    code: str | None = None
    arguments: Mapping[str, Any] | None = None
    index: int = 0
    """0 for the trajectory's first call."""


@dataclass(frozen=True)
class ToolResult:
    """What came of a call. ``text`` is what the model sees, without the fence around it."""

    outcome: Outcome
    text: str
    seconds: float = 0.0
    dropped_characters: int = 0
    restarted: bool = False
    """The tool lost its state (its variables are gone) in or before this call."""
    error: str | None = None
    """For a program error: ``ZeroDivisionError: division by zero``; for an infra error, what broke."""


@dataclass(frozen=True)
class Turn:
    """A contiguous span of tokens with one author. Never re-tokenised.

    ``text`` is the decoded text of the span; the turns' texts concatenated are the decoded trajectory.
    ``logprobs`` (author ``model`` only): one natural-log probability a token, at the temperature of sampling,
    over the full vocabulary.
    """

    author: Author
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...] | None = None
    weights_version: int | None = None
    call: ToolCall | None = None
    result: ToolResult | None = None
    reason: str | None = None
    """Author ``hint``: which injector put it here, and why."""

    def __post_init__(self) -> None:
        if self.logprobs is not None and len(self.logprobs) != len(self.ids):
            raise ValueError(f"a turn has {len(self.ids)} ids but {len(self.logprobs)} log-probs")


@dataclass(frozen=True)
class Verdict:
    """A filter's word on a trajectory; ``span`` is the evidence, character positions in ``Trajectory.response``."""

    keep: bool
    reason: str = ""
    span: tuple[int, int] | None = None
    filter: str = ""


@dataclass(frozen=True)
class Hint:
    """What an injector wants inserted. ``rewind_to`` is a character position in ``Trajectory.response`` to cut back
    to first; ``None`` appends at the end."""

    text: str
    rewind_to: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Reward:
    """One reward function's value for a trajectory. ``value`` is ``None`` where it does not apply, or where it
    failed (``error`` says how)."""

    value: float | None
    weight: float = 1.0
    error: str | None = None


@dataclass
class Trajectory:
    """An append-only list of turns: the one thing that flows from rollout to reward, filter and trainer.

    ``id`` is ``<task id>/<sample>``; a child made by a rewind has ``parent`` set to the id of the trajectory that it
    was cut from and ``kept_tokens``, the number of that trajectory's tokens (prompt included) that it keeps.
    """

    id: str
    task: Task
    sample: int = 0
    seed: int = 0
    turns: list[Turn] = field(default_factory=list)
    stop_reason: StopReason | None = None
    error: str | None = None
    rewards: dict[str, Reward] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    parent: str | None = None
    kept_tokens: int = 0
    discarded_tokens: int = 0
    """Tokens that the model generated in this line of descent and that are not in it any more: a rewind dropped them, or
    they came after a complete call."""
    seconds: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)

    # --- tokens -----------------------------------------------------------------------------------------------
    @property
    def ids(self) -> list[int]:
        """All token ids, prompt included: the trainer's ``input_ids``."""
        return [i for turn in self.turns for i in turn.ids]

    @property
    def response_tokens(self) -> int:
        """Tokens after the prompt, whoever wrote them."""
        return sum(len(t.ids) for t in self.turns if t.author != "prompt")

    @property
    def generated_tokens(self) -> int:
        """Tokens that the model sampled, with those that rewinds discarded."""
        return self.discarded_tokens + sum(len(t.ids) for t in self.turns if t.author == "model")

    # --- text -------------------------------------------------------------------------------------------------
    @property
    def prompt(self) -> str:
        return "".join(t.text for t in self.turns if t.author == "prompt")

    @property
    def response(self) -> str:
        """Everything after the prompt, whoever wrote it; the text that ``Hint.rewind_to`` and ``Verdict.span`` index."""
        return "".join(t.text for t in self.turns if t.author != "prompt")

    @property
    def model_text(self) -> str:
        """What the model wrote, without hints and tool outputs."""
        return "".join(t.text for t in self.turns if t.author == "model")

    def segments(self) -> Iterator[tuple[Turn, int, int]]:
        """Each turn after the prompt with its start and end position in ``response``."""
        position = 0
        for turn in self.turns:
            if turn.author != "prompt":
                yield turn, position, position + len(turn.text)
                position += len(turn.text)

    @property
    def final_text(self) -> str:
        """The model's own answer: text by ``model`` after ``</think>`` (all of it where thinking never opened), empty
        while the thinking is unfinished."""
        _, closed, answer = self.model_text.rpartition("</think>")
        if closed:
            return answer
        before = self.prompt + answer
        return "" if before.rfind("<think>") > before.rfind("</think>") else answer

    # --- calls ------------------------------------------------------------------------------------------------
    @property
    def calls(self) -> list[Turn]:
        """The tool turns, in order; each has ``call`` and ``result``."""
        return [t for t in self.turns if t.author == "tool"]

    @property
    def finished(self) -> bool:
        """It ended by its own end-of-sequence token, with no error of the machinery."""
        return self.stop_reason == "eos" and self.error is None

    @property
    def usable(self) -> bool:
        """Fit for statistics and training: no failure of the machinery is in it."""
        return self.error is None

    @property
    def fault(self) -> str | None:
        """What broke that is not the model's: the error of the machinery, else that of the first reward that failed. It is
        counted against ``max_error_rate``, and RL leaves the trajectory out."""
        return self.error or next((r.error for r in self.rewards.values() if r.error is not None), None)

    @property
    def reward(self) -> float:
        """The weighted sum of the rewards that apply."""
        return sum(r.value * r.weight for r in self.rewards.values() if r.value is not None)

    @property
    def kept(self) -> bool:
        """Usable, and no filter dropped it."""
        return self.usable and self.objection is None

    @property
    def objection(self) -> Verdict | None:
        """The first verdict that dropped it."""
        return next((v for v in self.verdicts if not v.keep), None)

    # --- disk -------------------------------------------------------------------------------------------------
    def to_json(self, after: str | None = None) -> str:
        """One line of ``trajectories.jsonl``; with ``after``, an object of the fields after that one."""
        fields = vars(self)
        if after is not None:
            names = list(fields)
            fields = {name: fields[name] for name in names[names.index(after) + 1 :]}
        return json.dumps(fields, default=_plain, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Trajectory:
        """Raises ``ValueError``, ``KeyError``, ``TypeError``, ``AttributeError`` or ``RecursionError`` where it is none."""
        data = json.loads(line)
        data["task"] = _made(Task, data["task"])
        data["turns"] = [_turn(t) for t in data["turns"]]
        data["rewards"] = {name: _made(Reward, r) for name, r in data["rewards"].items()}
        data["verdicts"] = [
            _made(Verdict, {**v, "span": v["span"] and _span(v["span"])}) for v in data["verdicts"]
        ]
        new = _made(cls, data)
        if new.stop_reason not in _STOP_REASONS:
            raise ValueError(f"stop_reason is {new.stop_reason!r:.60}")
        if not (0 <= new.seconds < math.inf and 0 <= new.sample < 2**63):
            raise ValueError(f"it took {new.seconds!r:.60} s, as sample {new.sample!r:.60}")
        return new


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass or mapping as JSON; far quicker than ``asdict``, which copies every token."""
    return dict(value) if isinstance(value, Mapping) else vars(value)


def _turn(data: dict[str, Any]) -> Turn:
    call, result, logprobs = data["call"], data["result"], data["logprobs"]
    data["ids"] = tuple(data["ids"])
    if logprobs is not None:
        data["logprobs"] = tuple(logprobs)
    if call is not None:
        data["call"] = _made(ToolCall, call)
    if result is not None:
        result["outcome"] = Outcome(result["outcome"])
        data["result"] = _made(ToolResult, result)
    turn = _made(Turn, data)
    turn.__post_init__()
    if turn.author not in _AUTHORS:
        raise ValueError(f"author is {turn.author!r:.60}")
    # a sum is the quickest look at all of them
    if type(sum(turn.ids)) is not int or (logprobs and type(sum(logprobs)) not in (int, float)):
        raise TypeError("its ids or log-probs are no numbers")
    return turn


def _span(value: Any) -> tuple[int, int]:
    start, end = value
    if type(start) is not int or type(end) is not int:
        raise TypeError(f"span is {value!r:.60}")
    return start, end


def _made(cls: type[T], data: dict[str, Any]) -> T:
    """``cls(**data)``, each value of a type that its field takes. Where all fields are there in their order and of types that
    were good before, without the ``__init__`` of a frozen dataclass, which takes as long as parsing a small trajectory."""
    shape = _shape(cls)  # type: ignore[arg-type]
    types = tuple(map(type, data.values()))
    whole = tuple(data) == shape.names
    if not whole or types not in shape.good:
        for name, kind in zip(data, types, strict=True):
            if kind not in shape.kinds.get(name, (kind,)):
                raise TypeError(f"{name} is {data[name]!r:.60}")
        if not whole:
            return cls(**data)
        shape.good.add(types)
    new = object.__new__(cls)
    new.__dict__.update(data)
    return new


class _Shape(NamedTuple):
    """Of a dataclass that is read from JSON."""

    names: tuple[str, ...]
    kinds: Mapping[str, frozenset[type]]
    """The types that a value may have, by field."""
    good: set[tuple[type, ...]]
    """Those that all values together had."""


@cache
def _shape(cls: type[Any]) -> _Shape:
    kinds = {name: frozenset(_types(hint)) for name, hint in get_type_hints(cls).items()}
    return _Shape(tuple(kinds), kinds, set())


def _types(hint: Any) -> Iterator[type]:
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        for part in inside:
            yield from _types(part)
    elif kind is Literal:
        yield str
    elif kind is Mapping:
        yield dict
    else:
        yield kind
        if kind is float:
            yield int


@dataclass
class Group:
    """The trajectories of one task."""

    task: Task
    trajectories: list[Trajectory]


@dataclass(frozen=True)
class Checkpoint:
    """A plain ``save_pretrained`` folder, with its tokenizer."""

    path: Path


@dataclass(frozen=True)
class Weights:
    """What an engine is asked to sample from: a folder (or hub id), or a live module of the trainer."""

    path: str | None = None
    """With a module: the checkpoint that it began as, for the tokenizer."""
    module: Any = None
    version: int = 0
    """Stamped on every turn that is sampled with these weights."""


@dataclass(frozen=True)
class Sampling:
    """How to sample one stretch of tokens."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 1024
    """At most this many new tokens in this stretch."""
    stop: tuple[str, ...] = ()
    """Strings that end the stretch; the token that completes one is kept whole."""
    seed: int = 0
    """The noise at absolute position p is a pure function of (seed, p)."""

    def replace(self, **changes: Any) -> Sampling:
        return replace(self, **changes)


@dataclass(frozen=True)
class Generation:
    """A stretch of sampled tokens. ``stop``: ``eos`` (its token is the last id), ``stop`` (a stop string), ``length``."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    """``None`` where the engine is not told them; nothing can be trained by RL on such tokens."""
    stop: Literal["eos", "stop", "length"]
    weights_version: int = 0


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else, the same on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
