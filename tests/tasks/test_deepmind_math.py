"""DeepMind Mathematics: the answer that is read, and expressions that are neither run nor computed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from task_parity import (
    assert_golds_accepted,
    assert_prompts_equal,
    assert_sample_golds,
    assert_scores_equal,
    sample_docs,
    task,
)


@pytest.mark.data
def test_prompts_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("tulu3_deepmind_math_.*", 154, data_dir, protocol_dir)


@pytest.mark.data
def test_scores_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_scores_equal("tulu3_deepmind_math_.*", 580, data_dir, protocol_dir)


@pytest.mark.data
@pytest.mark.long
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("deepmind_math", data_dir, protocol_dir)


@pytest.mark.parametrize("name", ["tulu3_deepmind_math_algebra__linear_1d", "tulu3_deepmind_math_v0_numbers__gcd"])
def test_sample_golds_score_one_and_wrong_answers_nothing(name: str) -> None:
    assert_sample_golds(name)


def dm(answer: str, response: str, version: str = "algebra__linear_1d") -> tuple[float | None, str | None]:
    found = task(f"tulu3_deepmind_math_{version}").scorer.one({"question": "", "answer": f"b'{answer}\\n'"}, response)
    return found.scores["exact_match"], found.extracted


PHRASE = "Therefore, the final answer is {}. I hope it is correct."


@pytest.mark.parametrize(
    ("gold", "response", "value", "extracted"),
    [
        ("4", PHRASE.format("5") + " No. " + PHRASE.format("4"), 1.0, "4"),
        ("4", "the answer is 5; the final answer is 4.", 1.0, "4"),
        ("4", "answer is 5. The answer is 4.", 0.0, "5. The answer is 4"),  # the first hit, to the end
        ("4", "4", 0.0, ""),
        ("4", PHRASE.format("$4$"), 1.0, "4"),
        ("4", PHRASE.format("**4**"), 1.0, "4"),
        ("4", PHRASE.format("8/2"), 1.0, "8/2"),
        ("4", PHRASE.format("x = 4"), 0.0, "x = 4"),
        ("4", PHRASE.format("04"), 0.0, "04"),
        ("2*y**2 - 5*y - 3", PHRASE.format("(2*y + 1)*(y - 3)"), 1.0, "(2*y + 1)*(y - 3)"),
        ("2*y**2 - 5*y - 3", PHRASE.format("(2*z + 1)*(z - 3)"), 0.0, "(2*z + 1)*(z - 3)"),
        ("1, 2", PHRASE.format("1,4/2"), 1.0, "1,4/2"),
        ("False", PHRASE.format("No"), 1.0, "no"),
        ("True", PHRASE.format("No"), 0.0, "no"),
        ("4", PHRASE.format("No"), 0.0, "No"),
        ("6", PHRASE.format("3!"), 1.0, "3!"),
    ],
)
def test_deepmind_math_reads_the_answer_as_the_reference_does(
    gold: str, response: str, value: float, extracted: str
) -> None:
    assert dm(gold, response) == (value, extracted)


def test_deepmind_math_versions_differ_in_one_full_stop() -> None:
    response = "Therefore, the final answer is -4, I hope it is correct."
    assert dm("-4", response, "v0_numbers__gcd") == (1.0, "-4")
    assert dm("-4", response) == (0.0, "-4,")


HOSTILE: list[Callable[[str], str]] = [
    lambda file: f"open('{file}', 'w')",
    lambda file: f"__import__('pathlib').Path('{file}').touch()",
    lambda file: f"(lambda: open('{file}', 'w'))()",
    lambda file: f"[open(f, 'w') for f in ['{file}']]",
    lambda file: f"().__class__.__base__.__subclasses__() or open('{file}', 'w')",
    lambda file: "exec(" + "+".join(f"chr({ord(c)})" for c in f"open('{file}','w')") + ")",
    lambda file: "sympify(" + "+".join(f"chr({ord(c)})" for c in f"open('{file}','w')") + ")",
    lambda file: f"Symbol('x').func(open('{file}', 'w'))",
    lambda file: f"f\"{{open('{file}', 'w')}}\"",
    lambda file: f'sympify(\'open("{file}", "w")\')',
]


@pytest.mark.parametrize("attack", HOSTILE)
def test_deepmind_math_does_not_execute_an_answer(attack: Callable[[str], str], tmp_path: Path) -> None:
    file = tmp_path / "touched"
    assert dm("4", PHRASE.format(attack(str(file))))[0] == 0.0
    assert not file.exists()


@pytest.mark.parametrize(
    "answer",
    [
        *("9**9**9", "9**9**9**9", "(2*x)**(9**9)", "99999!!!!", "factorial(factorial(30))", "1 << 10**9"),
        *("N(pi, 10**9)", "1e999999999", "Pow(9, Pow(9, 9))", "exp(10**9)", "binomial(10**9, 10**8)"),
        *("-" * 1500 + "4", "(" * 500, "4 + " * 4000 + "4"),
    ],
)
def test_deepmind_math_does_not_compute_enormous_numbers(answer: str) -> None:
    start = time.process_time()
    assert dm("4", PHRASE.format(answer))[0] == 0.0
    assert time.process_time() - start < 5


def test_deepmind_math_prompt_names_the_category_s_answers() -> None:
    doc = sample_docs("tulu3_deepmind_math_numbers__is_prime")[0]
    new, old = (task(f"tulu3_deepmind_math_{v}numbers__is_prime").doc_to_text(doc) for v in ("", "v0_"))
    assert all(f"- If the answer is {answer}, conclude" in new for answer in ("True", "False")) and "slash (/)" in new
    assert "if the answer is 6" in old and "slash (/)" not in old
