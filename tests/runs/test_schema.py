"""The recorded files' types: what was read is written back byte for byte, new keys are kept, damage is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from olmes_suite.errors import DataError, OlmesError, UsageError
from olmes_suite.evaluation.evaluate import evaluate
from olmes_suite.evaluation.plan import Options
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.runs import baseline
from olmes_suite.runs.schema import (
    LINEAGE,
    MANIFEST,
    RESULTS,
    Lineage,
    Manifest,
    Metric,
    Results,
    TaskResult,
    instances_file,
    read_baseline_file,
    read_instances,
    read_lineage,
    read_manifest,
    read_results,
    read_rows,
    write_baseline_file,
    write_instances,
    write_lineage,
    write_manifest,
    write_results,
)
from olmes_suite.runs.schema.json_schema import FILES, json_schema, write_schemas
from olmes_suite.runs.scores import read_run
from olmes_suite.tasks.documents import DataSource

RECORDED = Path(__file__).parent / "recorded"
"""Files of the version before they had types: a run with a lineage and a task that failed, a floor, an import."""
SCHEMAS = Path(__file__).parents[2] / "docs/schemas"
RUNS = ("run", "floor", "imported")


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_is_written_back_byte_for_byte(name: str, tmp_path: Path) -> None:
    run = RECORDED / name
    write_results(tmp_path, read_results(run))
    write_manifest(tmp_path, read_manifest(run))
    for file in (RESULTS, MANIFEST):
        assert (tmp_path / file).read_bytes() == (run / file).read_bytes()


@pytest.mark.parametrize("file", sorted(RECORDED.glob("*/instances/*.parquet")), ids=lambda file: file.stem)
def test_recorded_documents_are_written_back(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.parquet"
    write_instances(copy, list(read_rows(file)))
    new, old = pq.ParquetFile(copy), pq.ParquetFile(file)
    assert new.schema_arrow.equals(old.schema_arrow) and new.read().equals(old.read())
    if new.metadata.created_by == old.metadata.created_by:
        assert copy.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["baseline.json", "baseline-imported.json"])
def test_a_recorded_baseline_is_written_back_byte_for_byte(name: str, tmp_path: Path) -> None:
    write_baseline_file(tmp_path / name, read_baseline_file(RECORDED / name))
    assert (tmp_path / name).read_bytes() == (RECORDED / name).read_bytes()
    run = RECORDED / ("imported" if "imported" in name else "run")
    baseline.save(read_run(run), tmp_path / "new.json")
    assert (tmp_path / "new.json").read_bytes() == (RECORDED / name).read_bytes()


def test_a_recorded_lineage_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    write_lineage(tmp_path / LINEAGE, read_lineage(RECORDED / LINEAGE))
    assert (tmp_path / LINEAGE).read_bytes() == (RECORDED / LINEAGE).read_bytes()


def test_a_user_s_lineage_gains_no_keys() -> None:
    given = {"parent": "base", "flags": {"t": [1]}, "note": "mine"}
    assert Lineage.from_json(given).as_json() == given


def edited(tmp_path: Path, file: str, change: Any) -> Path:
    """A copy of the recorded run with one file changed."""
    run = tmp_path / "run"
    shutil.copytree(RECORDED / "run", run)
    content = json.loads((run / file).read_text())
    change(content)
    (run / file).write_text(json.dumps(content))
    return run


def test_keys_of_a_later_version_are_kept(tmp_path: Path) -> None:
    def grow(content: dict[str, Any]) -> None:
        content["stopped"] = {"verdict": "pass"}
        entry = content["tasks"]["tulu3_gsm8k"]
        entry["completed"] = {"value": 0.5, "n": 2}
        entry["metrics"]["exact_match"]["df"] = None
        content["schema"] = "1.7"

    run = edited(tmp_path, RESULTS, grow)
    before = json.loads((run / RESULTS).read_text())
    write_results(run, read_results(run).but(version=2))
    assert json.loads((run / RESULTS).read_text()) == {**before, "version": 2}


def test_null_and_absent_stay_apart() -> None:
    absent, null = ({"tasks": {}, "plan": [], **more} for more in ({}, {"judge": None, "git": None}))
    assert Manifest.from_json(absent).as_json() == absent and Manifest.from_json(null).as_json() == null


@pytest.mark.parametrize("file", [RESULTS, MANIFEST])
def test_a_newer_major_version_is_refused(file: str, tmp_path: Path) -> None:
    run = edited(tmp_path, file, lambda content: content.update(schema="2.0"))
    with pytest.raises(UsageError, match=r"newer olmes-suite \(schema 2\.0, this one reads 1\.0\): upgrade"):
        read_run(run)
    (tmp_path / "b.json").write_text('{"schema": "2.0", "tasks": {"t": {}}}')
    with pytest.raises(UsageError, match="newer olmes-suite"):
        read_baseline_file(tmp_path / "b.json")
    (tmp_path / "l.json").write_text('{"schema": "2.0"}')
    with pytest.raises(UsageError, match="newer olmes-suite"):
        read_lineage(tmp_path / "l.json")


def drop(*path: str) -> Any:
    """Takes a key out."""

    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def put(value: Any, *path: str) -> Any:
    """Puts a value in a key's place."""

    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (RESULTS, drop("schema"), "it has no `schema`"),
        (RESULTS, drop("run"), "results.json is damaged (KeyError: 'run')"),
        (RESULTS, put(5, "model"), "results.json is damaged (TypeError: model is 5)"),
        (RESULTS, put("x", "tasks", "tulu3_gsm8k", "n"), "results.json is damaged (TypeError: n is 'x')"),
        (RESULTS, put(True, "tasks", "tulu3_gsm8k", "metrics", "exact_match", "value"), "value is True"),
        (RESULTS, put([1], "tasks", "tulu3_gsm8k", "metrics", "exact_match", "ci95"), "ci95 is [1]"),
        (MANIFEST, drop("plan"), "manifest.json is damaged (KeyError: 'plan')"),
        (MANIFEST, put([{}], "plan"), "manifest.json is damaged (KeyError: 'task')"),
        (MANIFEST, put("all", "limit"), "limit is 'all'"),
        (MANIFEST, put({"a": 1}, "lineage", "flags"), "flags: a is 1"),
    ],
)
def test_a_damaged_file_is_one_line(file: str, change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(OlmesError) as caught:
        read_run(edited(tmp_path, file, change))
    assert isinstance(caught.value, DataError) and said in str(caught.value) and "\n" not in str(caught.value)


def test_a_group_is_a_top_task_and_its_parts_are_not() -> None:
    part = TaskResult(n=1, primary="m", metrics={"m": Metric(value=0.5)}, fingerprint={"prompt": "p"})
    tasks = {"g": TaskResult(n=1, primary="m", subtasks=("a",)), "a": part, "b": part}
    found = Results(run="r", model="m", tasks=tasks)
    assert list(found.top_tasks) == ["g", "b"] and found.leaves("g") == found.leaves("b") == [part]


def test_the_schemas_are_up_to_date(tmp_path: Path) -> None:
    written = write_schemas(tmp_path)
    assert {path.name for path in written} == {path.name for path in SCHEMAS.iterdir()}
    for path in written:
        assert path.read_text() == (SCHEMAS / path.name).read_text(), "run `python -m olmes_suite.runs.schema`"


TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def check(value: Any, schema: dict[str, Any], parts: dict[str, Any], where: str = "") -> None:
    """Raise AssertionError unless the value has the form that the schema asks for."""
    if "$ref" in schema:
        return check(value, parts[schema["$ref"].rpartition("/")[2]], parts, where)
    if "anyOf" in schema:
        wanted = [inner for inner in schema["anyOf"] if (inner == {"type": "null"}) == (value is None)]
        return check(value, wanted[0], parts, where)
    if (kinds := schema.get("type")) is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        fits = [value is None if kind == "null" else isinstance(value, TYPES[kind]) for kind in kinds]
        assert any(fits) and (not isinstance(value, bool) or "boolean" in kinds), (where, value, kinds)
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), (where, value)
        rest = schema.get("additionalProperties", {})
        for key, inner in value.items():
            check(inner, schema.get("properties", {}).get(key, rest), parts, f"{where}/{key}")
    if isinstance(value, list):
        inside = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
        assert len(inside) == len(value), (where, value)
        for inner, wanted in zip(value, inside, strict=True):
            check(inner, wanted, parts, where)
    return None


def valid(value: Any, name: str) -> None:
    schema = json_schema(FILES[name])
    check(value, schema, schema["$defs"])


class Quiet:
    """A watcher that shows nothing."""

    def note(self, text: str) -> None: ...

    def start(self, plans: object) -> None: ...

    def advance(self, task: str, documents: int, tokens: int) -> None: ...

    def stop(self) -> None: ...


def test_the_files_of_a_run_fit_their_schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLMES_CACHE", str(tmp_path / "cache"))
    lineage = {"parent": "base", "flags": {"tulu3_gsm8k": [0, 1]}, "short": {"tulu3_gsm8k": [1]}}
    (tmp_path / "l.json").write_text(json.dumps(lineage))
    options = Options(
        "", "mock", task_names=("gsm8k", "truthfulqa", "alpaca_eval"), source=DataSource(sample=True), limit=3,
        runs=tmp_path / "runs", lineage=tmp_path / "l.json",
    )  # fmt: skip
    done = evaluate(options, lambda *_: MockBackend(), Quiet())
    assert (done.results, done.manifest) == (read_results(done.path), read_manifest(done.path))
    valid(json.loads((done.path / RESULTS).read_text()), "results")
    valid(json.loads((done.path / MANIFEST).read_text()), "manifest")
    valid(done.manifest.lineage.as_json(), "lineage")
    rows = read_instances(instances_file(done.path, "tulu3_gsm8k")).to_pylist()
    assert len(rows) == 3 and "contaminated_short" in rows[0]
    for row in rows:
        valid(row, "instance")
    baseline.save(read_run(done.path), tmp_path / "b.json")
    valid(json.loads((tmp_path / "b.json").read_text()), "baseline")


@pytest.mark.parametrize("name", RUNS)
def test_recorded_files_fit_their_schemas(name: str) -> None:
    valid(json.loads((RECORDED / name / RESULTS).read_text()), "results")
    valid(json.loads((RECORDED / name / MANIFEST).read_text()), "manifest")
    valid(json.loads((RECORDED / LINEAGE).read_text()), "lineage")
    with pytest.raises(AssertionError):
        valid({"schema": "1.0", "run": "r", "model": "m", "tasks": {"t": {"n": "x"}}}, "results")
