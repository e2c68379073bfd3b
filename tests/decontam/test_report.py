"""The verdict: shares at the limit, and short matches, which are no part of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from decontam_fixture import SECRET, SHORT, Decontam, lines
from helpers import write_gsm8k

from decontam.check import check
from olmes_suite.tasks.documents import DataSource


def test_a_share_at_the_limit_is_not_over_it(tmp_path: Path, decontam: Decontam) -> None:
    words = "beta gamma delta epsilon zeta eta theta iota kappa"
    items = [{"task": "t", "doc_id": i, "text": f"w{i} a{i} {words}{i}"} for i in range(100)]
    (tmp_path / "e.jsonl").write_bytes(lines(*items))
    (tmp_path / "t.jsonl").write_bytes(lines(*({"prompt": item["text"]} for item in items[:29])))
    options = ["--eval", tmp_path / "e.jsonl", "--threshold", "0.95", "--share"]
    assert decontam("scan", tmp_path / "t.jsonl", options=[*options, "0.29"])[0] == 0
    assert decontam.report()["sets"][0]["hit"] == 29
    assert decontam("scan", tmp_path / "t.jsonl", options=[*options, "0.28"])[0] == 1


def test_short_matches_alone_have_a_verdict_of_their_own(tmp_path: Path, decontam: Decontam) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines({"prompt": SHORT}))
    assert decontam("scan", tmp_path / "t.jsonl")[0] == 0
    (entry,) = decontam.report()["sets"]
    assert (entry["hit"], entry["short_hit"], entry["verdict"]) == (0, 1, "short matches only")
    for name in ("flags.json", "flags_short.json"):
        assert json.loads((decontam.out / name).read_text()) == {"own": [9]}


def test_other_data_of_the_same_size_and_time_are_scanned(tmp_path: Path, decontam: Decontam) -> None:
    """As `cp -p` and `rsync -t` leave them."""
    path = tmp_path / "t.jsonl"
    for text, code in (("x" * len(SECRET), 0), (SECRET, 1)):
        path.write_bytes(lines({"prompt": text}))
        os.utime(path, ns=(10**18, 10**18))
        assert decontam("scan", path)[0] == code


@pytest.mark.parametrize("damage", ["lost", "damaged", "no part"])
def test_a_part_that_is_lost_or_damaged_is_scanned_again(damage: str, tmp_path: Path, decontam: Decontam) -> None:
    for shard in range(2):
        (tmp_path / f"{shard}.jsonl").write_bytes(lines({"prompt": f"{SECRET} {shard}"}))
    assert decontam("scan", tmp_path / "[01].jsonl")[0] == 1
    before = decontam.report()
    place = decontam.out / ".parts"
    if damage == "no part":
        next(iter(place.glob("*.json"))).write_text("{}")
    elif damage == "lost":
        next(iter(place.glob("*.parquet"))).unlink()
    else:
        next(iter(place.glob("*.parquet"))).write_bytes(b"x")
    assert decontam("scan", tmp_path / "[01].jsonl")[0] == 1
    assert decontam.report() == before and decontam.hits() == [0, 1]


def test_a_number_that_no_column_holds_is_named(tmp_path: Path, decontam: Decontam) -> None:
    (tmp_path / "e.jsonl").write_bytes(lines({"task": "t", "doc_id": 10**30, "text": SECRET}))
    (tmp_path / "t.jsonl").write_bytes(lines({"prompt": SECRET}))
    code, _, errors = decontam("scan", tmp_path / "t.jsonl", options=["--eval", tmp_path / "e.jsonl"])
    assert code == 2 and "e.jsonl, line 1: doc_id has more than 64 bits" in errors


def test_a_stage_is_told_of_short_matches_and_of_what_was_scanned(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    mirror = write_gsm8k(tmp_path / "mirror", 2)
    rows = [{"question": text, "answer": "#### 1"} for text in (SHORT, "How far is it to the moon from here by foot?")]
    pq.write_table(pa.Table.from_pylist(rows), mirror / "openai/gsm8k/main/test.parquet")
    (tmp_path / "mine.yaml").write_text("suite: mine\ntasks: [gsm8k]\n")
    (tmp_path / "t.jsonl").write_bytes(lines({"prompt": SHORT}))
    found = check([str(tmp_path / "t.jsonl")], tmp_path / "out", suites=[str(tmp_path / "mine.yaml")],
                  source=DataSource((mirror,)))  # fmt: skip
    assert found.flags["tulu3_gsm8k"] == found.short["tulu3_gsm8k"] == [0]
    assert "tulu3_gsm8k" in found.scanned and "1 short items of tulu3_gsm8k" in found.warnings[0]
