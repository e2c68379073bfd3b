"""DROP: F1 over spans and numbers, and the few-shot examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_parity import (
    assert_golds_accepted,
    assert_prompts_equal,
    assert_sample_golds,
    assert_scores_equal,
    sample_docs,
    scores,
    task,
)


@pytest.mark.data
def test_prompts_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("tulu3_drop", 10, data_dir, protocol_dir)


@pytest.mark.data
def test_scores_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_scores_equal("tulu3_drop", 117, data_dir, protocol_dir)


@pytest.mark.data
@pytest.mark.long
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("drop", data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds("tulu3_drop")


def drop_doc(*answers: list[str]) -> dict[str, Any]:
    blank = {"day": "", "month": "", "year": ""}
    validated = {"number": [""] * len(answers[1:]), "date": [blank] * len(answers[1:]), "spans": list(answers[1:])}
    answer = {"number": "", "date": blank, "spans": answers[0]}
    return {"passage": "", "question": "", "answer": answer, "validated_answers": validated}


@pytest.mark.parametrize(
    ("golds", "response", "f1"),
    [
        ([["the tall ships"]], " Tall ships!", 1.0),
        ([["12"]], "12.0", 1.0),
        ([["12"]], "12 yards", 0.67),  # rounded to two decimals
        ([["12 yards"]], "13 yards", 0.0),  # a number that differs cancels the overlap
        ([["red", "blue"]], "red, blue", 0.33),  # the response is one span
        ([["red", "blue"], ["red"]], "red", 1.0),
        ([[" "]], " ", 0.0),
    ],
)
def test_drop_scores_as_the_reference_does(golds: list[list[str]], response: str, f1: float) -> None:
    assert scores("tulu3_drop", drop_doc(*golds), response)["f1"] == f1


def test_drop_examples_are_those_of_the_reference_unless_the_data_is_a_sample() -> None:
    import random

    for size in (77_400, 77_409, 96_567):
        assert random.Random(1234).sample(range(size), 3) == [57767, 15315, 981]
    request = task("tulu3_drop").requests(sample_docs("tulu3_drop")[0], 0, chat=True)[0]
    assert request.messages is None
    assert request.text is not None and request.text.count("Passage:") == 4
    assert request.text.endswith("\nAnswer:")
