"""The tool as a rollout uses it, and how it reads what a model writes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy_answers import answer

from cort_framework import (
    OpenContext,
    Outcome,
    RequestError,
    RolloutRequest,
    RolloutSettings,
    Task,
    ToolCall,
    ToolResult,
)
from cort_framework.rollout import RolloutSetup, rollout
from cort_framework.testing import ToolCase, check_tool_conformance, scripted_engine
from cort_python.tool import PythonTool
from cort_sympy.expressions import read
from cort_sympy.operations import operations
from cort_sympy.tool import SympyTool


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, SympyTool]]:
    with asyncio.Runner() as runner:
        tool = SympyTool(SympyTool.Config(timeout_s=2, concurrency=1))
        runner.run(tool.open(OpenContext(scratch=tmp_path_factory.mktemp("scratch"))))
        yield runner, tool
        runner.run(tool.close())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("solve(x**2 - 2, x)", "[-sqrt(2), sqrt(2)]"),
        ("solve(x^2 == 4)", "[-2, 2]"),
        ("solve([x + y - 3, x - y == 1], [x, y])", "[{x: 2, y: 1}]"),
        ("simplify(sin(x)**2 + cos(x)**2)", "1"),
        ("expand((x + 1)^3)", "x**3 + 3*x**2 + 3*x + 1"),
        ("factor(x**4 - 1)", "(x - 1)*(x + 1)*(x**2 + 1)"),
        ("apart(1/(x*(x + 1)))", "-1/(x + 1) + 1/x"),
        ("subs(x**2 + y, x, 3)", "y + 9"),
        ("is_equal((x + 1)**2, x**2 + 2*x + 1)", "True"),
        ("diff(x**3, x, 2)", "6*x"),
        ("differentiate(x**3, x)", "3*x**2"),
        ("integrate(sin(x)**2, x, 0, pi)", "pi/2"),
        ("integrate(1/x, x)", "log(x)"),
        ("limit((1 + 1/n)**n, n, oo)", "E"),
        ("series(exp(x), x, 0, 3)", "1 + x + x**2/2 + O(x**3)"),
        ("summation(1/k**2, k, 1, oo)", "pi**2/6"),
        ("product(k, k, 1, 10)", "3628800"),
        ("evaluate(0.5 + 1/3)", "5/6"),
        ("evaluate(binomial(50, 25))", "126410606437752"),
        ("N(pi, digits=30)", "3.14159265358979323846264338328"),
        ("factorint(360)", "{2: 3, 3: 2, 5: 1}"),
        ("isprime(2**61 - 1)", "True"),
        ("nextprime(100)", "101"),
        ("divisors(28)", "[1, 2, 4, 7, 14, 28]"),
        ("totient(36)", "12"),
        ("gcd(12, 18, 30)", "6"),
        ("lcm(4, 6)", "12"),
        ("mod_power(3, 1000, 7)", "4"),
        ("mod_inverse(3, 11)", "4"),
        ("crt([3, 5, 7], [2, 3, 2])", "(23, 105)"),
        ("det([[1, 2], [3, 4]])", "-2"),
        ("inverse([[1, 2], [3, 4]])", "[[-2, 1], [3/2, -1/2]]"),
        ("eigenvalues([[2, 0], [0, 3]])", "{2: 1, 3: 1}"),
        ("rank([[1, 2], [2, 4]])", "1"),
        ("rref([[1, 2], [3, 4]])", "[[1, 0], [0, 1]]"),
        ("matrix_power([[1, 1], [1, 0]], 30)", "[[1346269, 832040], [832040, 514229]]"),
        ("gcd(12, 18)\nisprime(7)", "6\nTrue"),
        ('{"operation": "factorint", "n": 91}', "{7: 1, 13: 1}"),
    ],
)
def test_operations_give_what_sympy_gives(code: str, text: str) -> None:
    assert answer(code) == (text, None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("integrat(x, x)", "there is no operation 'integrat'; did you mean integrate?"),
        ("integrate(x)", "integrate: variable: Field required"),
        ("integrate(x, 3)", "integrate: variable: a variable is expected, not 3"),
        ("isprime(1, 2)", "isprime: too many positional arguments"),
        ("gcd(1, 2) + 1", "line 1: after gcd(…) comes nothing more; write one call a line"),
        (
            "expand(2x)",
            "expand: expression: '2x' is no expression: invalid decimal literal; products are written with *, as in 2*x",
        ),
        (
            "solve(x**2 = 4, x)",
            "solve: equations: 'x**2 = 4' is no expression: an equation is written with ==",
        ),
        ("evaluate(5!)", "evaluate: expression: '5!' is no expression: a factorial is written factorial(n)"),
        (
            "evaluate(\\frac{1}{2})",
            "evaluate: expression: '\\\\frac{1}{2}' is no expression: it is written in LaTeX; write it as in Python, sqrt(2)/3",
        ),
        (
            "evaluate(arcsine(1))",
            "evaluate: expression: there is no function 'arcsine'; did you mean arcsin?",
        ),
        ("distance([0, 0], 3)", "distance: b: a point is expected as [x, y], not 3"),
        ("limit(x, x, 0, left)", "limit: side: Input should be 'both', 'above' or 'below'"),
        ("subs(x + y, [x, y], [1])", "ValueError: there are 2 variables but 1 values"),
        (
            f"evaluate({'(' * 5000}1{')' * 5000})",
            "evaluate: expression: '"
            + "(" * 40
            + " … "
            + ")" * 30
            + "' is no expression: too many nested parentheses",
        ),
        (f"evaluate({'1+' * 60_000}1)", "a call has at most 100,000 characters; this one has 120,011"),
        ("isprime(1/2)", "isprime: n: a whole number is expected, not 1/2"),
        ("det([1, [2]])", "det: matrix: a matrix is expected as [[1, 2], [3, 4]], not [1, [2]]"),
        ("inverse([[1, 2], [2, 4]])", "NonInvertibleMatrixError: Matrix det == 0; not invertible."),
        ("x = 3", "line 1: write operation(argument, …), one call a line"),
        ("", "there is no call"),
        (
            "{broken",
            "this is no JSON object: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ('{"n": 3}', 'the arguments must be an object with the key "operation"'),
        (
            '{"operation": "isprime", "m": "3"}',
            "isprime: n: Field required; m: Extra inputs are not permitted",
        ),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(code: str, error: str) -> None:
    assert answer(code)[1] == error
    assert answer(code)[0].startswith("error: ")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id')",
        "x.__class__",
        "open(1)",
        "eval(1)",
        "(lambda: 1)()",
        "[y for y in x]",
        "x[0]",
        "f'{x}'",
        "sympify(1)",
        "x := 3",
        "sin(x, evaluate=False)",
    ],
)
def test_an_expression_runs_no_code(text: str) -> None:
    with pytest.raises(ValueError):
        read(text)


LEAVES = st.one_of(st.integers(0, 9).map(str), st.sampled_from("xyz"))
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
)


@given(EXPRESSIONS)
@settings(max_examples=60, deadline=None)
def test_expressions_are_read_as_sympys_own_parser_reads_them(text: str) -> None:
    from sympy import parse_expr

    assert read(text) == parse_expr(text)


def test_a_call_that_takes_too_long_costs_no_other_and_long_results_keep_both_ends(
    opened: tuple[asyncio.Runner, SympyTool],
) -> None:
    runner, tool = opened

    def ask(**call: Any) -> ToolResult:
        return runner.run(tool.call(ToolCall("sympy", **call)))

    hung = ask(code="evaluate(10**10**10)")
    assert (hung.outcome, hung.text) == (Outcome.TIMEOUT, "[no result within 2 s]")
    native = ask(arguments={"operation": "diff", "expression": "x**3", "variable": "x", "order": None})
    assert (native.outcome, native.text) == (Outcome.OK, "3*x**2")
    listed = ask(
        arguments={"operation": "solve", "equations": ["x + y == 3", "x == y"], "variables": ["x", "y"]}
    )
    assert listed.text == "[{x: 3/2, y: 3/2}]"
    assert ask(arguments={"operation": "det", "matrix": [[1, 2], [3, 4]]}).text == "-2"
    assert ask(arguments={"operation": "isprime", "n": [1]}).outcome is Outcome.PROGRAM_ERROR
    long = ask(code="evaluate(2**20000)")
    assert long.outcome is Outcome.OK and long.dropped_characters == 5221
    deep = ask(code=f"evaluate({'-' * 90_000}1)")
    assert deep.outcome in (Outcome.PROGRAM_ERROR, Outcome.RESOURCE_LIMIT)


def test_a_call_that_takes_too_much_memory_is_a_resource_limit(tmp_path: Path) -> None:
    async def run() -> ToolResult:
        tool = SympyTool(SympyTool.Config(memory_mb=200))
        await tool.open(OpenContext(scratch=tmp_path))
        try:
            return await tool.call(ToolCall("sympy", "primes(1, 10)\nexpand((a + b + c + d + e)**200)"))
        finally:
            await tool.close()

    result = asyncio.run(run())
    assert result.outcome in (Outcome.RESOURCE_LIMIT, Outcome.TIMEOUT), result


def test_the_tool_keeps_the_contract_of_tools() -> None:
    check_tool_conformance(
        ToolCase(
            SympyTool,
            works="gcd(12, 18)",
            text="6",
            native={"operation": "gcd", "numbers": ["12", "18"]},
            fails="gcd(12, eighteen(1))",
            hangs="evaluate(10**10**10)",
            limit_s=2,
            floods="evaluate(2**20000)",
            config={"timeout_s": 2},
        )
    )


# --- native calls, end to end -----------------------------------------------------------------------------------
def tool_call(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def test_a_rollout_with_native_calls_gets_answers_and_is_told_what_is_wrong(
    opened: tuple[asyncio.Runner, SympyTool],
) -> None:
    runner, tool = opened
    said = [
        tool_call("sympy", operation="integrate", expression="x**2", variable="x", lower="0", upper="3"),
        '<tool_call>{"name": "sympy", "arguments": {"operation": "gcd",</tool_call>',
        tool_call("simpy", operation="gcd"),
        tool_call("sympy", operation="integrat", expression="x"),
        tool_call("sympy", operation="isprime", n="7.5"),
        "So</think>9",
    ]

    def script(prompt: str, response: str) -> str:
        done = response.rpartition("</tool_response>\n")
        stretch = said[response.count("</tool_response>")]
        return stretch[len(done[2]) :]

    setup = RolloutSetup(
        scripted_engine(script)(),
        {"sympy": tool},
        RolloutSettings(max_tokens=9999),
        "{tools}\n{problem}<think>",
    )
    (trajectory,) = runner.run(rollout(RolloutRequest(Task("t", "What is the area?")), setup))
    assert trajectory.error is None and trajectory.finished
    assert '"name": "sympy"' in trajectory.prompt
    results = [turn.result for turn in trajectory.calls]
    assert [r.outcome for r in results if r] == [Outcome.OK] + [Outcome.PROGRAM_ERROR] * 4
    texts = [turn.text for turn in trajectory.calls]
    assert texts[0] == "\n<tool_response>\n9\n</tool_response>\n"
    for text, told in zip(
        texts[1:],
        (
            "the tool call is not valid JSON",
            "there is no tool 'simpy'; did you mean 'sympy'?",
            "there is no operation 'integrat'; did you mean integrate?",
            "isprime: n: a whole number is expected, not 7.5",
        ),
        strict=True,
    ):
        assert told in text
    assert type(trajectory).from_json(trajectory.to_json()) == trajectory


def test_a_recipe_may_keep_the_tool_to_some_operations() -> None:
    tool = SympyTool(SympyTool.Config(only=("gcd", "factorization")))
    shapes = tool.parameters["anyOf"]
    assert [shape["properties"]["operation"]["const"] for shape in shapes] == ["gcd", "factorint"]

    result = operations.answer({"code": "lcm(4, 6)", "output_limit": 800, "only": ["gcd"]})
    assert result["text"] == "error: there is no operation 'lcm'\noperations: gcd"
    misspelt = SympyTool(SympyTool.Config(only=("gdc",)))
    with pytest.raises(RequestError, match="only: there is no operation 'gdc'; did you mean gcd"):
        misspelt.preflight()


def test_the_native_schema_names_every_operation_and_is_json() -> None:
    schema = json.loads(json.dumps(SympyTool.parameters))
    by_name = {entry["properties"]["operation"]["const"]: entry for entry in schema["anyOf"]}
    assert by_name["integrate"]["required"] == ["operation", "expression", "variable"]
    assert len(by_name) > 100


def test_every_operation_has_an_example_and_a_line_of_help() -> None:
    # that the examples work shows wherever the tool opens: it warms itself with them
    for operation in operations:
        assert operation.help.endswith(".") and operation.example.startswith(f"{operation.name}(")


def test_the_readme_names_every_operation_and_shows_what_a_call_gives() -> None:
    readme = (Path(__file__).parents[3] / "plugins" / "cort-sympy" / "README.md").read_text("utf-8")
    rows = " ".join(re.findall(r"^\| .* \| (`.*`) \|$", readme, re.MULTILINE))
    assert set(re.findall(r"\w+", rows)) == {operation.name for operation in operations}
    code, output = re.findall(r"```(?:sympy|output)\n(.*?)\n```", readme, re.DOTALL)
    assert answer(code)[0] == output


def test_listing_the_tool_and_making_its_schema_imports_no_sympy() -> None:
    code = "import sys, cort_sympy; cort_sympy.cort_tools()[0].parameters; print('sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_beside_the_python_tool_sympy_is_there_before_a_session_starts(tmp_path: Path) -> None:
    async def run() -> ToolResult:
        tool = PythonTool()
        await tool.open(OpenContext(scratch=tmp_path, preload=SympyTool.preload))
        try:
            async with tool.session(Task("t", "p"), trajectory_id="a", seed=0) as session:
                return await session.call(
                    ToolCall("python", "import sys\nprint('sympy' in sys.modules)\nimport sympy")
                )
        finally:
            await tool.close()

    assert asyncio.run(run()).text == "True"
