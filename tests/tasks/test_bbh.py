"""BIG-Bench Hard: the answers that both extractors read."""

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
)

PATTERNS = {
    "bbh": (r"tulu3_bbh_(?!v0_).*", 41, 256),
    "bbh_v0": (r"tulu3_bbh_v0_.*", 11, 241),
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
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("bbh", data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds(*leaves("bbh"))


@pytest.mark.parametrize(("name", "members", "aggregate"), [("tulu3_bbh", 27, "micro"), ("tulu3_bbh_v0", 27, "micro")])
def test_group_files(name: str, members: int, aggregate: str) -> None:
    assert_group(name, PATTERNS[name.removeprefix("tulu3_")][0], members, aggregate)


@pytest.mark.parametrize(
    ("name", "target", "response", "score", "answer"),
    [
        ("snarks", "(B)", "So the answer is B.", 0.0, ""),  # a bare letter is never found
        ("snarks", "(B)", "So the answer is (A). No, the answer is (b).", 0.0, "(A)"),
        ("snarks", "(B)", "The answer is (A), no, the answer is (b).", 1.0, "(b)"),
        ("snarks", "(B)", "Only \x08B\x08 fits", 1.0, "(B)"),  # "\b" in a string that is not raw is a backspace
        ("navigate", "No", "So the answer is not Yes.", 1.0, "no"),
        ("object_counting", "8", "8.0", 0.0, "0"),
        ("multistep_arithmetic_two", "-14", "So the answer is -14.", 1.0, "-14"),
        ("formal_fallacies", "valid", "The argument is invalid, the answer: valid", 1.0, "valid"),
        ("word_sorting", "apple banana", "So the answer is apple banana.", 1.0, "apple banana"),
        ("word_sorting", "apple banana", "The answer is: apple banana", 0.0, "is"),
        ("word_sorting", "apple banana", "**apple banana**\nThat was it", 0.0, "hat was it"),
        ("dyck_languages", "> ]", "So the answer is > ].", 1.0, "> ]"),
        ("dyck_languages", "> ]", "So the answer is >].", 0.0, ">]"),
    ],
)
def test_bbh_answers(name: str, target: str, response: str, score: float, answer: str) -> None:
    assert read(f"tulu3_bbh_{name}", response, target=target) == (score, answer)


@pytest.mark.parametrize(
    ("response", "score", "answer"),
    [
        ("So the answer is Yes.", 1.0, "Yes"),
        ("So the answer is Yes", 0.0, "Ye"),  # one character must follow
        ("The answer is Yes.", 0.0, ""),  # case counts in front of the answer,
        ("the answer is YES.", 1.0, "YES"),  # not in it
        ("the answer is (Yes).", 0.0, "(Yes)"),  # punctuation counts
        ("the answer is No. Wait, the answer is Yes.", 0.0, "No. Wait, the answer is Yes"),
    ],
)
def test_bbh_v0_answers(response: str, score: float, answer: str) -> None:
    assert read("tulu3_bbh_v0_navigate", response, target="Yes") == (score, answer)
