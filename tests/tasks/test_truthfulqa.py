"""TruthfulQA: the probability of the true choices."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_parity import assert_golds_accepted, assert_prompts_equal, assert_sample_golds, assert_scores_equal, scores


@pytest.mark.data
def test_prompts_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("tulu3_truthfulqa", 63, data_dir, protocol_dir)


@pytest.mark.data
def test_scores_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_scores_equal("tulu3_truthfulqa", 28, data_dir, protocol_dir, rel=1e-9)


@pytest.mark.data
@pytest.mark.long
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("truthfulqa", data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds("tulu3_truthfulqa")


def test_truthfulqa_weighs_whole_choices() -> None:
    doc = {
        "question": "",
        "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["a", "c", "b"], "labels": [1, 1, 0]},
    }
    import math

    logs = [math.log(0.2), math.log(0.5), math.log(0.3)]  # of a, b and c: the choices of mc1 come first
    assert scores("tulu3_truthfulqa", doc, logs) == {"mc1": 0.0, "mc2": pytest.approx(0.5)}
    assert scores("tulu3_truthfulqa", doc, [-3000.0, -3000.0, -4000.0])["mc2"] == pytest.approx(0.5)
