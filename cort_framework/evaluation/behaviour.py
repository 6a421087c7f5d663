"""What a model does with its tools: each call is calculation or verification, and has a subject; by rule, from the text alone."""

from __future__ import annotations

import ast
import re
import warnings
from fractions import Fraction
from typing import Literal

from cort_framework.types import Outcome, ToolCall, Trajectory

# --- reading prose ----------------------------------------------------------------------------------------------
_FENCE = re.compile(r"^[ \t]*```([^\n`]*)$")
_NATIVE_CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)


def prose(trajectory: Trajectory) -> list[tuple[int, int]]:
    """The stretches of ``Trajectory.response`` that the model wrote and that are no code: neither a fenced block, by whomever
    it was opened, nor a native call."""
    response = trajectory.response
    own = bytearray(len(response))
    visible = []
    for turn, start, end in trajectory.segments():
        if turn.author == "model":
            own[start:end] = b"\x01" * (end - start)
        visible.append("\n" * (end - start) if turn.author == "tool" else turn.text)
    position, inside = 0, False
    text = "".join(visible)
    for line in re.findall(
        r"[^\n]*\n|[^\n]+", text
    ):  # splitlines() also breaks at separators that end no line here
        end = position + len(line)
        fence = _FENCE.match(line.rstrip("\r\n"))
        if fence or inside:
            own[position:end] = bytes(len(line))
        if fence:
            inside = bool(fence[1].strip())
        position = end
    for call in _NATIVE_CALL.finditer(text):
        own[call.start() : call.end()] = bytes(call.end() - call.start())
    return [match.span() for match in re.finditer(b"\x01+", own)]


_NUMBER = re.compile(r"(?<![\w.])[-−]?\d{1,1000}(?:(?:,|\{,\})\d{3}){0,20}(?:\.\d{1,1000})?(?!\d)")
_STATES = re.compile(
    r"(?:[=≡≈{]|\b(?:is|equals?|gives?|giving|gets?|got|makes?|so|total|answer|result|exactly))\W{0,3}$"
)


def numbers(text: str) -> list[tuple[int, Fraction]]:
    """Each number in the text with its position, thousands separators understood."""
    return [
        (match.start(), Fraction(re.sub(r"[{,}]", "", match[0]).replace("−", "-")))
        for match in _NUMBER.finditer(text)
    ]


Label = Literal["calculation", "verification"]


def label_calls(trajectory: Trajectory) -> list[Label | None]:
    """One label a call (paper, code behaviour): ``calculation`` where its result was not known before, ``verification``
    where it was; ``None`` for a call that gave no result, because it failed.

    A call's result is the last number that it printed. It was known if the model's prose had stated it, or an earlier call
    had returned it. A number of one or two digits, or one of the problem's own, is common enough to stand there by chance:
    it counts only as the end of a statement (``= 12``, ``giving 12``). A call that prints nothing but a truth value checks.
    """
    response = trajectory.response
    own = prose(trajectory)
    given = {value for _, value in numbers(trajectory.task.prompt)}
    returned: set[Fraction] = set()
    labels: list[Label | None] = []
    for turn, start, _ in trajectory.segments():
        if turn.author != "tool" or turn.result is None:
            continue
        if turn.result.outcome != Outcome.OK:
            labels.append(None)
            continue
        printed = numbers(turn.result.text)
        if not printed:
            labels.append("verification" if turn.result.text.strip() in ("True", "False") else "calculation")
            continue
        result = printed[-1][1]
        before = "\n".join(response[a : min(b, start)] for a, b in own if a < start)
        known = result in returned or any(
            value == result
            and ((_telling(value) and value not in given) or _STATES.search(before[max(0, at - 24) : at]))
            for at, value in numbers(before)
        )
        labels.append("verification" if known else "calculation")
        returned.add(result)
    return labels


def _telling(value: Fraction) -> bool:
    return abs(value) >= 100 or value.denominator > 1


# --- what a call does -------------------------------------------------------------------------------------------
Subject = Literal[
    "chemistry",
    "plotting",
    "units",
    "data",
    "simulation",
    "linear algebra",
    "number theory",
    "symbolic",
    "enumeration",
    "arithmetic",
]

_SUBJECTS: dict[Subject, frozenset[str]] = {
    "chemistry": frozenset(
        ["rdkit", "Chem", "AllChem", "Descriptors", "rdMolDescriptors", "chempy", "pubchempy", "openbabel"]
    ),
    "plotting": frozenset(["matplotlib", "plt", "pyplot", "seaborn", "plotly", "plot", "plot3d", "bokeh"]),
    "units": frozenset(["pint", "UnitRegistry", "convert_to", "units", "constants", "astropy"]),
    "data": frozenset(
        [
            "pandas",
            "DataFrame",
            "read_csv",
            "csv",
            "statistics",
            "mean",
            "median",
            "stdev",
            "pstdev",
            "variance",
            "std",
            "var",
            "percentile",
            "quantile",
            "histogram",
            "corrcoef",
        ]
    ),
    "simulation": frozenset(
        [
            "random",
            "randint",
            "uniform",
            "gauss",
            "shuffle",
            "default_rng",
            "randn",
            "monte_carlo",
            "simulate",
        ]
    ),
    "linear algebra": frozenset(
        [
            "linalg",
            "Matrix",
            "matrix",
            "det",
            "inv",
            "eig",
            "eigvals",
            "eigenvals",
            "eigenvects",
            "rank",
            "nullspace",
            "rref",
            "dot",
            "cross",
            "matmul",
        ]
    ),
    "number theory": frozenset(
        [
            "gcd",
            "lcm",
            "igcd",
            "ilcm",
            "isprime",
            "is_prime",
            "primerange",
            "primefactors",
            "prime_factors",
            "nextprime",
            "prevprime",
            "primepi",
            "prime",
            "factorint",
            "totient",
            "phi",
            "divisors",
            "divisor_count",
            "divisor_sigma",
            "sigma",
            "mod_inverse",
            "crt",
            "n_order",
            "digits",
            "bin",
            "oct",
            "hex",
            "to_base",
            "from_base",
            "fibonacci",
        ]
    ),
    "symbolic": frozenset(
        [
            "symbols",
            "Symbol",
            "Eq",
            "solve",
            "solveset",
            "nsolve",
            "dsolve",
            "simplify",
            "expand",
            "factor",
            "collect",
            "diff",
            "integrate",
            "limit",
            "series",
            "Poly",
            "subs",
            "apart",
            "together",
            "cancel",
            "summation",
            "Sum",
            "Product",
            "Rational",
            "Integral",
            "Derivative",
        ]
    ),
    "enumeration": frozenset(
        ["itertools", "permutations", "combinations", "product", "accumulate", "comb", "perm", "binomial"]
    ),
}
"""What a program's names tell of it. The first subject that one of its names belongs to is the program's."""

_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def subject(call: ToolCall) -> Subject:
    """What a call does. A native call is told by its tool's name and its arguments; a program by the names that it imports,
    calls and reaches into, then by whether it goes through many cases. The rest is arithmetic."""
    if call.code is None:
        words = {call.tool, *(str(v) for v in (call.arguments or {}).values())}
        return (
            _by_names({word for text in words for word in re.findall(r"[A-Za-z_]\w*", text)}) or "arithmetic"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of invalid escapes and the like
            tree = ast.parse(call.code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a magic, or no Python at all
        return _by_names(set(re.findall(r"[A-Za-z_]\w*", call.code))) or "arithmetic"
    names: set[str] = set()
    defined: set[str] = set()
    loops = False
    for node in ast.walk(tree):
        loops = loops or isinstance(node, _LOOPS)
        if isinstance(node, ast.Import):
            names.update(part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            names.update((node.module or "").split("."))
        elif isinstance(node, ast.FunctionDef):
            defined.add(node.name)
            loops = loops or any(_calls(inner) == node.name for inner in ast.walk(node))
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and (name := _calls(node)) is not None:
            names.add(name)
            if (name == "pow" and len(node.args) == 3) or (name == "int" and len(node.args) == 2):
                names.add("gcd")  # powers modulo a number, digits in a base
    return _by_names(names - defined) or ("enumeration" if loops else "arithmetic")


def _calls(node: ast.AST) -> str | None:
    """The bare name that a call calls."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def _by_names(names: set[str]) -> Subject | None:
    return next((kind for kind, words in _SUBJECTS.items() if names & words), None)
