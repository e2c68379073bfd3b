"""Recorded runs scored again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import as_json, olmes_here


@pytest.mark.long
def test_rescoring_is_a_new_version_with_the_same_scores(tmp_path: Path, gsm8k_mirror: Path) -> None:
    first = as_json(
        olmes_here(
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
            tmp=tmp_path,
        )
    )
    second = as_json(olmes_here("score", first["path"], "--json", tmp=tmp_path))
    assert second["version"] == 2
    assert second["tasks"] == first["tasks"]
    kept = Path(first["path"]) / "versions/1"
    assert json.loads((kept / "results.json").read_text())["tasks"] == first["tasks"]
    assert (kept / "instances/tulu3_gsm8k.parquet").is_file()


def test_a_sample_run_is_scored_again_with_sample_documents(tmp_path: Path, gsm8k_mirror: Path) -> None:
    """Whatever mirror the environment names by now."""
    runs = ("--runs", tmp_path / "runs")
    first = as_json(
        olmes_here("eval", "--backend", "mock", "--task", "gsm8k", "--data", "sample", *runs, "--json", tmp=tmp_path)
    )
    second = as_json(olmes_here("score", first["path"], "--json", tmp=tmp_path, OLMES_DATA_DIR=str(gsm8k_mirror)))
    assert second["tasks"] == first["tasks"]
