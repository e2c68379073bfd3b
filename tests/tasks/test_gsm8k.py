"""GSM8K: the last number of a response."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_parity import assert_prompts_equal, assert_sample_golds, assert_scores_equal


@pytest.mark.data
def test_prompts_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("tulu3_gsm8k", 8, data_dir, protocol_dir)


@pytest.mark.data
def test_scores_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_scores_equal("tulu3_gsm8k", 77, data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds("tulu3_gsm8k")
