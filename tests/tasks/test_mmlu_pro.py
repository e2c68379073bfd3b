"""MMLU-Pro: the forms of an answer in both variants, rows that keep their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_parity import (
    LEAVES,
    assert_golds_accepted,
    assert_group,
    assert_prompts_equal,
    assert_sample_golds,
    assert_scores_equal,
    leaves,
    read,
    task,
)

from olmes_suite.tasks.task import ROW

PATTERNS = {
    "mmlu_pro": (r"tulu3_mmlu_pro_(?!llama31_).*", 25, 152),
    "mmlu_pro_llama31": (r"tulu3_mmlu_pro_llama31_.*", 22, 165),
}


@pytest.mark.long
@pytest.mark.data
@pytest.mark.parametrize("name", PATTERNS)
def test_prompts_equal_the_reference(name: str, data_dir: Path, protocol_dir: Path) -> None:
    pattern, least, _ = PATTERNS[name]
    assert_prompts_equal(pattern, least, data_dir, protocol_dir)


@pytest.mark.long
@pytest.mark.data
@pytest.mark.parametrize("name", PATTERNS)
def test_scores_equal_the_reference(name: str, data_dir: Path, protocol_dir: Path) -> None:
    pattern, _, least = PATTERNS[name]
    assert_scores_equal(pattern, least, data_dir, protocol_dir)


@pytest.mark.long
@pytest.mark.data
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("mmlu_pro", data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds(*leaves("mmlu_pro"))


@pytest.mark.parametrize(
    ("name", "members", "aggregate"), [("tulu3_mmlu_pro", 14, "macro"), ("tulu3_mmlu_pro_llama31", 14, "micro")]
)
def test_group_files(name: str, members: int, aggregate: str) -> None:
    assert_group(name, PATTERNS[name.removeprefix("tulu3_")][0], members, aggregate)


def test_mmlu_pro_reads_the_article_of_the_answer_is_a_function() -> None:
    assert read("tulu3_mmlu_pro_math", "The answer is a function; option C", answer="C") == (0.0, "a")
    assert read("tulu3_mmlu_pro_math", "The answer is a map. Therefore, the answer is (C)", answer="C") == (1.0, "C")
    assert read("tulu3_mmlu_pro_math", "so the answer is (h).", answer="H") == (1.0, "h")


def test_mmlu_pro_looser_forms() -> None:
    assert read("tulu3_mmlu_pro_math", "Answer: C. Answer: D\nAnswer: E", answer="D") == (1.0, "D")
    assert read("tulu3_mmlu_pro_math", "answer: Answer:\nB", answer="B") == (1.0, "B")
    assert read("tulu3_mmlu_pro_math", "C, or D\nrather E", answer="E") == (1.0, "E")
    assert read("tulu3_mmlu_pro_llama31_math", "The answer is B. No, the answer is C.", answer="B") == (1.0, "B")
    assert read("tulu3_mmlu_pro_llama31_math", "The answer is BAD", answer="A") == (0.0, "B")
    assert read("tulu3_mmlu_pro_llama31_math", "The answer is B. The answer is (C).", answer="C") == (1.0, "C")


def test_mmlu_pro_rows_are_those_of_the_whole_split() -> None:
    rows = {name: list(task(name).eval_docs[ROW]) for name in LEAVES if name.startswith("tulu3_mmlu_pro_llama31_")}
    assert sorted(row for found in rows.values() for row in found) == list(range(14))
    assert all(row["category"] == "computer science" for row in task("tulu3_mmlu_pro_computer science").eval_docs)
