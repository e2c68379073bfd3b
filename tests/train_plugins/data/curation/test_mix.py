"""`olmes data mix`: sources become one training set whose counts add up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from helpers import environment
from mix_cases import chat, mix, read_lines, rows, write

from train_plugins.data.curation.mix import keys
from train_plugins.data.curation.mix.parts import Job, Settings, read, run_job
from train_plugins.data.curation.mix.pool import Pool

pytest.importorskip("rensa")
pytest.importorskip("numba")


def test_every_row_is_in_the_output_or_rejected_with_a_reason(tmp_path: Path) -> None:
    first, second = rows(40), rows(40, seed=1)
    said = first[3]["messages"][1]["content"].split()
    near = chat(first[3]["messages"][0]["content"], " ".join([*said[:-1], "other"]))
    item = {"task": "mine", "doc_id": 7, "text": second[5]["messages"][0]["content"]}
    second += [first[0], near, chat("short", "x")]
    recipe = {
        "sources": [
            {"path": write(tmp_path / "a.jsonl", first), "licence": "MIT", "skill": "math"},
            {"path": write(tmp_path / "b.jsonl", [*second, "{broken"]), "bad_rows": "skip", "amount": 30,
             "filters": {"min_answer_tokens": 2}},
        ],
        "decontam": {"file": write(tmp_path / "items.jsonl", [item])}, "held_out": 0.2,
    }  # fmt: skip
    done = mix(tmp_path, recipe)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    rejected = read_lines(out / "rejected.jsonl")
    reasons = Counter((one["source"], one["reason"]) for one in rejected)
    assert reasons == {
        ("b", "malformed"): 1, ("b", "min_answer_tokens"): 1, ("b", "exact_duplicate"): 1, ("b", "near_duplicate"): 1,
        ("b", "contaminated"): 1, ("b", "not_sampled"): 9,
    }  # fmt: skip
    details = {one["reason"]: one for one in rejected}
    assert details["exact_duplicate"]["row"] == 40 and details["exact_duplicate"]["detail"] == "of a:0"
    assert details["near_duplicate"]["detail"] == "of a:3"
    assert details["contaminated"]["detail"] == "mine 7" and details["contaminated"]["row"] == 5
    assert details["malformed"]["row"] == 43 and "not JSON" in details["malformed"]["detail"]
    data, held_out = read_lines(out / "data.jsonl"), read_lines(out / "held_out.jsonl")
    assert 0 < len(held_out) < 30 and len(data) + len(held_out) == 70
    assert Counter(row["source"] for row in data + held_out) == {"a": 40, "b": 30}
    keys = {(one["source"], one["row"]) for one in [*data, *held_out, *rejected]}
    assert keys == {("a", n) for n in range(40)} | {("b", n) for n in range(44)}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"]["read"] == 84 and manifest["counts"]["written"] == 70
    assert [one["rows"] for one in manifest["mix"]["sources"]] == [40, 30]
    assert "no licence is given for b" in done.stdout and "| b |" in (out / "card.md").read_text()
    by_id = {row["id"]: row for row in data + held_out}
    assert by_id["a:3"]["messages"] == first[3]["messages"] and by_id["a:3"]["skill"] == "math"


def test_equal_inputs_give_equal_bytes_whatever_the_names_and_the_cache(tmp_path: Path) -> None:
    recipe = {
        "sources": [{"path": write(tmp_path / "a.jsonl", rows(60)), "fraction": 1.5, "upsample": True}],
        "held_out": 0.1, "format": "parquet",
    }  # fmt: skip
    assert mix(tmp_path, recipe).returncode == 0
    assert mix(tmp_path, recipe, out="again").returncode == 0
    other = tmp_path / "elsewhere"
    other.mkdir()
    assert mix(other, recipe).returncode == 0
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    for name in files:
        content = (tmp_path / "out" / name).read_bytes()
        assert content == (tmp_path / "again" / name).read_bytes() == (other / "out" / name).read_bytes(), name
    table = pq.read_table(tmp_path / "out" / "data.parquet").to_pylist()
    held_out = pq.read_table(tmp_path / "out" / "held_out.parquet").to_pylist()
    assert len(table) + len(held_out) == 90
    prompts = {row["messages"][0]["content"] for row in table}
    assert not prompts & {row["messages"][0]["content"] for row in held_out}
    assert len({row["id"] for row in table + held_out}) == 90


def test_another_seed_draws_other_rows_and_the_same_split(tmp_path: Path) -> None:
    recipe = {"sources": [{"path": write(tmp_path / "a.jsonl", rows(200)), "amount": 100}], "held_out": 0.3}
    for seed in (1, 2):
        assert mix(tmp_path, recipe, "--set", f"seed={seed}", out=str(seed)).returncode == 0
    drawn = [
        {name: {row["row"] for row in read_lines(tmp_path / out / f"{name}.jsonl")} for name in ("data", "held_out")}
        for out in ("1", "2")
    ]
    assert drawn[0]["data"] != drawn[1]["data"]
    assert not drawn[0]["data"] & drawn[1]["held_out"] and not drawn[1]["data"] & drawn[0]["held_out"]


def test_shares_and_filters_by_column(tmp_path: Path) -> None:
    marked = [dict(row, level=n % 4) for n, row in enumerate(rows(80))]
    recipe = {
        "rows": 40, "keep": ["level"],
        "sources": [
            {"path": write(tmp_path / "a.jsonl", marked), "share": 0.25, "filters": {"where": {"level": [1, 2]}}},
            {"path": write(tmp_path / "b.jsonl", rows(50, seed=3)), "share": 0.75},
        ],
    }  # fmt: skip
    done = mix(tmp_path, recipe)
    assert done.returncode == 0, done.stderr
    made = read_lines(tmp_path / "out" / "data.jsonl")
    assert Counter(row["source"] for row in made) == {"a": 10, "b": 30}
    assert {row["level"] for row in made if row["source"] == "a"} <= {1, 2}


def test_reasoning_tools_and_weights_stay_and_a_mix_can_be_mixed_again(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        {"role": "user", "content": "Add 1 and 2."},
        {"role": "assistant", "content": "", "reasoning_content": "A sum.", "tool_calls": [call]},
        {"role": "tool", "content": "3", "name": "add"},
        {"role": "assistant", "content": "Not sure.", "weight": 0},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "It is 3."},
    ]
    recipe = {
        "sources": [{"path": write(tmp_path / "a.jsonl", [{"messages": turns, "tools": [tool]}, chat("Hi", "Hello")])}],
        "shuffle": False, "duplicates": {"near": None},
    }  # fmt: skip
    assert mix(tmp_path, recipe).returncode == 0
    made = read_lines(tmp_path / "out" / "data.jsonl")
    assert made[0]["messages"][1]["reasoning_content"] == "A sum." and made[0]["messages"][3]["weight"] == 0
    assert made[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert json.loads(made[0]["tools"])[0]["function"]["name"] == "add" and "tools" not in made[1]
    assert mix(tmp_path, recipe, "--set", "format=parquet", out="table").returncode == 0
    for number, source in enumerate(("out/data.jsonl", "table/data.parquet")):
        again = {**recipe, "sources": [{"path": str(tmp_path / source)}]}
        done = mix(tmp_path, again, out=f"again{number}")
        assert done.returncode == 0, done.stderr
        found = read_lines(tmp_path / f"again{number}" / "data.jsonl")
        assert [row["messages"] for row in found] == [row["messages"] for row in made]
        assert found[0]["tools"] == made[0]["tools"]
    card = json.loads((tmp_path / "out" / "manifest.json").read_text())["mix"]
    assert card["thoughts"] == card["tools"] == 0.5


def test_pairs_and_prompts_with_truths(tmp_path: Path) -> None:
    pair = {"prompt": "Say hi.", "chosen": "Hi.", "rejected": "No."}
    long = {"prompt": "Say more.", "chosen": "Hi. " * 200, "rejected": "No."}
    recipe = {
        "kind": "preference", "sources": [{"path": write(tmp_path / "p.jsonl", [pair, long])}],
        "filters": {"max_length_difference": 100},
    }  # fmt: skip
    assert mix(tmp_path, recipe).returncode == 0
    (made,) = read_lines(tmp_path / "out" / "data.jsonl")
    assert [turn["content"] for turn in made["chosen"]] == ["Say hi.", "Hi."]
    assert read_lines(tmp_path / "out" / "rejected.jsonl")[0]["reason"] == "max_length_difference"
    prompt = {"prompt": "user: What is 1 + 2?", "ground_truth": ["3"], "dataset": ["math"]}
    verl = {"data_source": "gsm8k", "prompt": [{"role": "user", "content": "2 + 2?"}],
            "reward_model": {"style": "rule", "ground_truth": "4"}}  # fmt: skip
    recipe = {"kind": "rlvr", "sources": [{"path": write(tmp_path / "r.jsonl", [prompt, verl])}], "shuffle": False}
    done = mix(tmp_path, recipe, out="prompts")
    assert done.returncode == 0, done.stderr
    made = read_lines(tmp_path / "prompts" / "data.jsonl")
    assert [(row["messages"][0]["content"], row["ground_truth"], row["dataset"]) for row in made] == [
        ("What is 1 + 2?", "3", "math"), ("2 + 2?", "4", "gsm8k"),
    ]  # fmt: skip


TURN = {"role": "user", "content": "Q"}
BAD: list[tuple[str, Any, str]] = [
    ("sft", "{not json", "row 1 is not JSON"),
    ("sft", [1, 2], "row 1 is not a JSON object"),
    ("sft", {"messages": [{"content": "Q"}, {"role": "assistant", "content": "A"}]}, "row 1 has"),
    ("sft", {"messages": [{"role": "assistant", "content": "A"}, TURN]}, "row 1 has wrong turn order"),
    ("sft", {"messages": [TURN, TURN]}, "row 1 has wrong turn order"),
    (
        "sft",
        {"messages": [TURN, {"role": "narrator", "content": "A"}]},
        "row 1 has a turn of the unknown role 'narrator'",
    ),
    ("sft", chat("Q", " "), "row 1 has an empty assistant turn"),
    ("sft", chat(" ", "A"), "row 1 has an empty user turn"),
    ("sft", {"messages": []}, "row 1 has no 'messages'"),
    ("sft", {"chosen": "a", "rejected": "b", "prompt": "q"}, "row 1 has no 'messages': it is a pair"),
    ("sft", {"messages": [TURN, {"role": "assistant", "content": 7}]}, "row 1 has 'messages' with a content"),
    ("sft", {"messages": [TURN, {"role": "assistant", "content": "\ud800"}]}, "row 1 has text that is not Unicode"),
    ("preference", {"prompt": "q", "chosen": "same", "rejected": "same"}, "row 1 has equal answers"),
    ("preference", chat("Q", "A"), "row 1 has no 'chosen'"),
    ("rlvr", {"messages": [TURN], "ground_truth": "1", "dataset": "mystery"}, "row 1 has an unknown verifier"),
    ("rlvr", {"messages": [TURN], "ground_truth": "1", "dataset": "gpqa"}, "row 1 has an unknown verifier: 'gpqa'"),
    ("rlvr", {"messages": [TURN], "dataset": "math"}, "row 1 has no 'ground_truth'"),
    ("rlvr", {"messages": [TURN], "ground_truth": "1"}, "row 1 has no verifier"),
    ("rlvr", {"messages": [TURN], "ground_truth": ["1", "2"], "dataset": ["math", "math"]}, "row 1 has 2 values"),
]
GOOD = {
    "sft": chat("A question", "an answer"),
    "preference": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "rlvr": {"messages": [TURN], "ground_truth": "1", "dataset": "math"},
}


@pytest.mark.parametrize(("kind", "bad", "message"), BAD, ids=[f"{number}" for number in range(len(BAD))])
def test_a_bad_row_is_named_by_source_and_row_and_nothing_is_written(
    tmp_path: Path, kind: str, bad: Any, message: str
) -> None:
    recipe = {
        "kind": kind,
        "sources": [{"name": "talks", "path": write(tmp_path / "a.jsonl", [GOOD[kind], bad])}],
    }
    done = mix(tmp_path, recipe)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        "source 'talks'" in done.stderr
        and message in done.stderr
        and "1 of 2 rows cannot be used; `bad_rows: skip` leaves" in done.stderr
    )
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.unfinished").exists()
    recipe["sources"][0]["bad_rows"] = "skip"
    assert mix(tmp_path, recipe).returncode == 0
    assert read_lines(tmp_path / "out" / "rejected.jsonl")[0]["row"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"amount": 11}, "line 4: source 'a': asks for 11 rows, but has 10; ask for fewer, or set `upsample: true`"),
        ({"fraction": 1.5}, "fraction 1.5 asks for more rows than exist; set `upsample: true`"),
        ({"share": 0.5}, "a share needs the recipe's key `rows`"),
        ({"amount": 1, "fraction": 0.5}, "give only one of amount and fraction"),
        ({"amount": 0}, "amount must be at least 1"),
        ({"licence": None, "path": "missing.jsonl"}, "missing.jsonl: no such file or folder"),
        ({"hub": "a/b"}, "give either `path` or `hub`"),
        ({"filters": {"match": "("}}, "match: not a regular expression"),
        ({"filters": {"min_tokens": 9, "max_tokens": 3}}, "min_tokens 9 is more than max_tokens 3"),
        ({"filters": {"max_length_difference": 3}}, "only pairs have two lengths"),
        ({"amonut": 3}, "unknown key 'amonut', did you mean 'amount'?"),
        ({"filters": {"min_turns": 5}}, "no row is left: 10 min turns"),
        ({"filters": {"where": {"levle": 1}}}, "no row is left: 10 where"),
        ({"form": "alpaca"}, "row 0 has no 'output'; 10 of 10 rows cannot be used"),
        ({"path": "mix.yaml"}, "not a file of type"),
        ({"keep": ["score", "source"]}, "source 'a': keep: the mix writes a column 'source' itself"),
    ],
)
def test_mistakes_in_a_source_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = {"path": write(tmp_path / "a.jsonl", rows(10)), **changes}
    done = mix(tmp_path, {"sources": [source], "seed": 1})
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("count", "said"), [(1, "the only one is held out"), (3, "all 3 are held out")])
def test_a_mix_without_a_row_to_train_on_is_not_made(tmp_path: Path, count: int, said: str) -> None:
    done = mix(tmp_path, {"sources": [{"path": write(tmp_path / "a.jsonl", rows(count))}], "held_out": 0.9999})
    assert done.returncode == 2 and f"held_out 0.9999 leaves no row to train on: {said}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_too_few_rows_after_duplicates_are_named_with_what_was_lost(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(10) * 2)
    done = mix(tmp_path, {"sources": [{"path": path, "amount": 15}]})
    assert done.returncode == 2 and "has 10 (20 without 10 exact duplicate)" in done.stderr
    assert mix(tmp_path, {"sources": [{"path": path, "amount": 15, "upsample": True}]}).returncode == 0
    copies = Counter(row["row"] for row in read_lines(tmp_path / "out" / "data.jsonl"))
    assert len(copies) == 10 and set(copies.values()) == {1, 2}


def test_licences_can_be_required(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(4))
    done = mix(tmp_path, {"sources": [{"path": path}], "licences": "required"})
    assert done.returncode == 2 and "source 'a': no licence, and the recipe says `licences: required`" in done.stderr
    for said in ("", "Unknown", "n/a", "none"):
        assert keys.Source(path=path, licence=said).known_licence is None


def test_kept_columns_of_different_types_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", [chat("Q 1", "A 1", score=1), chat("Q 2", "A 2", score=2.5)])
    other = write(tmp_path / "b.jsonl", [chat("Q 3", "A 3"), chat("Q 4", "A 4", score="high")])
    done = mix(tmp_path, {"sources": [{"path": one}, {"path": other}], "keep": ["score"]})
    assert done.returncode == 2 and "'score' has different types" in done.stderr
    assert "source 'a' has a whole number in row 0, source 'b' has text in row 1" in done.stderr
    done = mix(tmp_path, {"sources": [{"path": one}], "keep": ["score"], "format": "parquet"})
    assert done.returncode == 0, done.stderr
    huge = write(tmp_path / "c.jsonl", [chat("Q 5", "A 5", score=2**63)])
    done = mix(tmp_path, {"sources": [{"path": huge}], "keep": ["score"], "format": "parquet"}, out="huge")
    assert done.returncode == 2 and "row 0 has a number in 'score' that takes more than 64 bits" in done.stderr
    assert not (tmp_path / ".huge.unfinished").exists()
    scores = sorted(row["score"] for row in pq.read_table(tmp_path / "out" / "data.parquet").to_pylist())
    assert scores == [1.0, 2.5]


@pytest.mark.long
def test_contamination_can_stop_the_mix(tmp_path: Path) -> None:
    made = rows(20)
    items = [{"task": "mine", "doc_id": n, "text": made[n]["messages"][0]["content"]} for n in range(5)]
    recipe = {
        "sources": [{"path": write(tmp_path / "a.jsonl", made)}],
        "decontam": {"file": write(tmp_path / "items.jsonl", items), "on_contamination": "stop"},
    }
    done = mix(tmp_path, recipe)
    assert done.returncode == 1 and "5 of 5 items of mine" in done.stderr and not (tmp_path / "out").exists()
    done = mix(tmp_path, recipe, "--set", "decontam.on_contamination=warn")
    assert done.returncode == 0 and len(read_lines(tmp_path / "out" / "data.jsonl")) == 20
    assert (tmp_path / "out" / "decontamination" / "report.html").is_file()


def test_dry_run_and_json_print_plan_and_manifest(tmp_path: Path) -> None:
    recipe = {"sources": [{"path": write(tmp_path / "a.jsonl", rows(4)), "licence": "MIT"}]}
    done = mix(tmp_path, recipe, "--dry-run")
    assert done.returncode == 0 and "a: all, 1 file" in done.stdout and not (tmp_path / "out").exists()
    done = mix(tmp_path, recipe, "--json")
    assert json.loads(done.stdout)["counts"]["written"] == 4
    done = mix(tmp_path, recipe)
    assert done.returncode == 2 and "is not empty" in done.stderr
    assert mix(tmp_path, recipe, "--resume").returncode == 0


def test_blocks_give_what_the_whole_file_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [*rows(50), "{broken"]
    recipe = {"sources": [{"path": write(tmp_path / "a.jsonl", lines), "bad_rows": "skip"}], "shuffle": False}
    assert mix(tmp_path, recipe).returncode == 0
    monkeypatch.setattr("decontam.training_data.sources.BLOCK_BYTES", 2000)
    other = tmp_path / "blocks"
    other.mkdir()
    assert mix(other, recipe).returncode == 0
    assert len(list((other / "cache" / "data" / "parts").iterdir())) > 5
    for name in ("data.jsonl", "rejected.jsonl", "card.md"):
        assert (tmp_path / "out" / name).read_bytes() == (other / "out" / name).read_bytes()


def test_a_damaged_part_is_made_again(tmp_path: Path) -> None:
    from olmes_suite.training_rows.files import Block

    job = Job(Block(Path(write(tmp_path / "a.jsonl", rows(5))), "jsonl"), Settings("sft"), tmp_path / "parts")
    assert read(job) is None
    run_job(job)
    part = read(job)
    assert part is not None and part.rows == 5 and len(Pool.of(["a"], [[part]])) == 5
    with (job.folder / "rows.jsonl").open("ab") as file:
        file.write(b"torn")
    assert read(job) is None
    run_job(job)
    assert read(job) is not None


def test_rows_with_an_open_thought_are_filtered_where_asked_for_and_bad_rows_otherwise(tmp_path: Path) -> None:
    lines = [chat("one", "<think>so"), chat("two", "well <think>so"), chat("three", "<think>so</think>yes")]
    path = write(tmp_path / "a.jsonl", lines)
    done = mix(tmp_path, {"sources": [{"path": path, "filters": {"closed_thoughts": True}}]})
    assert done.returncode == 0, done.stderr
    reasons = {one["row"]: one["reason"] for one in read_lines(tmp_path / "out" / "rejected.jsonl")}
    assert reasons == {0: "closed_thoughts", 1: "closed_thoughts"}
    done = mix(tmp_path, {"sources": [{"path": path}]}, out="other")
    assert done.returncode == 2 and "row 0 has an assistant turn with a '<think>' that is not closed" in done.stderr


def test_unfinished_parts_of_killed_mixes_are_removed_after_a_day(tmp_path: Path) -> None:
    parts = tmp_path / "cache" / "data" / "parts"
    for name in ("old.1.tmp", "new.2.tmp"):
        (parts / name).mkdir(parents=True)
    os.utime(parts / "old.1.tmp", (1, 1))
    done = mix(tmp_path, {"sources": [{"path": write(tmp_path / "a.jsonl", rows(3))}]})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in parts.glob("*.tmp")] == ["new.2.tmp"]


def test_built_prompts_differ_by_their_question_and_not_by_the_exemplars(tmp_path: Path) -> None:
    made = [
        {
            "question": f"How many apples are in {n} boxes of {n * 3 + 5} each, if {n + 1} fall out?",
            "answer": f"#### {n}",
        }
        for n in range(2, 30)
    ]
    path = write(tmp_path / "a.jsonl", [*made, made[0]])
    source = {"path": path, "build": "gsm8k", "shots": 8}
    done = mix(tmp_path, {"kind": "rlvr", "sources": [source]})
    assert done.returncode == 0, done.stderr
    assert len(read_lines(tmp_path / "out" / "data.jsonl")) == 28
    for changes, message in (({"shots": 9}, "shots must be from 0 to 8"), ({"constraints": [3, 1]}, "such as [1, 3]")):
        done = mix(tmp_path, {"kind": "rlvr", "sources": [{**source, **changes}]}, out="other")
        assert done.returncode == 2 and message in done.stderr
    done = mix(tmp_path, {"sources": [source]}, out="other")
    assert done.returncode == 2 and "this mix is sft" in done.stderr


def files_below(folder: Path) -> set[str]:
    """List the files without those that are still being written, whose names differ with each process."""
    found = (os.path.join(top, name) for top, _, names in os.walk(folder) for name in names)
    return {path for path in found if ".tmp" not in path and not path.endswith(".part")}


@pytest.mark.slow
def test_a_mix_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """A kill comes soon after a file appears that no earlier attempt left, so that it meets each step of the work."""
    sources = [{"path": write(tmp_path / f"{name}.jsonl", rows(1500, seed=n))} for n, name in enumerate("abcd")]
    made = {"sources": sources, "held_out": 0.1, "format": "jsonl"}
    assert mix(tmp_path, made, out="whole").returncode == 0
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(made))
    command = [sys.executable, "-m", "olmes_suite.cli.main", "data", "mix", "mix.yaml", "--out", "out", "--resume"]
    (tmp_path / "fresh").mkdir()
    known, rng, kills = files_below(tmp_path), random.Random(0), 0
    while True:
        with subprocess.Popen(
            [*command, "--workers", "1"], cwd=tmp_path, env=environment(tmp_path / "fresh"), stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            while process.poll() is None and files_below(tmp_path) <= known:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.01))
            if process.poll() is not None or (tmp_path / "out").exists():
                _, error = process.communicate()
                break
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            known |= files_below(tmp_path)
    assert kills > 2 and process.returncode == 0, error
    for file in sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file()):
        assert file.read_bytes() == (tmp_path / "out" / file.relative_to(tmp_path / "whole")).read_bytes()


def test_a_tokenizer_counts_tokens(tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(5))
    done = mix(tmp_path, {"sources": [{"path": path}], "tokenizer": str(tiny_checkpoint)}, "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)["mix"]
    assert content["tokens"] > 0 and content["tokens_by"] == str(tiny_checkpoint)
    done = mix(tmp_path, {"sources": [{"path": path}], "tokenizer": str(tmp_path / "none")}, out="other")
    assert done.returncode == 2 and "tokenizer" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.arrow"])
def test_a_damaged_file_is_named_with_its_source(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08 nothing of that kind")
    done = mix(tmp_path, {"sources": [{"path": str(tmp_path / name)}]})
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "source 'a'" in done.stderr, done.stderr
    assert str(tmp_path / name) in done.stderr and not (tmp_path / "out").exists()


def test_json_is_alone_on_stdout_and_notes_are_on_stderr(tmp_path: Path) -> None:
    done = mix(tmp_path, {"sources": [{"path": write(tmp_path / "a.jsonl", rows(3))}]}, "--json")
    json.loads(done.stdout)
    assert done.stderr == "note: no licence is given for a\n"
