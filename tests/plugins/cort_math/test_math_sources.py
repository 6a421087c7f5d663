"""Tasks from files: what is read, and what is said about what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cort_framework.errors import TaskError
from cort_math.benchmarks import HUB, BenchmarkSource
from cort_math.sources import HuggingFaceSource, JsonlSource

GOOD = [
    {"id": "a", "prompt": "1+1?", "answer": "2", "level": 3},
    {"id": "b", "prompt": "half?", "answer": "\\frac{1}{2}"},
    {"id": "c", "prompt": "solve", "answer": "So it is \\boxed{7}, and \\boxed{\\sqrt{2}} is the end."},
    {"id": "d", "prompt": "number", "answer": 5},
]


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "tasks.jsonl"
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", "utf-8"
    )
    return path


def jsonl(path: Path, **settings: Any) -> JsonlSource:
    return JsonlSource(JsonlSource.Config(path=path, **settings))


def test_a_file_gives_its_tasks_in_order_with_other_fields_as_metadata(tmp_path: Path) -> None:
    tasks = list(jsonl(written(tmp_path, *GOOD)).tasks())
    assert [(t.id, t.answer) for t in tasks] == [
        ("a", "2"),
        ("b", "\\frac{1}{2}"),
        ("c", "\\sqrt{2}"),
        ("d", "5"),
    ]
    assert tasks[0].metadata == {"level": 3}
    assert [t.id for t in jsonl(written(tmp_path, *GOOD), limit=2).tasks()] == ["a", "b"]


def test_fields_may_have_other_names_and_ids_may_be_missing(tmp_path: Path) -> None:
    path = written(tmp_path, {"problem": "1+1?", "solution": "2"}, "", {"problem": "2+2?", "solution": "4"})
    tasks = list(jsonl(path, prompt="problem", answer="solution").tasks())
    assert [(t.id, t.prompt) for t in tasks] == [("tasks-0", "1+1?"), ("tasks-1", "2+2?")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{not json}", r"line 2, column 2: not JSON"),
        ("[1, 2]", r"line 2: a task is a JSON object, not list"),
        ({"id": "x", "answer": "1"}, r"line 2: there is no prompt in the field 'prompt'"),
        ({"id": "x", "prompt": "p"}, r"line 2: there is no answer in the field 'answer'"),
        ({"id": "x", "prompt": "p", "answer": " "}, r"line 2: there is no answer in the field 'answer'"),
        ({"id": "a", "prompt": "p", "answer": "1"}, r"line 2: the id 'a' was already used at .*line 1"),
        (
            {"id": "x", "prompt": "p", "answer": "\\frac{"},
            r"line 2: the answer '\\\\frac\{' cannot be graded",
        ),
        ({"id": "x", "prompt": "p", "answer": "???"}, r"line 2: the answer '\?\?\?' cannot be graded"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path: Path, bad: Any, message: str) -> None:
    path = written(tmp_path, GOOD[0], bad, GOOD[1])
    with pytest.raises(TaskError, match=message) as caught:
        list(jsonl(path).tasks())
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_file_that_is_missing_or_empty_or_no_text_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="No such file"):
        list(jsonl(tmp_path / "none.jsonl").tasks())
    with pytest.raises(TaskError, match="there are no tasks"):
        list(jsonl(written(tmp_path, "")).tasks())
    (tmp_path / "binary.jsonl").write_bytes(b'{"prompt": "\xff\xfe"}\n')
    with pytest.raises(TaskError, match="line 1: not UTF-8 text"):
        list(jsonl(tmp_path / "binary.jsonl").tasks())


def test_answers_need_not_be_readable_where_the_recipe_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "p", "answer": "???"})
    assert [t.answer for t in jsonl(path, check_answers=False).tasks()] == ["???"]


def test_a_hugging_face_data_set_gives_its_tasks(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"question": ["1+1?", "half?"], "gold": ["2", "\\frac{1}{2}"], "level": [1, 2]}
    folder = tmp_path / "little"
    folder.mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(folder / "test.parquet")
    settings: dict[str, Any] = {
        "dataset": str(folder),
        "split": "test",
        "prompt": "question",
        "answer": "gold",
    }
    tasks = list(HuggingFaceSource(HuggingFaceSource.Config(**settings)).tasks())
    assert [(t.id, t.prompt, t.answer) for t in tasks] == [
        ("little-test-0", "1+1?", "2"),
        ("little-test-1", "half?", "\\frac{1}{2}"),
    ]
    assert tasks[1].metadata == {"level": 2}
    with pytest.raises(TaskError, match=r"row 0: there is no prompt in the field 'nothing'"):
        list(HuggingFaceSource(HuggingFaceSource.Config(**{**settings, "prompt": "nothing"})).tasks())
    with pytest.raises(TaskError, match=r"little', split 'dev'") as caught:
        list(HuggingFaceSource(HuggingFaceSource.Config(**{**settings, "split": "dev"})).tasks())
    assert caught.value.hint


def test_a_benchmark_comes_from_a_folder_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"id": "aime24-0", "prompt": "1+1?", "answer": "2"},
        {"id": 7, "prompt": "?", "answer": "odd words"},
    ]
    written(tmp_path, *rows).rename(tmp_path / "aime24.jsonl")
    monkeypatch.setenv("CORT_BENCHMARKS", str(tmp_path / "elsewhere"))
    source = BenchmarkSource(BenchmarkSource.Config(benchmark="aime24", folder=tmp_path))
    assert [(t.id, t.answer) for t in source.tasks()] == [("aime24-0", "2"), ("aime24-7", "odd words")]
    monkeypatch.setenv("CORT_BENCHMARKS", str(tmp_path))
    source = BenchmarkSource(BenchmarkSource.Config(benchmark="aime24", limit=1))
    assert [t.id for t in source.tasks()] == ["aime24-0"]
    with pytest.raises(TaskError, match=r"amc23\.jsonl: there is no such file") as caught:
        list(BenchmarkSource(BenchmarkSource.Config(benchmark="amc23")).tasks())
    assert "CORT_BENCHMARKS" in (caught.value.hint or "")


def test_without_hub_and_folder_the_way_to_a_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("CORT_BENCHMARKS", raising=False)

    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(TaskError, match="no route to the hub") as caught:
        list(BenchmarkSource(BenchmarkSource.Config(benchmark="aime25")).tasks())
    assert "CORT_BENCHMARKS" in (caught.value.hint or "") and "aime25.jsonl" in (caught.value.hint or "")


def test_every_benchmark_is_asked_of_the_hub_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("CORT_BENCHMARKS", raising=False)
    asked = []

    def load_dataset(
        name: str, subset: str | None, *, split: str, revision: str | None
    ) -> list[dict[str, Any]]:
        asked.append((name, subset, split))
        fields = next(h for h in HUB.values() if h["dataset"] == name)
        answer = ["1", "2"] if name.endswith("OlympiadBench") else "3"
        return [
            {
                fields.get("id", "id"): "x/1",
                fields.get("prompt", "problem"): "?",
                fields.get("answer", "answer"): answer,
            }
        ]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in HUB:
        (task,) = BenchmarkSource(BenchmarkSource.Config(benchmark=name)).tasks()
        assert (task.id, task.prompt) == (f"{name}-x/1", "?")
        assert task.answer == ("1, 2" if name == "olympiadbench" else "3")
    assert asked == [(h["dataset"], h.get("subset"), h["split"]) for h in HUB.values()]
