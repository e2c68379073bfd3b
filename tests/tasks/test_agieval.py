"""AGIEval: the forms of an answer, the prompt, documents that share a passage."""

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


@pytest.mark.data
def test_prompts_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("tulu3_agieval_.*", 8, data_dir, protocol_dir)


@pytest.mark.data
def test_scores_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_scores_equal("tulu3_agieval_.*", 160, data_dir, protocol_dir)


@pytest.mark.data
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("agieval", data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds(*leaves("agieval"))


def test_group_file() -> None:
    assert_group("tulu3_agieval", "tulu3_agieval_.*", 8, "macro")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Therefore, the answer is (B). No. Therefore, the answer is (F).", "F"),
        ("I think the answer is (B) or (C). Now E", "C"),
        ("BAD", "D"),
        ("so the answer is (d).", ""),
        ("the answer is 5.\nthe answer is (B)\nE", "E"),  # the last statement has no full stop on its line
    ],
)
def test_agieval_answers(response: str, answer: str) -> None:
    assert read("tulu3_agieval_sat-en", response, label="A")[1] == answer


def test_agieval_prompt_strips_labels_and_blank_lines() -> None:
    text = task("tulu3_agieval_sat-en").doc_to_text(
        {"passage": "One.\n\n\nTwo (B)x.", "question": "Q?", "options": ["(A)one", "   B. two", "C ? iii", "(D) iv"]}
    )
    assert "Passage: One.\nTwo (B) x.\nQuestion: Q?\n (A) one\n (B) two\n (C) ? iii\n (D) iv\n\nAnswer the" in text
    alone = task("tulu3_agieval_sat-math").doc_to_text({"passage": None, "question": "Q?", "options": []})
    assert "Passage" not in alone


def test_agieval_documents_of_a_passage_are_one_cluster() -> None:
    cluster = task("tulu3_agieval_lsat-ar").keys.cluster
    shared, other, alone = (cluster(doc) for doc in task("tulu3_agieval_lsat-ar").eval_docs)
    assert shared == other and shared is not None and alone is None


def test_agieval_is_read_from_a_local_mirror_only() -> None:
    assert task("tulu3_agieval_lsat-ar").spec.hub is False
