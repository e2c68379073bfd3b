"""MMLU: the forms of an answer, the log-likelihood variant, the groups."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_parity import (
    assert_golds_accepted,
    assert_group,
    assert_prompts_equal,
    assert_sample_golds,
    assert_scores_equal,
    leaves,
    read,
    task,
)

PATTERNS = {
    "mmlu": (r"tulu3_mmlu_(?!mc_|0shot_cot_|pro_).*", 89, 121),
    "mmlu_mc": (r"tulu3_mmlu_mc_.*", 60, 80),
    "mmlu_0shot_cot": (r"tulu3_mmlu_0shot_cot_.*", 76, 120),
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


@pytest.mark.data
@pytest.mark.long
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("mmlu", data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds(*leaves("mmlu"))


@pytest.mark.parametrize(
    ("name", "members", "aggregate"),
    [("tulu3_mmlu", 57, "macro"), ("tulu3_mmlu_mc", 57, "macro"), ("tulu3_mmlu_0shot_cot", 57, "macro")],
)
def test_group_files(name: str, members: int, aggregate: str) -> None:
    assert_group(name, PATTERNS[name.removeprefix("tulu3_")][0], members, aggregate)


def test_mmlu_takes_the_first_statement_and_0shot_cot_the_last() -> None:
    text = "Therefore, the answer is (B). Wait. Therefore, the answer is (C)."
    assert read("tulu3_mmlu_anatomy", text, answer=2) == (0.0, "B")
    assert read("tulu3_mmlu_0shot_cot_anatomy", text, answer=2) == (1.0, "C")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("therefore the answer is: d", "D"),
        ("I say b is correct. (C) is not.", "B"),
        ("Not (A). (B) then.", "A"),
        ("The answer is: **C**", "C"),  # only the last pattern sees through the asterisks
        ("Take A or B.\nC is the one, D is not.", "B"),  # the last letter of the first line that has one
        ("A good answer", "A"),  # the article counts
        ("none", ""),
    ],
)
def test_mmlu_looser_forms(response: str, answer: str) -> None:
    assert read("tulu3_mmlu_anatomy", response, answer=0)[1] == answer


def test_mmlu_mc_counts_the_first_of_equal_choices() -> None:
    scorer = task("tulu3_mmlu_mc_anatomy").scorer
    assert scorer.one({"answer": 1}, [-2.0, -1.0, -1.0, -3.0]).scores == {"acc_raw": 1.0}
    assert scorer.one({"answer": 2}, [-2.0, -1.0, -1.0, -3.0]).scores == {"acc_raw": 0.0}
