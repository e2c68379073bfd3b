"""MATH: both readings of an answer, and the limits of its computer algebra."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from task_parity import (
    assert_golds_accepted,
    assert_prompts_equal,
    assert_sample_golds,
    assert_scores_equal,
    scores,
    task,
)


@pytest.mark.data
def test_prompts_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("tulu3_math_.*", 10, data_dir, protocol_dir)


@pytest.mark.data
def test_scores_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_scores_equal("tulu3_math_.*", 179, data_dir, protocol_dir)


@pytest.mark.data
@pytest.mark.long
def test_golds_over_all_documents(data_dir: Path, protocol_dir: Path) -> None:
    assert_golds_accepted("math", data_dir, protocol_dir)


def test_sample_golds_score_one_and_wrong_answers_nothing() -> None:
    assert_sample_golds("tulu3_math_algebra")


MATH_DOC = {"problem": "", "solution": r"so $\boxed{\frac12}$"}


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        (r"Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.", 1.0, 1.0),
        ("Final Answer: The final answer is $0.5$. I hope it is correct.", 1.0, 1.0),
        ("Final Answer: The final answer is $1/2$", 0.0, 1.0),  # no space before the sentence that is added
        ("Final Answer: The final answer is $1/2$. I hope it is correct. $3$", 1.0, 1.0),
        ("Final Answer: The final answer is $3$. I hope it is correct. $1/2$", 0.0, 0.0),
        ("Final Answer: The final answer is\n$1/2$. I hope it is correct.", 0.0, 1.0),  # the dot stays on its line
        (r"First $\boxed{3}$, no: $\boxed{\dfrac{1}{2}}$", 0.0, 1.0),
        (r"$\frac{1}{2}$ is what $x$ is", 0.0, 0.0),  # the last two dollar signs count
        (r"$x$ is $\frac{1}{2}$", 0.0, 1.0),
        ("1/2", 0.0, 1.0),
        ("", 0.0, 0.0),
        (r"\boxed{", 0.0, 0.0),
    ],
)  # fmt: skip
def test_math_reads_the_answer_as_the_reference_does(response: str, strict: float, flexible: float) -> None:
    assert scores("tulu3_math_algebra", MATH_DOC, response) == {"exact_match": strict, "exact_match_flex": flexible}


def test_math_has_no_shortcut_for_equal_strings() -> None:
    doc = {"problem": "", "solution": r"so $\boxed{[2,5)}$"}
    answer = "Final Answer: The final answer is $[2,5)$. I hope it is correct."
    assert scores("tulu3_math_algebra", doc, answer) == {"exact_match": 0.0, "exact_match_flex": 1.0}


def math_process(program: str, *arguments: str) -> str:
    """What a program prints that gets the file of MATH's scorer as its first argument, in a process of its own: the
    alarm needs a main thread that nobody else has used, and a limit that fails must not stop the tests."""
    file = task("tulu3_math_algebra").scorer.function.__code__.co_filename
    command = [sys.executable, "-c", program, file, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.long
def test_a_swallowed_alarm_rings_again() -> None:
    """SymPy and finalizers swallow exceptions; the limit holds all the same."""
    program = """
import sys
from olmes_suite.evaluation.scoring_worker import scorer_at
limit, swallowed = scorer_at(sys.argv[1], "score").function.__globals__["time_limit"], 0
try:
    with limit(0.1):
        while swallowed < 3:
            try:
                while True:
                    pass
            except TimeoutError:
                swallowed += 1
except TimeoutError:
    pass
print(swallowed)
"""
    assert math_process(program) == "3\n"


@pytest.mark.long
def test_math_gives_up_on_enormous_numbers() -> None:
    huge = "Final Answer: The final answer is $(1+x)^{100000}$. I hope it is correct."
    program = """
import json, sys
from olmes_suite.evaluation.scoring_worker import scorer_at
print(json.dumps(scorer_at(sys.argv[1], "score").one(*json.loads(sys.argv[2])).scores))
"""
    assert json.loads(math_process(program, json.dumps([MATH_DOC, huge])))["exact_match_flex"] == 0.0


def test_math_works_outside_the_main_thread() -> None:
    found: list[dict[str, float | None]] = []
    answer = "Final Answer: The final answer is $2/4$. I hope it is correct."
    thread = threading.Thread(target=lambda: found.append(scores("tulu3_math_algebra", MATH_DOC, answer)))
    thread.start()
    thread.join()
    assert found == [{"exact_match": 1.0, "exact_match_flex": 1.0}]
