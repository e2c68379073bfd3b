"""IFBench and IFEval-OOD: sample golds, rows left out, the reference's examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from constraint_cases import ADDED
from helpers import ROOT

from olmes_suite.constraints.registry import everything
from olmes_suite.scoring import language_resources
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task

SAMPLE = DataSource((), sample=True)
TASKS = {name: ROOT / f"tasks/{name.removesuffix('_repaired')}/tulu3_{name}.yaml" for name in (
    "ifbench", "ifbench_repaired", "ifeval_ood", "ifeval_ood_repaired",
)}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_sample_golds(name: str) -> None:
    task = load_task(TASKS[name], SAMPLE)
    docs = [doc for doc in task.task_docs if not any(map(language_resources.missing, task.keys.resources(doc)))]
    assert len(docs) > len(task.task_docs) / 3, "most need nothing beside the response"
    for doc in docs:
        gold, corrupt = task.keys.gold(doc), task.keys.corrupt(doc)
        assert set(task.scorer.one(doc, gold).scores.values()) == {1.0}, doc
        assert task.scorer.one(doc, corrupt).scores["prompt_level_loose_acc"] == 0.0, doc


def test_samples_cover_all_that_needs_no_model_of_the_users() -> None:
    named = {
        name for doc in load_task(TASKS["ifeval_ood_repaired"], SAMPLE).task_docs for name in doc["instruction_id_list"]
    }
    assert named == set(everything("repaired")) - set(ADDED) - {"count:countries", "count:test_only_vowels"}


def test_french_rows_are_left_out_and_counted_in_the_reference() -> None:
    reference, repaired = (load_task(TASKS[name], SAMPLE) for name in ("ifeval_ood", "ifeval_ood_repaired"))
    assert list(reference.left_out.values()) == ["count:words_french"] and repaired.left_out == {}
    assert len(reference.task_docs) + 1 == len(repaired.task_docs)
    (row,) = reference.left_out
    assert row not in reference.task_docs["_row"]
    assert repaired.task_docs[row]["instruction_id_list"] == ["count:words_french"]
    last = repaired.task_docs[len(repaired.task_docs) - 1]
    assert reference.task_docs[len(reference.task_docs) - 1]["key"] == last["key"], "rows keep their numbers"


@pytest.mark.data
def test_scores_equal_the_references(data_dir: Path, protocol_dir: Path, nltk_data: None) -> None:
    task = load_task(TASKS["ifbench"], DataSource((data_dir,)))
    docs, seen = task.task_docs, 0
    with (protocol_dir / "examples/scores.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["task"] == "tulu3_ifbench":
                found = task.scorer.one(docs[row["doc_id"]], row["response"]).scores
                assert {metric: found[metric] for metric in row["expected"]} == row["expected"], row["doc_id"]
                seen += 1
    assert seen == 70


@pytest.mark.data
def test_prompts_equal_the_references(data_dir: Path, protocol_dir: Path) -> None:
    task, seen = load_task(TASKS["ifbench"], DataSource((data_dir,))), 0
    with (protocol_dir / "examples/prompts.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["task"] == "tulu3_ifbench":
                (request,) = task.requests(task.task_docs[row["doc_id"]], row["doc_id"], chat=True)
                assert request.chat == row["messages"] and list(request.stop) == row["stop"]
                assert (request.max_tokens, request.temperature, request.samples) == (2048, 0.0, 1)
                seen += 1
    assert seen == 6


@pytest.mark.data
@pytest.mark.long
def test_one_noun_and_the_two_profiles(data_dir: Path, nltk_data: None) -> None:
    """The measured floors of docs/ifeval_ood.md: one noun passes 120 of IFBench's 300 prompts, and 33 repaired."""
    passed = {}
    for name in ("ifbench", "ifbench_repaired"):
        task = load_task(TASKS[name], DataSource((data_dir,)))
        passed[name] = sum(
            task.scorer.one(doc, "Spring").scores["prompt_level_loose_acc"] or 0 for doc in task.task_docs
        )
    assert passed == {"ifbench": 120, "ifbench_repaired": 33}
