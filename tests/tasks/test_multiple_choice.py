"""Patterns of multiple-choice answers, rewritten to take linear time; what their prompts share."""

from __future__ import annotations

import random
import re
import string
import time

import pytest
from task_parity import task

from olmes_suite.scoring import multiple_choice

LONG = ("x", "answer ", "answer is ", "Therefore, the answer is ", "the answer is ", "answer:", " ", "x\n", "(")


def noise(seed: int, pieces: list[str]) -> str:
    generator = random.Random(seed)
    return "".join(generator.choice(pieces) for _ in range(generator.randrange(30)))


@pytest.mark.parametrize("seed", range(3))
def test_linear_forms_equal_the_patterns(seed: int) -> None:
    pieces = ["A", "B", "answer:", "Answer", " ", "\n", "x", ".", "(C)", "the answer is ", "no", "]"]
    pro = task("tulu3_mmlu_pro_math").keys.gold.__globals__["_after_colon"]
    statement = task("tulu3_agieval_sat-en").keys.gold.__globals__["_last_statement"]
    after = task("tulu3_bbh_navigate").keys.gold.__globals__["_next_after"]
    for text in (noise(1000 * seed + i, pieces) for i in range(1000)):
        lines = re.findall(r".*\b([A-J])\b", text)
        assert multiple_choice.last_alone("A-J", text) == (lines[-1] if lines else "")
        first = re.search(r".*\b([A-D])\b", text)
        assert multiple_choice.first_line_last_alone("A-D", text) == (first.group(1) if first else "")
        colon = re.search(r".*[aA]nswer:\s*([A-J])", text)
        assert pro(text) == (colon.group(1) if colon else "")
        stated = re.findall(r"(?<=the answer is )(.*?)(?=\.)", text)
        assert statement(text) == (stated[-1] if stated else "")
        for head in ("answer:", r"answer\b"):
            for pattern in (r"\([A-Z]\)", "[yY]es|[nN]o", "[a-z ]+", r"[\]\)\}\> ]+"):
                assert after(head, pattern, text) == re.findall(rf"(?i){head}.*?({pattern})", text)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["mmlu_anatomy", "mmlu_0shot_cot_anatomy", "mmlu_pro_math", "mmlu_pro_llama31_math", "gpqa", "gpqa_llama31",
             "agieval_sat-en", "bbh_navigate", "bbh_word_sorting", "bbh_snarks", "bbh_v0_navigate"]
)  # fmt: skip
def test_long_responses_are_scored_quickly(name: str) -> None:
    doc = {"answer": 0 if name.startswith(("mmlu_a", "mmlu_0")) else "A", "letter": "A", "label": "A", "target": "(A)"}
    for piece in LONG:
        begun = time.process_time()
        task(f"tulu3_{name}").scorer.one(doc, piece * (200_000 // len(piece)))
        assert time.process_time() - begun < 2, piece


def test_shared_wrapper_has_the_letters_twice() -> None:
    text = multiple_choice.wrapped("Question: {braces}?\n\n", "(A), (B).")
    assert text.count("is one of (A), (B).") == 2 and "{braces}" in text
    assert multiple_choice.another("D", 4) == "A" and multiple_choice.another("A", 4) == "B"
    assert multiple_choice.parenthesised(list(string.ascii_lowercase[:2])) == " (A) a\n (B) b\n"
