"""PopQA: accepted answers as substrings."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_parity import assert_golds_accepted, assert_prompts_equal, assert_sample_golds, assert_scores_equal, scores


@pytest.mark.data
def test_prompts_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("tulu3_popqa", 8, data_dir, protocol_dir)


@pytest.mark.data
def test_scores_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_scores_equal("tulu3_popqa", 52, data_dir, protocol_dir)


@pytest.mark.data
@pytest.mark.long
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("popqa", data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds("tulu3_popqa")


def test_popqa_takes_substrings_in_three_spellings() -> None:
    doc = {"question": "", "possible_answers": '["Painter"]'}
    for response, value in (("repainters", 1.0), ("a Painter", 1.0), ("PAINTER", 0.0), ("", 0.0)):
        assert scores("tulu3_popqa", doc, response) == {"exact_match": value}
