"""The cache of `olmes data mix`: damaged, shared by several commands, and with inputs that change."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, environment, write_gsm8k
from mix_cases import chat, mix, read_lines, rows, write

from olmes_suite.errors import DataError, UsageError
from olmes_suite.training_rows.files import Block
from train_plugins.data.curation.mix import parts, sources
from train_plugins.data.curation.mix.parts import Job, Settings, read, run_job

pytest.importorskip("rensa")
pytest.importorskip("numba")

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "other": lambda content: b"\xf5" + content[1:],
    "bit": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    ),
}


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def job_of(tmp: Path, count: int = 5) -> Job:
    path = Path(write(tmp / "a.jsonl", [*rows(count), "{broken"]))
    return Job(Block(path, "jsonl", content="content"), Settings("sft", shingle=5), tmp / "parts")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["rows.jsonl", "index.npz", "rejected.jsonl", "about.json"])
def test_a_part_with_a_damaged_file_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    job = job_of(tmp_path)
    run_job(job)
    whole = {path.name: path.read_bytes() for path in job.folder.iterdir()}
    (job.folder / name).write_bytes(DAMAGES[damage](whole[name]))
    assert read(job) is None
    run_job(job)
    assert read(job) is not None
    assert {path.name: path.read_bytes() for path in job.folder.iterdir()} == whole
    (job.folder / name).unlink()
    assert read(job) is None


def test_a_finished_part_is_not_replaced_because_another_mix_may_be_reading_it(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    run_job(job)
    before = (job.folder / "rows.jsonl").stat().st_ino
    run_job(job)
    assert (job.folder / "rows.jsonl").stat().st_ino == before
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [job.key]


def test_a_file_that_changes_while_it_is_read_makes_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(tmp_path)
    make = parts._Maker.make

    def changing(self: parts._Maker, block: Block) -> None:
        write(tmp_path / "a.jsonl", rows(4, seed=1))
        make(self, block)

    monkeypatch.setattr(parts._Maker, "make", changing)
    with pytest.raises(DataError, match=r"a\.jsonl: changed while it was read; repeat the command"):
        run_job(job)
    assert not list((tmp_path / "parts").iterdir())


def test_a_file_that_is_removed_before_it_is_read_is_named(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    job.block.path.unlink()
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read"):
        run_job(job)
    assert not list((tmp_path / "parts").iterdir())


def test_a_source_that_changes_after_it_was_hashed_leaves_no_parts_under_its_former_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    recipe = {"sources": [{"path": write(path, rows(5))}]}
    run = parts.run_job

    def changing(job: Job) -> None:
        write(path, rows(9, seed=1))
        run(job)

    with monkeypatch.context() as patched:
        patched.setattr(parts, "run_job", changing)
        done = mix(tmp_path, recipe)
    assert done.returncode == 2 and "a.jsonl: has changed since the command began" in done.stderr, done.stderr
    write(path, rows(5))
    assert mix(tmp_path, recipe).returncode == 0
    assert len(read_lines(tmp_path / "out" / "data.jsonl")) == 5


@pytest.mark.parametrize("removed", [False, True])
def test_a_finished_mix_asks_no_hub_for_its_sources_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    path, run = tmp_path / "a.jsonl", parts.run_job

    def offline(*_: object) -> None:
        raise UsageError("the Hub cannot be reached")

    def last(job: Job) -> None:
        run(job)
        monkeypatch.setattr(sources, "locate", offline)
        if removed:
            path.unlink()

    monkeypatch.setattr(parts, "run_job", last)
    done = mix(tmp_path, {"sources": [{"path": write(path, rows(5))}]})
    if removed:
        assert done.returncode == 2 and "a.jsonl: cannot be read any more; repeat the command" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("damage", ["empty", "half", "zeros", "other"])
def test_a_damaged_hash_of_a_source_is_computed_again(tmp_path: Path, damage: str) -> None:
    sources = [{"path": write(tmp_path / f"{name}.jsonl", rows(3, seed=n))} for n, name in enumerate("ab")]
    assert mix(tmp_path, {"sources": sources}).returncode == 0
    for memo in (tmp_path / "cache" / "data" / "hashes").iterdir():
        memo.write_bytes(DAMAGES[damage](memo.read_bytes()))
    done = mix(tmp_path, {"sources": sources}, out="again")
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "again") == hashes(tmp_path / "out")


def test_files_of_equal_content_in_one_source_are_all_compared(tmp_path: Path) -> None:
    """The rows of the third file are counted after those of both others, although these have one part."""
    folder = tmp_path / "shards"
    folder.mkdir()
    first, other = rows(30), rows(30, seed=1)
    for name, lines in (("1", first), ("2", first), ("3", other)):
        write(folder / f"{name}.jsonl", lines)
    item = {"task": "mine", "doc_id": 7, "text": other[5]["messages"][0]["content"]}
    done = mix(
        tmp_path, {"sources": [{"path": str(folder)}], "decontam": {"file": write(tmp_path / "i.jsonl", [item])}}
    )
    assert done.returncode == 0, done.stderr
    rejected = read_lines(tmp_path / "out" / "rejected.jsonl")
    assert [one["row"] for one in rejected if one["reason"] == "contaminated"] == [65]
    kept = {row["messages"][0]["content"] for row in read_lines(tmp_path / "out" / "data.jsonl")}
    assert item["text"] not in kept and len(kept) == 59


def test_a_finished_mix_is_not_kept_when_one_split_of_a_folder_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    write(folder / "train.jsonl", rows(5))
    write(folder / "test.jsonl", rows(4, seed=1))
    recipe = {"sources": [{"path": str(folder)}, {"path": str(folder), "split": "test", "name": "test"}]}
    assert mix(tmp_path, recipe).returncode == 0
    assert mix(tmp_path, recipe, "--resume").returncode == 0
    write(folder / "train.jsonl", rows(9, seed=2))
    done = mix(tmp_path, recipe, "--resume")
    assert done.returncode == 2 and "exists and is not empty" in done.stderr


def test_a_finished_mix_is_not_kept_when_the_evaluation_documents_have_changed(tmp_path: Path) -> None:
    mirror = write_gsm8k(tmp_path / "mirror", 3)
    recipe = {
        "sources": [{"path": write(tmp_path / "a.jsonl", rows(5))}],
        "decontam": {"tasks": ["gsm8k"], "data_dir": [str(mirror)]},
    }
    assert mix(tmp_path, recipe).returncode == 0
    assert mix(tmp_path, recipe, "--resume").returncode == 0
    write_gsm8k(mirror, 4)
    done = mix(tmp_path, recipe, "--resume")
    assert done.returncode == 2 and "was compared with other evaluation documents" in done.stderr
    assert len(read_lines(tmp_path / "out" / "data.jsonl")) == 5


def test_tokens_are_counted_again_where_the_tokenizer_has_changed(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(tiny_checkpoint, folder)
    recipe = {"sources": [{"path": write(tmp_path / "a.jsonl", [chat("one two", "three")])}], "tokenizer": str(folder)}
    assert mix(tmp_path, recipe).returncode == 0
    made = set((tmp_path / "cache" / "data" / "parts").iterdir())
    assert mix(tmp_path, recipe, out="same").returncode == 0
    assert set((tmp_path / "cache" / "data" / "parts").iterdir()) == made
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")
    done = mix(tmp_path, recipe, "--resume")
    assert done.returncode == 2 and "exists and is not empty" in done.stderr
    assert mix(tmp_path, recipe, out="other").returncode == 0
    assert len(set((tmp_path / "cache" / "data" / "parts").iterdir())) == 2


def test_the_output_may_be_a_link_to_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "out")
    done = mix(tmp_path, {"sources": [{"path": write(tmp_path / "a.jsonl", rows(3))}]})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk" / "data.jsonl").is_file()


@pytest.mark.slow
def test_a_kill_before_any_change_to_the_disk_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    made = rows(60)
    items = [{"task": "mine", "doc_id": n, "text": made[n]["messages"][0]["content"]} for n in range(10, 15)]
    recipe = {
        "sources": [
            {"path": write(tmp_path / "a.jsonl", [*made, "{broken"]), "bad_rows": "skip"},
            {"path": write(tmp_path / "b.jsonl", rows(40, seed=3)), "fraction": 1.5, "upsample": True},
        ],
        "held_out": 0.1, "format": "jsonl", "decontam": {"file": write(tmp_path / "items.jsonl", items)},
    }  # fmt: skip
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "runs").mkdir()
    script = ROOT / "tests" / "support" / "kill_steps.py"
    arguments = ["data", "mix", str(tmp_path / "mix.yaml"), "--out", "OUT", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, script, tmp_path / "runs", "3", *arguments], env=environment(tmp_path), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["changes"] > 60 and not found["wrong"], found
