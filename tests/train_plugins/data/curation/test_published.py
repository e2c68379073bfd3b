"""The shipped mixes say what the papers and cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import olmes_here

from train_plugins.data.curation.mix import published

TOTALS = {
    "tulu3_sft_8b": 939_344, "tulu3_sft_70b": 939_344, "tulu3_preference_8b": 271_409, "tulu3_preference_70b": 334_302,
    "tulu3_rlvr_8b": 29_946, "tulu3_rlvr_70b": 29_946, "olmo3_think_sft_7b": 2_268_468,
    "olmo3_think_sft_32b": 2_253_916,
    "olmo3_instruct_sft_7b": 2_152_112 - 50_000, "olmo3_think_rlvr_7b": 104_869, "olmo3_instruct_rlvr_7b": 171_950,
    "olmo3_think_preference_7b": 150_000, "olmo3_think_preference_32b": 200_000,
    "olmo3_instruct_preference_7b": 259_922, "olmo3_instruct_preference_32b": None,
}  # fmt: skip


def test_all_shipped_mixes_load_and_add_up() -> None:
    found = {name: published.summary(name) for name in published.names()}
    assert TOTALS.keys() < found.keys()
    assert {name: found[name]["rows"] for name in TOTALS} == TOTALS
    for name, one in found.items():
        assert one["about"] and (one["released"] or name in ("example", "tulu3_rlvr_built"))


def test_the_example_is_made_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    done = olmes_here("data", "mix", "example", "--out", tmp_path / "mix", "--json", "--workers", "1", tmp=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    content = json.loads(done.stdout)["mix"]
    assert content["held_out"] and {one["source"]: one["rows"] for one in content["sources"]} == {
        "chats": 11, "sums": 12
    }  # fmt: skip
    lines = (tmp_path / "mix" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["exact_duplicate", "near_duplicate"]
    assert str(tmp_path) not in (tmp_path / "mix" / "manifest.json").read_text(encoding="utf-8")


def test_amounts_of_the_papers_count_duplicates() -> None:
    for name in published.names():
        duplicates = published.load(name).duplicates
        assert (duplicates.exact, duplicates.near) == (False, None) or name == "example", name


def test_sizes_of_tulu_3_share_their_sft_and_rlvr_mix() -> None:
    for stage in ("sft", "rlvr"):
        assert published.load(f"tulu3_{stage}_8b").sources == published.load(f"tulu3_{stage}_70b").sources


def test_every_part_has_a_licence_or_says_that_it_is_unknown() -> None:
    for name in published.names():
        for part in published.details(name)["parts"]:
            assert part["licence"], (name, part)


def test_what_is_not_known_of_a_mix_is_said(tmp_path: Path) -> None:
    shown = olmes_here("data", "mixes", "olmo3_instruct_preference_7b", tmp=tmp_path).stdout
    assert "259,922 rows as published; those of its parts are not known" in shown
    assert "Pairs judged by GPT-4.1" in shown and shown.count("unknown") == 2 * 3 + 1
    one = json.loads(olmes_here("data", "mixes", "olmo3_instruct_preference_32b", "--json", tmp=tmp_path).stdout)
    assert one["rows"] is None and [part["amount"] for part in one["parts"]] == [None] * 3


def test_the_command_lists_them_at_80_columns(tmp_path: Path) -> None:
    listed = olmes_here("data", "mixes", tmp=tmp_path)
    assert listed.returncode == 0 and "tulu3_sft_8b" in listed.stdout
    one = olmes_here("data", "mixes", "tulu3_sft_8b", tmp=tmp_path)
    assert "HuggingFaceH4/no_robots" in one.stdout and "CC-BY-NC-4.0" in one.stdout
    assert max(map(len, [*listed.stdout.splitlines()[:-1], *one.stdout.splitlines()])) <= 80
    data = json.loads(olmes_here("data", "mixes", "tulu3_rlvr_8b", "--json", tmp=tmp_path).stdout)
    assert [one["amount"] for one in data["parts"]] == [7473, 7500, 14973]
    wrong = olmes_here("data", "mixes", "tulu4", tmp=tmp_path)
    assert wrong.returncode == 2 and "shipped recipes of `olmes data mix`" in wrong.stderr


@pytest.mark.data
@pytest.mark.long
def test_the_built_mix_is_made_from_a_mirror(tmp_path: Path, data_dir: Path) -> None:
    pytest.importorskip("rensa")
    few = ["--set", "sources.1.config=[algebra]", "--set", "decontam=null"]
    done = olmes_here(
        "data", "mix", "tulu3_rlvr_built", "--out", tmp_path / "out", "--json", "--workers", "1", *few,
        tmp=tmp_path, OLMES_DATA_DIR=str(data_dir),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sources = json.loads(done.stdout)["mix"]["sources"]
    assert [one["rows"] for one in sources] == [7473, 1744]  # as published, with a problem of algebra that stands twice
