"""What is known of a checkpoint's training data: scanned or not, inherited, counted beside the scores."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers import as_json, olmes_here, write_gsm8k

from olmes_suite import stats
from olmes_suite.errors import UsageError
from olmes_suite.evaluation import record
from olmes_suite.runs.contamination import Known, inherited, known
from olmes_suite.runs.schema import NO_LINEAGE, Lineage, read_lineage


def test_a_task_that_nobody_looked_for_is_not_clean() -> None:
    found = known(Lineage.from_json({"flags": {"a": [1]}, "scanned": ["a", "b"]}))
    assert (found.of("a"), found.of("b"), found.of("c")) == ({1}, set(), None)
    old = known(Lineage.from_json({"flags": {"a": [1]}}))
    assert (old.of("a"), old.of("b")) == ({1}, None) and known(NO_LINEAGE).of("a") is None


def test_a_task_is_scanned_if_every_stage_was() -> None:
    own = Known({"a": [2]}, {}, frozenset({"a", "b"}))
    assert inherited(NO_LINEAGE, own).scanned == {"a", "b"}
    parent = Lineage.from_json({"flags": {"a": [1]}, "scanned": ["b", "c"]})
    assert inherited(parent, own) == Known({"a": [1, 2]}, {}, frozenset({"b"}))
    begun = Lineage.from_json({"flags": {"c": [7]}, "scanned": ["b"]})
    again = inherited(parent, own, begun)
    assert again.flags == {"a": [1, 2], "c": [7]} and again.scanned == {"b"}
    older = Lineage.from_json({"flags": {}, "parent": "old"})
    assert inherited(older, own).scanned == frozenset()  # an older lineage says nothing of it


def test_a_short_match_of_one_stage_and_a_long_one_of_another_is_long() -> None:
    parent = Lineage.from_json({"flags": {"a": [1, 2]}, "short": {"a": [1, 2]}, "scanned": ["a"]})
    found = inherited(parent, Known({"a": [2, 3]}, {"a": [3]}, frozenset({"a"})))
    assert found == Known({"a": [1, 2, 3]}, {"a": [1, 3]}, frozenset({"a"}))


@pytest.mark.parametrize("wrong", [{"scanned": {"a": 1}}, {"scanned": [1]}, {"short": [1]}, {"short": {"a": 1}}])
def test_a_wrong_lineage_is_one_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps({"flags": {}, **wrong}))
    with pytest.raises(UsageError, match=next(iter(wrong))):
        read_lineage(tmp_path / "l.json")


@pytest.fixture
def means(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's score is the mean of its documents' numbers."""

    def estimates(leaf: Any, instances: Any) -> Any:
        values = [float(i.doc_id) for i in instances]
        return {"m": stats.mean(values, [str(v) for v in values], None)} if values else {}

    monkeypatch.setattr(record, "estimates", estimates)


def group(found: Known) -> Any:
    leaves = [SimpleNamespace(name=name, weight=lambda number, planned: number) for name in "ab"]
    plan: Any = SimpleNamespace(leaves=leaves, aggregate="macro", planned=False)
    documents: Any = {"a": [SimpleNamespace(doc_id=7)], "b": [SimpleNamespace(doc_id=i) for i in range(5)]}
    return record._clean_group(plan, documents, found)


def test_a_group_is_clean_over_the_subtasks_of_which_something_is_left(means: None) -> None:
    """As `compare` has it: a sub-task without a document has no weight."""
    clean = group(Known({"a": [7]}, {}, frozenset({"a", "b"})))
    assert (clean.n, clean.flagged, clean.empty) == (5, 1, ("a",))
    assert clean.metrics["m"].value == 2 and clean.unscanned is None


def test_a_group_names_the_subtasks_that_were_not_scanned(means: None) -> None:
    assert group(Known()) is None
    clean = group(Known({"b": [4]}))
    assert clean.unscanned == ("a",) and clean.metrics["m"].value == (7 + 1.5) / 2
    assert group(Known(scanned=frozenset({"a", "b"}))).flagged == 0


def test_scores_of_scanned_tasks_alone_are_called_clean(tmp_path: Path) -> None:
    mirror = write_gsm8k(tmp_path / "mirror", 20)
    lineage = tmp_path / "l.json"

    def evaluated(flags: Any, **more: Any) -> tuple[Any, Any]:
        lineage.write_text(json.dumps({"parent": "base", "flags": flags, **more}))
        done = as_json(olmes_here(
            "eval", "--backend", "oracle", "--task", "gsm8k", "--lineage", lineage, "--data-dir", mirror,
            "--runs", tmp_path / f"runs-{len(list(tmp_path.iterdir()))}", "--json", tmp=tmp_path,
        ))  # fmt: skip
        rows = pq.read_table(Path(done["path"]) / "instances/tulu3_gsm8k.parquet")
        return done["tasks"]["tulu3_gsm8k"]["clean"], rows

    clean, rows = evaluated({"tulu3_mmlu_anatomy": [1]})
    assert clean is None and set(rows["contaminated"].to_pylist()) == {None}
    clean, rows = evaluated({"tulu3_mmlu_anatomy": [1]}, scanned=["tulu3_gsm8k"])
    assert (clean["n"], clean["flagged"]) == (20, 0) and set(rows["contaminated"].to_pylist()) == {False}
    clean, rows = evaluated({"tulu3_gsm8k": [1, 2]}, short={"tulu3_gsm8k": [2]}, scanned=["tulu3_gsm8k"])
    assert clean["flagged"] == 2 and sum(rows["contaminated_short"].to_pylist()) == 1
