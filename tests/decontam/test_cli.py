"""olmes decontam: the forms and formats of training data, the report, clean copies, bad input, resuming."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decontam import scan as scanning
from olmes_suite.cli.main import run

SECRET = "One question that nobody else would ever put in quite these words before lunch"
SHORT = "What is Paris?"
MESSAGES = [
    {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": SECRET}]},
    {"messages": [{"role": "user", "content": f"Tell me: {SECRET.upper()}!"}]},
    {"messages": [{"role": "user", "content": "so, what is PARIS"}, {"role": "assistant", "content": "a city"}]},
    {"messages": []},
]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An evaluation: a long item, a short one, an empty one."""
    items = [
        {"task": "own", "doc_id": 7, "text": SECRET},
        {"task": "own", "doc_id": 9, "text": SHORT},
        {"task": "own", "doc_id": 11, "text": ""},
    ]
    path = tmp_path / "eval.jsonl"
    path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    return path


@pytest.fixture
def olmes(own: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a decontam command against the evaluation."""

    def call(command: str, *args: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["decontam", command, "--eval", str(own), "--workers", "1", *map(str, args)])
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write_set(path: Path) -> Path:
    """The messages in the format that the name says."""
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(MESSAGES).replace_schema_metadata({"note": "kept"})
        pq.write_table(table, path, row_group_size=2)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines(MESSAGES)))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as sink:
            sink.write(lines(MESSAGES))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as handle:
            rows = [
                ["hi", "there", SECRET],
                [f"two\nlines, {SECRET}", "", "b"],
                ["What is Paris", "?", "c"],
                ["", "", ""],
            ]
            csv.writer(handle).writerows([["instruction", "input", "output"], *rows])
    elif path.suffix == "":
        import datasets

        datasets.Dataset.from_list(MESSAGES).save_to_disk(str(path))
    else:
        path.write_bytes(lines(MESSAGES))
    return path


FORMATS = ["m.parquet", "m.jsonl", "m.jsonl.gz", "m.jsonl.zst", "m.csv", "dataset"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_pairs_and_a_clean_copy(name: str, tmp_path: Path, olmes: Any) -> None:
    train, out = write_set(tmp_path / name), tmp_path / "out"
    code, said, _ = olmes("scan", "--train", train, "--out", out, "--json")
    (entry,) = json.loads(said)["sets"]
    assert code == 1
    assert (entry["rows"], entry["instances"], entry["hit"], entry["short_hit"]) == (4, 3, 1, 1)
    assert entry["percent"] == pytest.approx(100 / 3) and entry["contaminated"] is True
    pairs = pq.read_table(out / "pairs.parquet").to_pylist()
    assert [(p["train_row"], p["task"], p["doc_id"], p["kind"]) for p in pairs] == [
        (1, "own", 7, "ngram"), (2, "own", 9, "short"),
    ]  # fmt: skip
    assert pairs[0]["coverage"] == 1.0 and pairs[0]["eval_spans"] == [[0, len(SECRET)]]
    assert json.loads((out / "flags.json").read_text()) == {"own": [7, 9]}
    assert olmes("clean", "--train", train, "--out", out)[0] == 0
    removed = [json.loads(line) for line in (out / "removed.jsonl").read_text().splitlines()]
    assert [(r["train_row"], r["matches"][0]["doc_id"]) for r in removed] == [(1, 7), (2, 9)]
    code, said, _ = olmes("scan", "--train", out / "clean" / name, "--out", tmp_path / "again", "--json")
    assert code == 0 and json.loads(said)["sets"][0]["hit"] == 0 and json.loads(said)["sets"][0]["rows"] == 2
    assert pq.read_table(tmp_path / "again" / "pairs.parquet").num_rows == 0


def test_a_clean_copy_is_the_original_otherwise(tmp_path: Path, olmes: Any) -> None:
    out = tmp_path / "out"
    text = lines(MESSAGES).replace(b'{"messages": []}', b'  {"messages":   [ ] }')
    (tmp_path / "m.jsonl").write_bytes(text)
    table = write_set(tmp_path / "m.parquet")
    assert olmes("clean", "--train", tmp_path / "m.jsonl", "--train", table, "--out", out)[0] == 0
    whole = text.splitlines(keepends=True)
    assert (out / "clean/m.jsonl").read_bytes() == whole[0] + whole[3]
    before, after = pq.read_table(table), pq.read_table(out / "clean/m.parquet")
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.to_pylist() == [before.to_pylist()[0], before.to_pylist()[3]]
    assert olmes("clean", "--train", out / "clean/m.parquet", "--out", tmp_path / "o2")[0] == 0
    assert (tmp_path / "o2/clean/m.parquet").read_bytes() == (out / "clean/m.parquet").read_bytes()


ASKED, ANSWERED = {"role": "user", "content": SECRET}, {"role": "assistant", "content": "x"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"conversations": [{"from": "human", "value": SECRET}]}, "messages"),
        ({"prompt": SECRET, "response": "x"}, "prompt"),
        ({"prompt": [ASKED], "completion": [ANSWERED]}, "prompt"),
        ({"instruction": "Do it.", "input": SECRET, "output": "x"}, "instruction"),
        ({"prompt": SECRET, "chosen": "x", "rejected": "y"}, "preference"),
        ({"chosen": [ASKED, ANSWERED], "rejected": [ASKED, ANSWERED]}, "preference"),
        ({"text": SECRET, "id": "3"}, "text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": SECRET}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "value": SECRET}]}]}, "messages"),
        ({"chosen_messages": [ASKED, ANSWERED], "rejected_messages": [ASKED, ANSWERED]}, "preference"),
        ({"query": SECRET, "tools": "[]", "answers": "[]"}, "prompt"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_forms_are_detected_and_shown(row: dict[str, Any], form: str, suffix: str, tmp_path: Path, olmes: Any) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "jsonl":
        path.write_bytes(lines([row]))
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    code, said, _ = olmes("scan", "--train", path, "--out", tmp_path / "out")
    assert code == 1 and f"read as {form} (" in said


def test_roles_choose_the_turns(tmp_path: Path, olmes: Any) -> None:
    train = write_set(tmp_path / "m.jsonl")
    for roles, rows in (("user", [1]), ("assistant", [0]), ("user,assistant", [0, 1])):
        olmes("scan", "--train", train, "--roles", roles, "--no-short", "--out", tmp_path / roles)
        assert pq.read_table(tmp_path / roles / "pairs.parquet")["train_row"].to_pylist() == rows


def test_rows_that_cannot_be_read_are_named_and_the_rest_is_scanned(tmp_path: Path, olmes: Any) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b'{"prompt": "\xff"}\n{"prompt": 3}\nno json\n' + lines([{"prompt": SECRET}]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(MESSAGES) * 500)[:200])
    pq.write_table(pa.table({"messages": [1, 2]}), folder / "c.parquet")
    (folder / "d.parquet").write_bytes(b"PAR1 no parquet")
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")])
    pq.write_table(pa.table({"text": bad}), folder / "e.parquet")
    (folder / "f.jsonl").write_bytes(lines(MESSAGES))
    code, _, errors = olmes("scan", "--train", folder, "--out", tmp_path / "out")
    assert code == 1 and "Traceback" not in errors
    for named in ("a.jsonl, row 0: not UTF-8", "a.jsonl, row 1: column 'prompt' is int", "a.jsonl, row 2: not JSON",
                  "b.jsonl.gz, row ", "c.parquet, row 0: column 'messages' is int64", "d.parquet cannot be read",
                  "e.parquet, row 0: not UTF-8"):  # fmt: skip
        assert sum(named in line for line in errors.splitlines()) == 1, (named, errors)
    hits = pq.read_table(tmp_path / "out/pairs.parquet").to_pylist()
    assert {p["train_row"] for p in hits if p["kind"] == "ngram"} >= {3}
    code, _, errors = olmes("clean", "--train", folder, "--out", tmp_path / "out")
    assert code == 2 and "no clean copy" in errors


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--train", "nothing.parquet"), "no such file"),
        ((), "--train is missing"),
        (("--train", "{set}", "--suite", "dev"), "--eval is scanned alone"),
        (("--train", "{set}", "--roles", "robot"), "--roles robot"),
        (("--train", "{set}", "--stride", "9"), "--stride 9"),
        (("--train", "{empty}"), "the set has no rows"),
        (("--train", "{folder}"), "holds no parquet"),
    ],
)
def test_wrong_usage_is_one_line(args: tuple[str, ...], said: str, tmp_path: Path, olmes: Any) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jsonl").write_bytes(b"")
    names = {"set": write_set(tmp_path / "m.jsonl"), "empty": tmp_path / "empty.jsonl", "folder": tmp_path / "folder"}
    code, _, errors = olmes("scan", *(a.format(**names) for a in args), "--out", tmp_path / "out")
    assert code == 2 and len(errors.strip().splitlines()) == 1 and said in errors


def test_a_killed_scan_reads_only_what_is_left(tmp_path: Path, olmes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [write_set(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    (tmp_path / "b.jsonl").write_bytes(lines(MESSAGES[::-1]))
    original, done = scanning.run_job, []

    def killed(job: Any) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(job.block.path.name)
        original(job)

    monkeypatch.setattr(scanning, "run_job", killed)
    args = ("--train", sets[0], "--train", sets[1], "--out", tmp_path / "out")
    assert olmes("scan", *args)[0] == 130
    seen: list[str] = []
    monkeypatch.setattr(scanning, "run_job", lambda job: (seen.append(job.block.path.name), original(job))[1])
    assert olmes("scan", *args)[0] == 1
    assert (done, seen) == (["a.jsonl"], ["b.jsonl"])
    olmes("scan", *args[:4], "--out", tmp_path / "fresh")
    assert (tmp_path / "out/pairs.parquet").read_bytes() == (tmp_path / "fresh/pairs.parquet").read_bytes()


def test_blocks_of_one_file_count_rows_through(tmp_path: Path, olmes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from decontam.training_data import sources

    train = tmp_path / "many.jsonl"
    train.write_bytes(lines([{"prompt": SECRET if i % 7 == 3 else f"row {i}", "é": "x" * i} for i in range(100)]))
    found = []
    for size in (1 << 20, 97, 1000):
        monkeypatch.setattr(sources, "BLOCK_BYTES", size)
        olmes("scan", "--train", train, "--out", tmp_path / str(size))
        found.append(pq.read_table(tmp_path / str(size) / "pairs.parquet")["train_row"].to_pylist())
    assert found[0] == list(range(3, 100, 7)) and found[1] == found[0] and found[2] == found[0]


def test_the_page_shows_text_as_text(tmp_path: Path, olmes: Any) -> None:
    train = tmp_path / "t.jsonl"
    train.write_bytes(lines([{"prompt": f"</script><script>alert(1)</script> {SECRET}"}]))
    olmes("scan", "--train", train, "--out", tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("</script>") == 2 and "alert(1)" in page


@pytest.mark.long
def test_two_processes_give_the_same_files(tmp_path: Path, olmes: Any) -> None:
    sets = [write_set(tmp_path / name) for name in ("a.jsonl", "b.parquet")]
    args = ("--train", sets[0], "--train", sets[1])
    for workers in ("1", "2"):
        olmes("scan", *args, "--workers", workers, "--out", tmp_path / workers)
    for name in ("report.json", "pairs.parquet", "flags.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.long
def test_a_stage_stops_filters_or_warns(tmp_path: Path) -> None:
    from helpers import write_gsm8k

    from decontam.check import Contaminated, check
    from olmes_suite.tasks.documents import DataSource

    source = DataSource((write_gsm8k(tmp_path / "data"),))
    question = "A shelf holds 3 books and 6 more arrive. How many books are there?"
    train = tmp_path / "mix.jsonl"
    train.write_bytes(lines([{"prompt": question}, {"prompt": "something else"}]))
    suite = tmp_path / "own.yaml"
    suite.write_text("suite: own\ntasks: [gsm8k]\n", encoding="utf-8")
    common = {"suites": [str(suite)], "source": source}
    with pytest.raises(Contaminated, match="of tulu3_gsm8k"):
        check([str(train)], tmp_path / "out", **common)
    warned = check([str(train)], tmp_path / "out", on_contamination="warn", **common)
    assert 3 in warned.flags["tulu3_gsm8k"] and warned.paths == (str(train),) and warned.warnings
    filtered = check([str(train)], tmp_path / "out", on_contamination="filter", **common)
    assert not filtered.flags and Path(filtered.paths[0]).read_bytes() == lines([{"prompt": "something else"}])
    assert check(list(filtered.paths), tmp_path / "out2", **common).paths == filtered.paths


def test_ray_that_is_not_installed_is_one_line(tmp_path: Path, olmes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, errors = olmes(
        "scan", "--train", write_set(tmp_path / "m.jsonl"), "--ray", "local", "--out", tmp_path / "o"
    )
    assert code == 2 and "olmes-suite[ray]" in errors and len(errors.strip().splitlines()) == 1
