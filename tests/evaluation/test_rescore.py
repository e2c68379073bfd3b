"""Recorded runs scored again."""

from __future__ import annotations

import json
import shutil
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


def test_a_run_scored_under_another_policy_no_longer_compares(tmp_path: Path, gsm8k_mirror: Path) -> None:
    """Comparisons read the fingerprints that the manifest holds."""
    runs = ("--runs", tmp_path / "runs")
    source = ("--task", "gsm8k", "--data-dir", gsm8k_mirror)
    first = as_json(olmes_here("eval", "--backend", "mock", *source, *runs, "--json", tmp=tmp_path))
    other = tmp_path / "runs/other"
    shutil.copytree(first["path"], other)
    as_json(olmes_here("score", other, "--unclosed", "empty", "--json", tmp=tmp_path))
    for name in ("results.json", "manifest.json"):
        tasks = json.loads((other / name).read_text())["tasks"]["tulu3_gsm8k"]
        assert (tasks.get("fingerprint") or tasks)["settings"] != first["tasks"]["tulu3_gsm8k"]["fingerprint"][
            "settings"
        ]
    compared = olmes_here("compare", first["path"], other, *runs, tmp=tmp_path)
    assert compared.returncode == 4
    assert "settings differ (unclosed reference and empty)" in compared.stderr
    as_json(olmes_here("score", other, "--unclosed", "reference", "--json", tmp=tmp_path))
    assert olmes_here("compare", first["path"], other, *runs, tmp=tmp_path).returncode == 0
