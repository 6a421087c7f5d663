"""Charts of results: what is drawn, where, and that it is SVG."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from cort_framework.evaluation.curves import HEIGHT, LEFT, TOP, WIDTH, chart, write_curves

SVG = "{http://www.w3.org/2000/svg}"


def test_a_curve_stands_where_its_values_are() -> None:
    root = ElementTree.fromstring(
        chart("T <&>", "k", {"a & b": [(1, 0.0), (2, 0.5), (4, 1.0)], "c": [(4, 1.0)]})
    )
    first, second = root.findall(f"{SVG}polyline")
    corners = [tuple(map(float, p.split(","))) for p in first.attrib["points"].split()]
    assert corners == [(LEFT, TOP + HEIGHT), (LEFT + WIDTH / 2, TOP + HEIGHT / 2), (LEFT + WIDTH, TOP)]
    assert second.attrib["points"] == f"{LEFT + WIDTH:.1f},{TOP:.1f}"
    labels = {
        t.text: float(t.attrib["y"]) for t in root.findall(f"{SVG}text") if t.text and "100.0%" in t.text
    }
    assert set(labels) == {"a & b: 100.0%", "c: 100.0%"}
    assert abs(labels["a & b: 100.0%"] - labels["c: 100.0%"]) >= 16  # two names at one height are moved apart


def test_a_run_gets_the_charts_that_its_results_have_points_for(tmp_path: Path) -> None:
    record = {"name": "m", "test_set": "t", "pass_at_k": {"1": 0.5}}
    assert write_curves(tmp_path, [record]) == []
    record |= {"pass_at_k": {"1": 0.25, "2": 0.5}, "accuracy_within": {"256": 0.1, "512": 0.2}}
    assert [p.name for p in write_curves(tmp_path, [record])] == ["pass-at-k.svg", "accuracy-within.svg"]
    for path in tmp_path.glob("*.svg"):
        assert "m, t" in path.read_text() and ElementTree.parse(path).getroot().tag == f"{SVG}svg"
