"""TOML tables: read, layered (profile, ``--set``), located by line, explained where they are wrong, written.

tomllib gives no line numbers, so a fault's line is found by scanning the text for its key.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cort_framework.errors import RecipeError, RequestError

Key = tuple[str | int, ...]
"""A place in nested tables: ``("stage", 2, "options", "lr")``."""

Table = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One fault of a recipe, and where it is."""

    key: Key
    text: str
    hint: str | None = None
    cause: BaseException | None = None


@dataclass
class Source:
    """The text that a recipe came from, and the layers that were put over it."""

    path: Path | None = None
    text: str = ""
    profile: str | None = None
    profile_table: Table = field(default_factory=dict)
    overrides: dict[Key, str] = field(default_factory=dict)
    """Each key that ``--set`` gave, with the argument as it was typed."""
    stages: list[str] = field(default_factory=list)
    """Names of the stages, in order: a profile and ``--set`` address them by name."""

    def show(self, problem: Problem) -> str:
        """``line 12: rollout.engine: …``, or ``--set rollout.engine=x: …``."""
        place = self._place(problem.key)
        return f"{place}: {problem.text}" if place else problem.text

    def line(self, key: Key) -> int:
        """The line of the innermost table or key that holds this place; 0 where the text has none."""
        key = self._written(key)
        return next((self.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.lines), 0)

    def _place(self, key: Key) -> str:
        for override, argument in self.overrides.items():
            if key[: len(override)] == override:
                return f"--set {argument}"
        line = self.line(key)
        return (f"line {line}: " if line else "") + dotted_key(self._named(self._written(key)))

    def _written(self, key: Key) -> Key:
        """The key as the text has it: in the profile, where that gave the value."""
        named = self._named(key)
        if self.profile is not None and _holds(self.profile_table, named):
            return ("profile", self.profile, *named)
        return key

    def _named(self, key: Key) -> Key:
        """``("stage", 2, "lr")`` as a profile says it: ``("stage", "rl", "lr")``."""
        if len(key) > 1 and key[0] == "stage" and isinstance(key[1], int) and key[1] < len(self.stages):
            return ("stage", self.stages[key[1]], *key[2:])
        return key

    @cached_property
    def lines(self) -> dict[Key, int]:
        return key_lines(self.text)


def refuse(source: Source, problems: Sequence[Problem]) -> RecipeError:
    """One error for all problems, each at its place."""
    several = len(problems) > 1
    problems = sorted(problems, key=lambda p: source.line(p.key))
    lines = [source.show(p) + (f" ({p.hint})" if several and p.hint else "") for p in problems]
    error = RecipeError(
        list(dict.fromkeys(lines)),
        hint=None if several else problems[0].hint,
        where=str(source.path) if source.path else None,
    )
    error.__cause__ = next((p.cause for p in problems if p.cause is not None), None)
    return error


# --- reading ----------------------------------------------------------------------------------------------------
def read_toml(path: Path) -> tuple[str, Table]:
    """A file's text and tables. Raises ``RequestError`` where it is not there, not a file, not text or not TOML."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return text, tomllib.loads(text.replace("\r\n", "\n"))
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise RequestError(f"{path} is a folder, not a recipe", "name a .toml file in it") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path} is not text: byte {error.start} is no UTF-8", "a recipe is a TOML file in UTF-8"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path} is not TOML: {error}", "https://toml.io shows the format") from error
    except RecursionError as error:
        raise RequestError(f"{path} is not a recipe: its values are nested too deep") from error


def key_lines(text: str) -> dict[Key, int]:
    """The line, from 1, of each table header and key. Elements of an array of tables have their index in the key."""
    found: dict[Key, int] = {}
    arrays: dict[Key, int] = {}
    table: Key = ()
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line, start = lines[number].strip(), number + 1
        number += 1
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            header = _path_of(_loads(line) or {})
            table = ()
            for position, part in enumerate(header):
                table += (part,)
                if table in arrays and position < len(header) - 1:
                    table += (arrays[table],)
            if line.startswith("[["):
                found.setdefault(table, start)
                arrays[table] = arrays.get(table, -1) + 1
                table += (arrays[table],)
            found.setdefault(table, start)
            continue
        while (value := _loads(line)) is None and number < len(lines):  # a value of several lines
            line += "\n" + lines[number]
            number += 1
        key = table
        for part in _path_of(value or {}):
            key += (part,)
            found.setdefault(key, start)
    return found


def _loads(text: str) -> Table | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _path_of(table: Any) -> list[str]:
    """The path down to the first key with a value that is no table of one key."""
    path = []
    while isinstance(table, (dict, list)) and len(table) == 1:
        if isinstance(table, list):
            table = table[0]
            continue
        path.append(next(iter(table)))
        table = table[path[-1]]
    return path


# --- layers -----------------------------------------------------------------------------------------------------
def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """``over`` on ``base``, table by table; anything else is replaced, and so is a table that names another plugin, whose
    settings are other ones."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(below, Mapping)
            and not _names_another(key, value, below)
        ):
            merged[key] = merge(below, value)
        else:
            merged[key] = deepcopy(value)
    return merged


def _names_another(key: str, value: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    """Whether a table's settings are for another plugin. ``use = "dist/name"`` may only pick the distribution."""

    def plugin(table: Mapping[str, Any]) -> Any:
        use = table.get("use", key)
        return use.rpartition("/")[2] if isinstance(use, str) else use

    other_source = "source" in value and value["source"] != below.get("source")
    return other_source or ("use" in value and plugin(value) != plugin(below))


def parse_override(argument: str) -> tuple[list[str], Any]:
    """``a.b=1`` as path and value; the value is TOML, or a bare string where it is no TOML."""
    name, equals, text = argument.partition("=")
    path = _path_of(_loads(f"{name} = 0") or {}) if name.strip() else []
    if not equals or not path:
        raise RequestError(
            f"--set {argument}: not of the form KEY=VALUE", "for example --set rollout.max_tokens=2048"
        )
    value = _loads(f"v = {text}")
    return path, value["v"] if value is not None and len(value) == 1 else text.strip()


def _holds(table: Any, key: Key) -> bool:
    for part in key:
        if not isinstance(table, Mapping) or part not in table:
            return False
        table = table[part]
    return bool(key)


# --- explaining -------------------------------------------------------------------------------------------------
def explain(
    error: ValidationError, model: type[BaseModel], data: Any, at: Key = (), also: Iterable[str] = ()
) -> list[Problem]:
    """A validation error as problems below ``at``, one a place. ``also``: further keys that are known at the top."""
    problems: dict[Key, list[str]] = {}
    for item in error.errors(include_url=False):
        place = _real_place(data, item["loc"], item["type"] in ("missing", "extra_forbidden"))
        if item["type"] == "extra_forbidden":
            known = [*_known_keys(model, place[:-1]), *(also if len(place) == 1 else ())]
            text = f"unknown key{nearest(str(place[-1]), known)}"
        elif item["type"] == "missing":
            text = "this key is required"
        elif item["type"] == "value_error":
            text = str(item["ctx"]["error"])
        else:
            text = f"{item['msg'][0].lower()}{item['msg'][1:]}, not {_brief(item['input'])}"
        if text not in problems.setdefault(at + place, []):
            problems[at + place].append(text)
    return [Problem(key, "; or ".join(texts)) for key, texts in problems.items()]


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?``, or the list of what there is."""
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def dotted_key(key: Key) -> str:
    return ".".join(
        p if isinstance(p, str) and re.fullmatch(r"[A-Za-z0-9_-]+", p) else json.dumps(p, ensure_ascii=False)
        for p in key
    )


def _real_place(data: Any, loc: tuple[int | str, ...], beyond: bool) -> Key:
    """The part of pydantic's location that is in the data: it also names branches of unions and of mappings."""
    place: Key = ()
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            if not beyond or part != loc[-1]:
                continue
        place += (part,)
    return place


def _known_keys(model: type[BaseModel], key: Key) -> list[str]:
    """The keys that a model takes at a place inside it."""
    annotation: Any = model
    for part in key:
        found = _models_in(annotation)
        inside = next((m for m in found if part in m.model_fields), None)
        annotation = inside.model_fields[str(part)].annotation if inside else annotation
    names = [f.alias or n for m in _models_in(annotation) for n, f in m.model_fields.items()]
    return list(dict.fromkeys(names))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [m for argument in typing.get_args(annotation) for m in _models_in(argument)]


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


# --- writing ----------------------------------------------------------------------------------------------------
def to_toml(table: Mapping[str, Any], at: tuple[str, ...] = (), array: bool = False) -> str:
    """Tables as TOML text. ``None`` is left out, as TOML has none."""
    values, tables = [], []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append(to_toml(value, (*at, key)))
        elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
            tables.extend(to_toml(v, (*at, key), array=True) for v in value)
        elif value is not None:
            values.append(f"{dotted_key((key,))} = {_toml_value(value)}\n")
    name = dotted_key(at)
    header = (
        ""
        if not at or not (values or array or not tables)
        else f"\n[[{name}]]\n"
        if array
        else f"\n[{name}]\n"
    )
    return header + "".join(values) + "".join(tables)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{dotted_key((k,))} = {_toml_value(v)}" for k, v in value.items() if v is not None)
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
