"""The evaluation side: the declared fields against rendered requests, the index' cache, variants, flags."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import environment, write_gsm8k

from decontam.items import items as evals
from decontam.matching import prepared_index
from decontam.matching.rule import Rule
from decontam.text import tokens
from olmes_suite.cli.main import run
from olmes_suite.errors import UsageError
from olmes_suite.tasks import index
from olmes_suite.tasks.documents import DataSource

SAMPLE = DataSource((), sample=True)


def inside(part: list[str], whole: list[str]) -> bool:
    return any(whole[k : k + len(part)] == part for k in range(len(whole) - len(part) + 1))


@pytest.mark.long
@pytest.mark.parametrize(
    "entry",
    [entry for entry in index.top_level() if evals.has_texts(index.index()[entry.leaves[0]])],
    ids=lambda entry: entry.name,
)
def test_declared_texts_stand_in_the_rendered_requests(entry: index.TaskEntry) -> None:
    """Read by pyarrow without lm-eval, and rendered by lm-eval: the same rows, and the same words in them."""
    from olmes_suite.evaluation.plan import Leaf
    from olmes_suite.tasks.load import load_task

    leaf = entry.leaves[0]
    wanted = evals.of_suites((), (leaf,), {})
    task = load_task(index.task_file(index.index()[leaf]), SAMPLE)
    items = {item.doc_id: item for item in evals.items(wanted.evaluations[0], SAMPLE)}
    documents = dict(Leaf(leaf, task, range(len(task.task_docs))).documents())
    assert set(documents) <= set(items) and documents
    for doc_id, doc in documents.items():
        asked = task.requests(doc, doc_id, chat=True)
        rendered = "\n".join(
            "\n".join(text for _, text in request.messages) if request.messages else request.text or ""
            for request in asked
        )
        whole = tokens.tokenize(rendered + "\n" + "\n".join(request.continuation or "" for request in asked))
        for field, text in items[doc_id].parts:
            for line in text.splitlines():
                assert inside(tokens.tokenize(line), whole), (leaf, doc_id, field, line)


def test_suites_name_each_evaluation_once_and_safety_by_its_sets() -> None:
    wanted = evals.of_suites((), (), {})
    names = [evaluation.name for evaluation in wanted.evaluations]
    assert len(names) == len(set(names))
    assert "tulu3_safety_xstest" in names and "tulu3_safety" not in names and "tulu3_mmlu" in names
    unseen = {evaluation.name for evaluation in wanted.evaluations if evaluation.unseen}
    assert "tulu3_agieval" in unseen and "tulu3_gsm8k" not in unseen


@pytest.mark.long
def test_fields_can_be_chosen() -> None:
    wanted = evals.of_suites((), ("mmlu_anatomy", "gsm8k"), {"mmlu_anatomy": ["question"]})
    assert [leaf.fields for e in wanted.evaluations for leaf in e.leaves] == [("question",), ("question",)]
    with pytest.raises(UsageError, match="did you mean"):
        evals.of_suites((), ("gsm9k",), {})


def test_the_index_is_kept_and_changes_with_the_data(tmp_path: Path) -> None:
    source = DataSource((write_gsm8k(tmp_path / "data"),))
    wanted = evals.of_suites((), ("gsm8k",), {})
    first = prepared_index.of_suites(wanted, source, Rule())
    again = prepared_index.of_suites(wanted, source, Rule())
    assert (first.cached, again.cached) == (False, True) and again.index.key == first.index.key
    assert not prepared_index.of_suites(wanted, source, Rule(n=5)).cached
    write_gsm8k(tmp_path / "data", rows=41)
    other = prepared_index.of_suites(wanted, source, Rule())
    assert not other.cached and other.index.items == 41


def test_variants_of_a_task_are_flagged_with_it(tmp_path: Path) -> None:
    path = tmp_path / "data/cais/mmlu/anatomy/test.parquet"
    path.parent.mkdir(parents=True)
    question = "Which of these bones would a person who fell on the ice be the least likely to break?"
    row = {"question": question, "subject": "anatomy", "choices": ["this", "that", "both", "none"], "answer": 0}
    pq.write_table(pa.Table.from_pylist([row] * 2), path)
    train = tmp_path / "t.jsonl"
    train.write_text(json.dumps({"prompt": question}) + "\n", encoding="utf-8")
    args = ["--train", str(train), "--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert run(["decontam", "scan", *args, "--task", "mmlu_anatomy", "--workers", "1"]) == 1
    flags = json.loads((tmp_path / "out/flags.json").read_text())
    assert flags["tulu3_mmlu_anatomy"] == [0, 1] and flags["tulu3_mmlu_mc_anatomy"] == [0, 1]


ITEM = "Janet has three ducks that lay sixteen eggs every single morning of the week and eats two"
MINE = """task: my_gsm8k
dataset_path: openai/gsm8k
dataset_name: main
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
metadata: {version: 1, texts: [question]}
"""


def one_item(folder: Path) -> list[str]:
    """A mirror whose GSM8K has one row, a training set that holds it, and the arguments of a scan."""
    path = folder / "data/openai/gsm8k/main/test.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{"question": ITEM, "answer": "#### 9"}]), path)
    (folder / "t.jsonl").write_text(json.dumps({"prompt": ITEM}) + "\n", encoding="utf-8")
    where = ["--data-dir", str(folder / "data"), "--out", str(folder / "out"), "--workers", "1"]
    return ["decontam", "scan", "--train", str(folder / "t.jsonl"), *where]


def test_a_task_of_the_users_own_is_flagged_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/my_gsm8k.yaml").write_text(MINE)
    given = ["--task", "my_gsm8k", "--include-path", str(tmp_path / "mine")]
    assert run([*one_item(tmp_path), *given]) == 1
    flags = json.loads((tmp_path / "out/flags.json").read_text())
    assert flags["my_gsm8k"] == [0] and flags["tulu3_gsm8k"] == [0]


def test_a_group_names_the_fields_of_its_members() -> None:
    fields = {"mmlu": ["choices"], "mmlu_anatomy": ["question"], "": ["answer"]}
    wanted = evals.of_suites((), ("mmlu", "gsm8k"), fields)
    found = {leaf.task: leaf.fields for e in wanted.evaluations for leaf in e.leaves}
    assert found["tulu3_mmlu_anatomy"] == ("question",) and found["tulu3_mmlu_virology"] == ("choices",)
    assert found["tulu3_gsm8k"] == ("answer",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(["--eval-field", "gsm9k:question"], "unknown task 'gsm9k'", marks=pytest.mark.long),
        pytest.param(
            ["--eval-field", "mmlu:question"], "is not among the evaluations to compare", marks=pytest.mark.long
        ),
        pytest.param(
            ["--eval-field", "gsm8k:question", "--eval-field", "gsm8k:questoin"],
            "gsm8k:questoin: the data set has",
            marks=pytest.mark.long,
        ),
        (["--eval-field", "question", "--eval-field", "questoin"], "questoin: none of the evaluations"),
    ],
)
def test_a_wrong_field_is_one_line(given: list[str], said: str, tmp_path: Path, capfd: Any) -> None:
    assert run([*one_item(tmp_path), "--task", "gsm8k", *given]) == 2
    assert said in capfd.readouterr().err and not (tmp_path / "out").exists()
    assert run([*one_item(tmp_path), "--task", "gsm8k", "--eval-field", "gsm8k:question"]) == 1
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"task": "t", "doc_id": 1, "text": ITEM}), encoding="utf-8")
    assert run([*one_item(tmp_path), "--eval", str(own), "--eval-field", "text"]) == 2


@pytest.mark.parametrize("task", ["gpqa", "gpqa_llama31"])
def test_brackets_of_a_gpqa_question_stay(task: str, tmp_path: Path) -> None:
    leaf = evals.of_suites((), (task,), {}).evaluations[0].leaves[0]
    path = tmp_path / "Idavidrein/gpqa/gpqa_main/train.parquet"
    path.parent.mkdir(parents=True)
    row = dict.fromkeys(leaf.spec.columns, "a choice [a note]") | {"Question": "the state [one, two] now"}
    pq.write_table(pa.Table.from_pylist([row]), path)
    parts = dict(evals.items(evals.of_suites((), (task,), {}).evaluations[0], DataSource((tmp_path,)))[0].parts)
    assert parts.pop("Question") == "the state [one, two] now" and set(parts.values()) == {"a choice "}


@pytest.mark.long
def test_the_kept_index_knows_the_variants_and_what_is_unseen(tmp_path: Path, monkeypatch: Any) -> None:
    """A release that adds a variant, or moves a task to `unseen`, does not load the index of the last one."""
    source = DataSource((write_gsm8k(tmp_path / "data"),))
    wanted = evals.of_suites((), ("gsm8k",), {})
    before = prepared_index.of_suites(wanted, source, Rule())
    assert prepared_index.of_suites(wanted, source, Rule()).cached
    moved = replace(wanted, evaluations=tuple(replace(e, unseen=True) for e in wanted.evaluations))
    assert prepared_index.of_suites(moved, source, Rule()).index.evaluations[0]["unseen"]
    same = {"tulu3_gsm8k": [*before.index.same["tulu3_gsm8k"], "tulu3_gsm8k_new"]}
    monkeypatch.setattr(evals, "siblings", lambda leaves: same)
    assert prepared_index.of_suites(wanted, source, Rule()).index.same == same


def test_nothing_to_scan_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train = tmp_path / "t.jsonl"
    train.write_text('{"prompt": "x"}\n', encoding="utf-8")
    (tmp_path / "data").mkdir()
    args = ["--train", str(train), "--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert run(["decontam", "scan", *args, "--task", "gsm8k"]) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_reading_evaluations_imports_no_lm_eval(tmp_path: Path) -> None:
    code = (
        "import sys; from decontam.items import items as evals; from olmes_suite.tasks.documents import DataSource\n"
        "w = evals.of_suites((), ('gsm8k', 'mmlu'), {}); evals.read(w, DataSource((), sample=True))\n"
        "assert not {'lm_eval', 'torch', 'datasets'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_index_of_all_suites_on_real_data(data_dir: Path) -> None:
    """GSM8K's rows are as many as the evaluator has, and everything fits into memory."""
    prepared = prepared_index.of_suites(evals.of_suites((), (), {}), DataSource((data_dir,)), Rule())
    sizes = {e["name"]: e["end"] - e["first"] for e in prepared.index.evaluations}
    assert sizes["tulu3_gsm8k"] == 1319 and sizes["tulu3_mmlu"] == 14042 and sizes["tulu3_bbh"] == 6511
    assert prepared.index.nbytes < 5e8
