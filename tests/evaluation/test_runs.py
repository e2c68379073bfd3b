"""Runs: recorded, resumable after any kill, locked, and the same for the same inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers import as_json, olmes_here


def test_a_finished_run_is_not_repeated_without_again(tmp_path: Path, gsm8k_mirror: Path) -> None:
    command = [
        "eval",
        "--backend",
        "mock",
        "--task",
        "gsm8k",
        "--data-dir",
        gsm8k_mirror,
        "--runs",
        tmp_path / "runs",
        "--json",
    ]
    first, second = as_json(olmes_here(*command, tmp=tmp_path)), as_json(olmes_here(*command, tmp=tmp_path))
    assert first == second
    third = as_json(olmes_here(*command, "--again", tmp=tmp_path))
    assert third["path"] == first["path"] + "-2"
    assert third["tasks"] == first["tasks"]


def test_results_hold_no_time_or_path(tmp_path: Path, gsm8k_mirror: Path) -> None:
    outputs = []
    for name in ("a", "b"):
        done = as_json(
            olmes_here(
                "eval",
                "--backend",
                "mock",
                "--task",
                "gsm8k",
                "--data-dir",
                gsm8k_mirror,
                "--runs",
                tmp_path / name,
                "--json",
                tmp=tmp_path,
            )
        )
        outputs.append((Path(done["path"]) / "results.json").read_bytes())
    assert outputs[0] == outputs[1]
    assert str(tmp_path).encode() not in outputs[0]


def test_limit_is_nested_and_marked(tmp_path: Path, gsm8k_mirror: Path) -> None:
    chosen = {}
    for limit in (5, 12):
        done = as_json(
            olmes_here(
                "eval",
                "--backend",
                "oracle",
                "--task",
                "gsm8k",
                "--limit",
                str(limit),
                "--data-dir",
                gsm8k_mirror,
                "--runs",
                tmp_path / "runs",
                "--json",
                tmp=tmp_path,
            )
        )
        rows = pq.read_table(Path(done["path"]) / "instances/tulu3_gsm8k.parquet")["doc_id"].to_pylist()
        assert rows == sorted(rows) and done["tasks"]["tulu3_gsm8k"]["of"] == 40
        chosen[limit] = set(rows)
    assert chosen[5] < chosen[12] and len(chosen[12]) == 12


def test_missing_data_is_named_and_the_rest_runs(tmp_path: Path, gsm8k_mirror: Path) -> None:
    done = olmes_here(
        "eval",
        "--backend",
        "oracle",
        "--task",
        "gsm8k",
        "--task",
        "popqa",
        "--data-dir",
        gsm8k_mirror,
        "--runs",
        tmp_path / "runs",
        "--json",
        tmp=tmp_path,
    )
    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert outcome["tasks"]["tulu3_gsm8k"]["metrics"]["exact_match"]["value"] == 1.0
    assert outcome["tasks"]["tulu3_popqa"]["metrics"] == {}
    for part in (
        "akariasai/PopQA",
        "olmes data pull --task tulu3_popqa",
        "<data-dir>/akariasai/PopQA/default/test.parquet",
    ):
        assert part in outcome["tasks"]["tulu3_popqa"]["error"]


def test_a_suite_average_is_never_the_mean_of_what_is_left(tmp_path: Path, gsm8k_mirror: Path) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text("suite: mine\ntasks: [gsm8k, {task: popqa, skill: knowledge}]\n")
    done = olmes_here(
        "eval",
        "--backend",
        "oracle",
        "--suite",
        suite,
        "--data-dir",
        gsm8k_mirror,
        "--runs",
        tmp_path / "runs",
        "--json",
        tmp=tmp_path,
    )
    outcome = json.loads(done.stdout)
    assert outcome["suites"]["mine"] == {"value": None, "stderr": None, "ci95": None, "missing": ["tulu3_popqa"]}


def test_unseen_looks_are_in_the_ledger(tmp_path: Path) -> None:
    """A served model is what the ledger is for; mock, oracle, floor and sample data leave no line."""
    from olmes_suite.runs import ledger

    command = ["olmes", "eval"]
    assert ledger.record_look(tmp_path, "m", "run-1", [("tulu3_gsm8k", 10)], command) == []
    assert not (tmp_path / ledger.LEDGER).exists()
    for _ in range(2):
        assert ledger.record_look(tmp_path, "m", "run-1", [("tulu3_gsm8k", 10), ("tulu3_gpqa", 4)], command) == [
            "tulu3_gpqa"
        ]
    (line,) = ledger.read_ledger(tmp_path / ledger.LEDGER)
    assert set(line) == {"time", "lineage", "run", "tasks", "n", "command"} and line["n"] == 4


def test_contaminated_documents_are_marked_and_left_out_of_the_clean_score(tmp_path: Path, gsm8k_mirror: Path) -> None:
    lineage = tmp_path / "olmes_lineage.json"
    lineage.write_text(json.dumps({"parent": "base", "flags": {"tulu3_gsm8k": [0, 1, 2]}}))
    done = as_json(
        olmes_here(
            "eval",
            "--backend",
            "oracle",
            "--task",
            "gsm8k",
            "--lineage",
            lineage,
            "--data-dir",
            gsm8k_mirror,
            "--runs",
            tmp_path / "runs",
            "--json",
            tmp=tmp_path,
        )
    )
    clean = done["tasks"]["tulu3_gsm8k"]["clean"]
    assert (clean["n"], clean["flagged"]) == (37, 3)
    marks = pq.read_table(Path(done["path"]) / "instances/tulu3_gsm8k.parquet")["contaminated"].to_pylist()
    assert sum(marks) == 3


def test_a_hanging_scorer_is_stopped_and_counted() -> None:
    from scorers_for_tests import hangs, raises

    from olmes_suite.evaluation.pool import ScoringPool
    from olmes_suite.records import Scored
    from olmes_suite.scoring.scorers import Scorer

    got: list[tuple[Scored, bool]] = []
    with ScoringPool(1) as pool:
        assert isinstance(hangs, Scorer)
        pool.submit(
            hangs,
            ("m",),
            {"hang": True},
            ["x"],
            where="one",
            done=lambda scored, samples, late: got.append((scored, late)),
        )
        pool.submit(
            hangs,
            ("m",),
            {"hang": False},
            ["x"],
            where="two",
            done=lambda scored, samples, late: got.append((scored, late)),
        )
        pool.join()
    assert [(scored.scores, late) for scored, late in got] == [({"m": 0.0}, True), ({"m": 1.0}, False)]
    from olmes_suite.evaluation.pool import ScorerFailed

    with pytest.raises(ScorerFailed, match="three: the scorer raised KeyError"), ScoringPool(1) as pool:
        pool.submit(raises, ("m",), {}, ["x"], where="three", done=lambda *_: None)
        pool.join()


SLOW_TO_LOAD = """
import time
from pathlib import Path
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import scorer

if Path(__file__).with_name("large").exists():
    time.sleep(3)

@scorer(isolated=True, timeout=1.5)
def score(doc, response):
    return Scored({"m": 1.0})
"""


def test_a_scorers_process_that_has_ended_is_no_error_of_the_document(tmp_path: Path) -> None:
    """Such as one that the system kills for want of memory while it reads a long answer."""
    from olmes_suite.evaluation import pool as pools
    from olmes_suite.evaluation.scoring_worker import scorer_at

    (tmp_path / "slow.py").write_text(SLOW_TO_LOAD)
    job = pools._Job(scorer_at(str(tmp_path / "slow.py"), "score"), ("m",), {}, ["x" * 100_000], "one", lambda *_: None)
    worker = pools._Worker()
    worker.kill()
    assert worker.score(job) is None


@pytest.mark.long
def test_a_documents_time_begins_when_its_scorer_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from olmes_suite.evaluation import pool as pools
    from olmes_suite.evaluation.scoring_worker import scorer_at

    file, got = tmp_path / "slow.py", []
    file.write_text(SLOW_TO_LOAD)
    score = scorer_at(str(file), "score")
    (tmp_path / "large").touch()  # when the process loads it
    with pools.ScoringPool(1) as pool:
        for place in ("one", "two"):
            pool.submit(score, ("m",), {}, ["x"], where=place, done=lambda scored, _, late: got.append((scored, late)))
        pool.join()
    assert [(scored.scores, late) for scored, late in got] == [({"m": 1.0}, False)] * 2
    monkeypatch.setattr(pools, "START_SECONDS", 0.5)
    with (
        pytest.raises(pools.ScorerFailed, match="one: the scorer's process ended or took"),
        pools.ScoringPool(1) as pool,
    ):
        pool.submit(score, ("m",), {}, ["x"], where="one", done=lambda *_: None)
        pool.join()


def test_a_scorer_that_needs_all_memory_is_stopped_and_counted() -> None:
    from scorers_for_tests import fills_the_memory

    from olmes_suite.evaluation.pool import ScoringPool
    from olmes_suite.records import Scored

    got: list[tuple[Scored, bool]] = []
    with ScoringPool(1) as pool:
        for gib in (64, 0):
            pool.submit(
                fills_the_memory, ("m",), {"gib": gib}, ["x"], where="one",
                done=lambda scored, samples, late: got.append((scored, late)),
            )  # fmt: skip
        pool.join()
    assert [(scored.scores, late) for scored, late in got] == [({"m": 0.0}, True), ({"m": 1.0}, False)]


def test_sample_seeds_follow_run_key_and_index() -> None:
    from olmes_suite.evaluation.generate import sample_seed

    assert sample_seed(1, "k", 0) == sample_seed(1, "k", 0)
    assert len({sample_seed(1, "k", 0), sample_seed(2, "k", 0), sample_seed(1, "l", 0), sample_seed(1, "k", 1)}) == 4


@pytest.mark.long
def test_groups_of_shared_sample_documents_have_no_interval(tmp_path: Path) -> None:
    done = as_json(
        olmes_here(
            "eval",
            "--backend",
            "oracle",
            "--task",
            "deepmind_math",
            "--data",
            "sample",
            "--limit",
            "2",
            "--runs",
            tmp_path / "runs",
            "--json",
            tmp=tmp_path,
        )
    )
    group = done["tasks"]["tulu3_deepmind_math"]["metrics"]["exact_match"]
    assert group == {"value": 1.0, "stderr": None, "ci95": None}
