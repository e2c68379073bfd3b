"""Values that JSON does not have, sizes that are rounded, and prompts with several turns, in `olmes data mix`."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mix_cases import WORDS, chat, mix, read_lines, rows, write

from train_plugins.data.curation.mix.convert import Converter
from train_plugins.data.curation.prompt_rows import prompt_of

pytest.importorskip("rensa")
pytest.importorskip("numba")

MOMENT = datetime.datetime(2024, 5, 1, 12, 30)
KEPT: list[tuple[Any, Any]] = [
    (pa.array([MOMENT]), "2024-05-01T12:30:00"),
    (pa.array([MOMENT.date()]), "2024-05-01"),
    (pa.array([decimal.Decimal("1.5")]), 1.5),
    (pa.array([float("nan")]), None),
    (pa.array([{"at": MOMENT.date(), "score": float("nan")}]), {"at": "2024-05-01", "score": None}),
]


def table(tmp: Path, extra: pa.Array) -> str:
    path = tmp / "a.parquet"
    pq.write_table(pa.table({"messages": pa.array([chat("Q", "A")["messages"]]), "extra": extra}), path)
    return str(path)


@pytest.mark.parametrize(("extra", "expected"), KEPT, ids=["time", "date", "decimal", "nan", "nested"])
def test_kept_columns_of_tables_become_what_json_has(tmp_path: Path, extra: pa.Array, expected: Any) -> None:
    recipe = {"sources": [{"path": table(tmp_path, extra), "keep": ["extra"]}]}
    for form in ("jsonl", "parquet"):
        done = mix(tmp_path, {**recipe, "format": form}, out=form)
        assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "jsonl" / "data.jsonl").read_text().splitlines()
    assert "NaN" not in line and json.loads(line).get("extra") == expected
    (row,) = pq.read_table(tmp_path / "parquet" / "data.parquet").to_pylist()
    assert row.get("extra") == (json.dumps(expected) if isinstance(expected, dict) else expected)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (pa.array([b"\x00"]), "row 0 has a value of type bytes in 'extra', which JSON does not have"),
        (pa.array([datetime.timedelta(1)]), "a value of type timedelta in 'extra'"),
        (pa.array([float("inf")]), "row 0 has an infinite number in 'extra'"),
        (pa.array([2**63], pa.uint64()), "row 0 has a number in 'extra' that takes more than 64 bits"),
    ],
)
def test_values_that_no_text_stands_for_are_bad_rows(tmp_path: Path, extra: pa.Array, message: str) -> None:
    done = mix(tmp_path, {"sources": [{"path": table(tmp_path, extra), "keep": ["extra"]}]})
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_truth_and_an_argument_that_json_does_not_have_are_bad_rows(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": float("nan")}}}
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    done = mix(tmp_path, {"sources": [{"path": write(tmp_path / "a.jsonl", [{"messages": turns}])}]})
    assert done.returncode == 2 and "row 0 has a number that JSON does not have" in done.stderr, done.stderr
    prompts = pa.table({"prompt": ["Q"], "ground_truth": pa.array([[MOMENT.date()]]), "dataset": ["gsm8k"]})
    pq.write_table(prompts, tmp_path / "b.parquet")
    done = mix(tmp_path, {"kind": "rlvr", "sources": [{"path": str(tmp_path / "b.parquet")}]})
    assert done.returncode == 2 and "row 0 has" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_whole_numbers_that_a_float_cannot_hold_do_not_break_a_table(tmp_path: Path) -> None:
    lines = [chat("Q 1", "A 1", score=1.5), chat("Q 2", "A 2", score=2**60 + 1)]
    done = mix(tmp_path, {"sources": [{"path": write(tmp_path / "a.jsonl", lines)}], "keep": ["score"],
                          "format": "parquet"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = pq.read_table(tmp_path / "out" / "data.parquet").to_pylist()
    assert sorted(row["score"] for row in made) == [1.5, float(2**60 + 1)]


@pytest.mark.parametrize(
    ("size", "shares", "expected"),
    [
        (5, [0.5, 0.5], [3, 2]),
        (100, [1 / 3, 1 / 3, 1 / 3], [34, 33, 33]),
        (10, [0.25] * 4, [3, 3, 2, 2]),
        (10, [0.17, 0.33], [2, 3]),
        (100, [0.29, 0.57, 0.14], [29, 57, 14]),
    ],
)
def test_shares_add_up_to_the_rows_of_the_mix(
    tmp_path: Path, size: int, shares: list[float], expected: list[int]
) -> None:
    sources = [
        {"path": write(tmp_path / f"{n}.jsonl", rows(60, seed=n)), "share": share} for n, share in enumerate(shares)
    ]
    done = mix(tmp_path, {"rows": size, "sources": sources}, "--json")
    assert done.returncode == 0, done.stderr
    assert [one["rows"] for one in json.loads(done.stdout)["mix"]["sources"]] == expected


def test_an_impossible_amount_is_one_line(tmp_path: Path) -> None:
    source = {"path": write(tmp_path / "a.jsonl", rows(4)), "upsample": True}
    for size in ({"amount": 10**15}, {"fraction": 1e18}):
        done = mix(tmp_path, {"sources": [{**source, **size}]})
        assert done.returncode == 2 and "a source may have 1,000,000,000 at most" in done.stderr


def test_prompts_with_exemplars_as_turns_differ_by_their_question(tmp_path: Path) -> None:
    """What is held out, and which prompts are equal, is not decided by the exemplar that all of them begin with."""
    shown = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    made = [
        {"messages": [*shown, {"role": "user", "content": f"How many {WORDS[n]} are {n} {WORDS[7 * n]}?"}],
         "ground_truth": str(n), "dataset": "gsm8k"}
        for n in range(40)
    ]  # fmt: skip
    recipe = {"kind": "rlvr", "sources": [{"path": write(tmp_path / "a.jsonl", made)}], "held_out": 0.5,
              "duplicates": {"near": None, "by": "prompt"}}  # fmt: skip
    done = mix(tmp_path, recipe)
    assert done.returncode == 0, done.stderr
    sizes = [len(read_lines(tmp_path / "out" / f"{name}.jsonl")) for name in ("data", "held_out")]
    assert sum(sizes) == 40 and min(sizes) > 5


COLUMNS = {
    "ifeval": {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    "code": {"prompt": "def f(a):\n", "test": "def check(c):\n    assert c(1) == 1\n", "entry_point": "f"},
    "code_stdio": {"test_cases": [{"input": "1", "output": "2"}]},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_truth_in_columns_of_its_own_stays(name: str) -> None:
    row = {"messages": [{"role": "user", "content": "Do it."}], "dataset": name, **COLUMNS[name]}
    made = Converter("rlvr")(row)
    assert json.loads(made["ground_truth"]) == COLUMNS[name]
    prompt = prompt_of(row, "set", 0)
    assert (prompt.verifier, prompt.truth) == (name, COLUMNS[name])


@pytest.mark.parametrize("key", ["dataset", "verifier", "data_source"])
@pytest.mark.parametrize("listed", [False, True])
def test_prompts_and_mixes_find_the_verifier_of_such_a_truth_alike(key: str, listed: bool) -> None:
    for asked in ({"messages": [{"role": "user", "content": "Do it."}]}, {"instruction": "Do it."}):
        row = {**asked, key: ["my_rules"] if listed else "my_rules", **COLUMNS["ifeval"]}
        if "messages" in asked:
            assert Converter("rlvr", verifiers={"my_rules": "ifeval"})(row)["dataset"] == "ifeval"
        prompt = prompt_of(row, "set", 0, {"my_rules": "ifeval"})
        assert (prompt.text, prompt.verifier, prompt.truth) == ("Do it.", "ifeval", COLUMNS["ifeval"])


def test_a_truth_that_lacks_a_part_has_it_from_its_column() -> None:
    truth = dict(COLUMNS["code"])
    row = {"messages": [{"role": "user", "content": "Do it."}], "dataset": "code", "prompt": truth.pop("prompt")}
    row["ground_truth"] = truth
    assert json.loads(Converter("rlvr")(row)["ground_truth"]) == COLUMNS["code"]
    assert prompt_of(row, "set", 0).truth == COLUMNS["code"]


def test_a_prompt_without_a_reference_has_none_instead_of_a_text() -> None:
    row = {"messages": [{"role": "user", "content": "Write a poem."}], "dataset": "judge"}
    assert Converter("rlvr")(row)["ground_truth"] is None
    assert prompt_of({**row, "dataset": "code", "prompt": "def f"}, "set", 0).verifier is None
