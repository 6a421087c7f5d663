"""The README.md of a run: its figures as tables, curves only where there is more than a point."""

from __future__ import annotations

from cort_framework.recipe import load_recipe, make_plan
from cort_framework.runs.folder import model_card

RESULT = {
    "name": "m",
    "test_set": "amc23",
    "tasks": 2,
    "samples_per_task": 2,
    "accuracy": 0.5,
    "accuracy_ci": [0.25, 0.75],
    "tokens": 1234.5,
    "tool_calls": 1.25,
    "pass_at_k": {"1": 0.5, "2": 1.0},
    "maj_at_k": {"1": 0.5, "2": 0.5},
}


def card(*results: dict[str, object]) -> str:
    return model_card(make_plan(load_recipe("benchmarks", "tiny")), [], results)


def test_curves_are_tables_with_a_column_a_point_and_a_row_a_system() -> None:
    cut = {**RESULT, "name": "n", "accuracy_within": {"4096": 0.25, "16384": 0.5}}
    text = card(RESULT, cut)
    assert "| m | amc23 | 2 | 2 | 0.5 | 0.25 to 0.75 | 1234 | 1.25 |" in text
    assert (
        "## pass@k\n\n| name | test_set | 1 | 2 |\n| --- | --- | --- | --- |\n| m | amc23 | 0.5 | 1 |\n"
        in text
    )
    within = text.partition("## Accuracy within so many tokens")[2]
    assert "| name | test_set | 4096 | 16384 |" in within and "| n | amc23 | 0.25 | 0.5 |" in within
    assert "| m | amc23 |  |  |" in within


def test_one_sample_a_task_makes_no_curve() -> None:
    one = {**RESULT, "pass_at_k": {"1": 0.5}, "maj_at_k": {"1": 0.5}}
    assert "##" not in card(one)
