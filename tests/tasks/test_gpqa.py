"""GPQA: choices shuffled by row, cleaned choices, the forms of an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_parity import assert_prompts_equal, assert_sample_golds, assert_scores_equal, leaves, read, task

PATTERNS = {
    "gpqa": (r"tulu3_gpqa", 1, 40),
    "gpqa_llama31": (r"tulu3_gpqa_llama31", 1, 43),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PATTERNS)
def test_prompts_equal_the_reference(name: str, data_dir: Path, protocol_dir: Path) -> None:
    pattern, least, _ = PATTERNS[name]
    assert_prompts_equal(pattern, least, data_dir, protocol_dir)


@pytest.mark.data
@pytest.mark.parametrize("name", PATTERNS)
def test_scores_equal_the_reference(name: str, data_dir: Path, protocol_dir: Path) -> None:
    pattern, _, least = PATTERNS[name]
    assert_scores_equal(pattern, least, data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds(*leaves("gpqa"))


def test_gpqa_shuffles_by_row() -> None:
    docs = task("tulu3_gpqa").eval_docs
    assert [doc["letter"] for doc in docs][:5] == ["C", "D", "A", "A", "B"]
    for doc in docs:
        assert len(set(doc["choices"])) == 4
        assert doc["choices"]["ABCD".index(doc["letter"])] == doc["Correct Answer"].strip().split(" [")[0] + (
            " " if "[" in doc["Correct Answer"] else ""
        )


def test_gpqa_cleans_choices_and_leaves_the_question() -> None:
    row = {"Correct Answer": " a [b] c  d", "Incorrect Answer 1": "x [title]y", "Incorrect Answer 2": None}
    made = task("tulu3_gpqa")
    clean = made.config.process_docs.__globals__["clean"]
    assert [clean(value) for value in row.values()] == ["a c d", "x. y", " "]


@pytest.mark.parametrize(
    ("response", "zero_shot", "llama31"),
    [
        ("The best answer is B. Therefore, the answer is (C).", "C", "B"),
        ("The best answer is (D", "D", "D"),
        ("(A) or (B), and C", "B", "B"),
        ("The correct answer is: B, though D", "B", "B"),
        ("B, though D\nand C", "C", "C"),
        ("nothing", "", ""),
    ],
)
def test_gpqa_answers(response: str, zero_shot: str, llama31: str) -> None:
    assert read("tulu3_gpqa", response, letter="A")[1] == zero_shot
    assert read("tulu3_gpqa_llama31", response, letter="A")[1] == llama31
