"""From a poisoned mix to the numbers that a reader sees: stage, lineage, scores, comparison, gate, leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers import write_gsm8k
from models_fixture import make_tiny_model
from train_fixture import chat, need_trl, pair_rows, sft_rows, write_rows

from decontam import hooks as decontam_hooks
from decontam import scan as scanning
from olmes_suite.cli.main import run
from olmes_suite.hooks import Stage, StageData, StageRefused, TrainingSet, manager

pytestmark = pytest.mark.long
TASK = "tulu3_gsm8k"
DOCUMENTS = 20


def question(number: int) -> str:
    """The number's document, in words that no other document has."""
    words = [f"{word}{number}" for word in ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak")]
    return f"{' '.join(words)} How many trees are there?"


def planted(numbers: range) -> list[dict[str, Any]]:
    return [{"messages": chat(question(n), f"{n}.")} for n in numbers]


@pytest.fixture
def planted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model, a mirror of twenty documents, and a mix with the first three of them in it."""
    import pyarrow as pa

    mirror = write_gsm8k(tmp_path / "mirror", DOCUMENTS)
    rows = [{"question": question(n), "answer": f"{n}\n#### {n}"} for n in range(DOCUMENTS)]
    pq.write_table(pa.Table.from_pylist(rows), mirror / "openai/gsm8k/main/test.parquet")
    (tmp_path / "mine.yaml").write_text("suite: mine\ntasks: [gsm8k]\n")
    clean = sft_rows(9)
    write_rows(tmp_path / "rows.jsonl", [*clean[:4], *planted(range(3)), *clean[4:]])
    monkeypatch.setenv("OLMES_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(folder: Path, name: str, model: Path, rows: Path, answer: str) -> str:
    """A recipe file that asks for decontamination."""
    import yaml

    whole = {
        "model": str(model), "output": str(folder / name), "chat_template": "tulu", "data": [{"path": str(rows)}],
        "trainer": {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "num_train_epochs": 1, "max_length": 256,
                    "save_steps": 1000},
        "decontam": {"suites": [str(folder / "mine.yaml")], "data_dir": [str(folder / "mirror")],
                     "on_contamination": answer},
    }  # fmt: skip
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return str(file)


def lineage(checkpoint: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((checkpoint / "olmes_lineage.json").read_text())
    return found


def evaluate(folder: Path, model: Path, capfd: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """(results, what was printed) of a run of the checkpoint."""
    capfd.readouterr()
    common = ["eval", "--task", "gsm8k", "--data-dir", str(folder / "mirror"), "--runs", str(folder / "runs")]
    assert run([*common, "--model", str(model)]) == 0
    said = capfd.readouterr().out
    assert run([*common, "--model", str(model), "--json"]) == 0
    return json.loads(capfd.readouterr().out), said


def test_findings_travel_from_the_mix_to_every_score(planted_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    need_trl()
    tiny = make_tiny_model(planted_folder / "tiny")
    mix = planted_folder / "rows.jsonl"

    assert run(["train", "sft", recipe(planted_folder, "stopped", tiny, mix, "stop")]) == 1
    errors = capfd.readouterr().err.strip().splitlines()
    assert f"3 of {DOCUMENTS} items of {TASK}" in errors[-1] and "Traceback" not in "".join(errors)
    assert not (planted_folder / "stopped/config.json").exists()

    assert run(["train", "sft", recipe(planted_folder, "filtered", tiny, mix, "filter")]) == 0
    filtered = lineage(planted_folder / "filtered")
    assert filtered["flags"] == {} and filtered["rows"]["trained"] == 9
    assert filtered["decontam"]["removed"] == {str(mix): 3}
    removed = [
        json.loads(line) for line in (planted_folder / "filtered/decontam/removed.jsonl").read_text().splitlines()
    ]
    assert [entry["train_row"] for entry in removed] == [4, 5, 6]

    assert run(["train", "sft", recipe(planted_folder, "warned", tiny, mix, "warn")]) == 0
    assert f"note: {mix}: 3 of {DOCUMENTS} items" in capfd.readouterr().err
    warned = lineage(planted_folder / "warned")
    assert warned["flags"][TASK] == [0, 1, 2] and warned["rows"]["trained"] == 12

    more = [
        {"chosen": chat(question(n), "yes."), "rejected": chat(question(n), "no, no, no!")} for n in range(2, 5)
    ]  # a second stage on other data: two further documents, and one that is flagged already
    pairs = write_rows(planted_folder / "pairs.jsonl", [*more, *pair_rows(9)])
    assert run(["train", "dpo", recipe(planted_folder, "second", planted_folder / "warned", pairs, "warn")]) == 0
    assert lineage(planted_folder / "second")["flags"][TASK] == [0, 1, 2, 3, 4]

    before, said_before = evaluate(planted_folder, planted_folder / "filtered", capfd)
    after, said = evaluate(planted_folder, planted_folder / "second", capfd)
    assert TASK in filtered["scanned"] and TASK in lineage(planted_folder / "second")["scanned"]
    assert before["tasks"][TASK]["clean"]["flagged"] == 0 and "clean (out)" not in said_before
    clean = after["tasks"][TASK]["clean"]
    assert (clean["n"], clean["flagged"]) == (DOCUMENTS - 5, 5) and clean["metrics"]
    assert "clean (out)" in said and f"gsm8k: 5 of {DOCUMENTS} documents are in the training data" in said
    rows = pq.read_table(Path(after["path"]) / f"instances/{TASK}.parquet").to_pylist()
    assert [row["doc_id"] for row in rows if row["contaminated"]] == [0, 1, 2, 3, 4]

    names = [Path(before["path"]).name, Path(after["path"]).name]
    assert run(["compare", *names, "--runs", str(planted_folder / "runs")]) == 0
    assert "5 documents are in a checkpoint's training data; without them" in capfd.readouterr().out
    gate = ["gate", "--baseline", names[0], "--candidate", names[1], "--runs", str(planted_folder / "runs")]
    assert run([*gate, "--task", "gsm8k"]) != 0
    assert f"trained on 5 of {DOCUMENTS} documents (25.0 %)" in capfd.readouterr().out
    assert (
        run(["leaderboard", "--runs", str(planted_folder / "runs"), "--out", str(planted_folder / "board.html")]) == 0
    )
    page = (planted_folder / "board.html").read_text()
    (cell,) = [head for part in page.split("<td")[1:] if "contaminated" in (head := part.split(">")[0])]
    assert "gsm8k" in cell and '"flagged":5' in page.replace(" ", "")


def called(folder: Path, rows: list[dict[str, Any]], answer: str, path: str = "mix") -> StageData:
    """The hook alone, on rows that are numbered from 10."""
    from datasets import Dataset

    wanted = {"suites": [str(folder / "mine.yaml")], "data_dir": [str(folder / "mirror")], "on_contamination": answer}
    numbered = Dataset.from_list([{**row, "row": 10 + place} for place, row in enumerate(rows)])
    data = StageData((TrainingSet(path, "hash of the file", numbered),), flags={"other": [1]})
    stage = Stage("sft", "base", folder / "out", False, {"decontam": wanted})
    found = decontam_hooks.olmes_before_stage(stage, data)
    assert found is not None
    assert not list((folder / "out").rglob(".rows*"))
    return found


def test_what_is_scanned_is_what_is_trained_on(planted_folder: Path) -> None:
    """Rows that a limit cut off, or files that the stage does not read, are nobody's business."""
    found = called(planted_folder, [*planted(range(1)), *sft_rows(3)], "filter")
    assert found.sets[0].rows["row"] == [11, 12, 13] and found.flags == {"other": [1]}
    removed = json.loads((planted_folder / "out/decontam/removed.jsonl").read_text())
    assert removed["train_row"] == 10 and removed["matches"][0]["doc_id"] == 0
    found = called(planted_folder, [*planted(range(4, 6)), *sft_rows(3)], "warn")
    assert found.flags["other"] == [1] and found.flags[TASK] == [4, 5] and len(found.sets[0].rows) == 5
    with pytest.raises(StageRefused, match=f"mix: 2 of {DOCUMENTS} items"):
        called(planted_folder, [*planted(range(4, 6)), *sft_rows(3)], "stop")


def test_a_scan_is_kept_by_content(planted_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from decontam.check import check
    from olmes_suite.tasks.documents import DataSource

    original, scanned = scanning.run_job, []

    def noted(job: Any) -> None:
        scanned.append(job.block.path.name)
        original(job)

    monkeypatch.setattr(scanning, "run_job", noted)

    def flags(path: Path) -> Any:
        common = {"suites": [str(planted_folder / "mine.yaml")], "source": DataSource((planted_folder / "mirror",))}
        return check([str(path)], planted_folder / "o", on_contamination="warn", **common).flags

    first = flags(planted_folder / "rows.jsonl")
    (planted_folder / "elsewhere").mkdir()
    copy = planted_folder / "elsewhere/copy.jsonl"
    copy.write_bytes((planted_folder / "rows.jsonl").read_bytes())
    assert flags(copy) == first and scanned == ["rows.jsonl"]  # another name, another time, the same content
    copy.write_bytes(copy.read_bytes() + json.dumps({"messages": chat(question(9), "9.")}).encode() + b"\n")
    assert 9 in flags(copy)[TASK] and scanned == ["rows.jsonl", "copy.jsonl"]

    mirror = planted_folder / "mirror/openai/gsm8k/main/test.parquet"
    pq.write_table(pq.read_table(mirror).slice(2), mirror)
    assert flags(copy)[TASK] == [0, 7] and len(scanned) == 3  # other evaluation texts: scanned anew


def test_the_hook_is_installed() -> None:
    assert manager().is_registered(decontam_hooks)
