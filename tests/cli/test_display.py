"""The lines below the table of scores."""

from __future__ import annotations

import pytest

from olmes_suite.runs.schema import Engine, Manifest, Metric, ModelName, PlannedTask, Results, SuiteResult, TaskResult


def lines(tasks: dict[str, TaskResult], missing: tuple[str, ...] = (), **record: object) -> list[str]:
    from olmes_suite.cli.display import warnings

    plan = tuple(PlannedTask(task=name, primary="acc", aggregate="mean") for name in tasks)
    manifest = Manifest(run="r", model=ModelName(path="m"), engine=Engine(backend="hf"), tasks={}, plan=plan)
    results = Results(run="r", model="m", tasks=tasks, suites={"s": SuiteResult(missing=missing)})
    return warnings(results, manifest.but(**record))


def scored(n: int = 9, interval: tuple[float, float] | None = (0.1, 0.9), **more: object) -> TaskResult:
    metric = Metric(value=0.5, stderr=0.1, ci95=interval)
    return TaskResult(n=n, primary="acc", metrics={"acc": metric}).but(**more)


@pytest.mark.parametrize(
    ("missing", "words"), [(("a",), "1 of its tasks has no"), (("a", "b"), "2 of its tasks have no")]
)
def test_missing_tasks_of_a_suite(missing: tuple[str, ...], words: str) -> None:
    assert f"s: no average while {words} score" in lines({}, missing)


def test_a_score_without_an_interval_says_why() -> None:
    tasks = {"tulu3_a": scored(), "tulu3_b": scored(1, None), "c": scored(3, None, subtasks=("d",))}
    assert lines(tasks) == ["b, c: no interval (too few documents)"]
    assert lines(tasks, sample=True)[1:] == [
        "b: no interval (too few documents)",
        "c: no interval (sub-tasks share sample documents)",
    ]
    assert lines({"a": TaskResult(primary="acc", error="no data")}) == ["a: no data"]


@pytest.mark.parametrize(
    ("flag", "words"), [("judge_unparsed", "a judge's answer"), ("sandbox_error", "could not be run")]
)
def test_documents_that_could_not_be_judged_are_counted(flag: str, words: str) -> None:
    (line,) = lines({"a": scored(flags={flag: 2})})
    assert line.startswith("a: 2 of 9 documents have ") and words in line


@pytest.mark.parametrize(
    ("limit", "n", "words"),
    [(1, 1, "limited to 1 document of every"), (2, 14000, "below about 2 points;"), (2, 39200, "below about 1 point;")],
)
def test_a_limited_run(limit: int, n: int, words: str) -> None:
    (line,) = lines({"tulu3_gsm8k": scored(n)}, limit=limit)
    assert words in line
