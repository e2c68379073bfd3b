"""Every scorer takes time linear in the length of the answer: looping, huge and repetitive answers, over all tasks."""

from __future__ import annotations

import contextlib
import csv
import functools
import gc
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from task_parity import LATER_LEAVES, LEAVES, SAMPLE

from olmes_suite.constraints.registry import PROFILES, Constraint, Profile, everything, find
from olmes_suite.judges import refusal, wildguard
from olmes_suite.sandbox.sanitize import sanitize
from olmes_suite.scoring import language_resources
from olmes_suite.scoring.scorers import SandboxedScorer, Scorer
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.task import SuiteTask
from train_plugins.verifiers.final_answer import gsm8k, string
from train_plugins.verifiers.programs import program
from train_plugins.verifiers.task_modules import task as task_module

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests/constraints/constraints.jsonl"
SIZE = int(os.environ.get("OLMES_FUZZ_SIZE", 25_000))
"""Characters of an answer; 100,000 take four times as long to test, and find no more."""
SECONDS = 2.0 * max(SIZE / 100_000, 0.5)
"""Processor time that an answer of `SIZE` characters may take: 2 s for 100,000."""
SLOW = 0.3
"""Below this a measurement says nothing about growth."""

PIECES = (
    "\n", " ", "7", "(", "[", "{", "((a", "\\", "$", "\\boxed{", "\\text{", "\\frac{1}{", "\\left(", "9^", "1,", "1/",
    "|", "&", "_", "=", "-", "+x", "\t", "\r\n", "\u00a0", "\u2003", "é", "🙂", "x", "word ", "Word. ", "well-known ",
    "a-", "a@", "A) ", "Answer: ", "answer is ", "the answer is ", "The answer is (A) ", "Question 1\n", "Section 1 ",
    "Therefore, the final answer is ", "Final Answer: The final answer is", "I hope it is correct. ", "#### ", "<<",
    ">>", "*", "**", "***", "* a\n", "- a\n", '"', "'", "\"a\" 'b' ", "! ", "?!", "...", ". ", '." ', "P.S. ", "http://a.",
    "```\n", "```python\n", "def f():\n", "a=1\n", "import os\n", '"""\n', "x\n", "x:\n", "the cat sat\n", "(\n",
    "  x\n", "# a\n", "<h1>", "<i>a</i> ", "a,b\n", "Zimbabwe\n",
)  # fmt: skip
FEW = (
    "\n", " ", "7", "(", "[", '"', "'", "x", "word ", "Word. ", "<<", "*", "**", "* a\n", "- a\n", "! ", "...", "x\n",
    "Question 1\n", "<h1>", "a,b\n", "\u2003", "_", "P.S. ", "```\n", "\"a\" 'b' ",
)  # fmt: skip
"""For checkers of which there are many."""


def seconds(function: Callable[[str], Any], text: str) -> float:
    """Processor time without the garbage collector's, which depends on everything else in the process."""
    gc.disable()
    try:
        begun = time.process_time()
        function(text)
        return time.process_time() - begun
    finally:
        gc.enable()


def check(score: Callable[[str], Any], pieces: Sequence[str] = PIECES, head: str = "", size: int = SIZE) -> None:
    """An answer of `size` characters takes less than `SECONDS`, and not much more than twice the time of half of it."""
    score(f"{head}warm up")
    for piece in pieces:
        times = size // len(piece)
        taken = seconds(score, head + piece * times)
        if taken > SLOW:
            half = seconds(score, head + piece * (times // 2))
            taken = min(taken, seconds(score, head + piece * times))
            assert taken < max(3.5 * half, SLOW), (piece, half, taken)
        assert taken < SECONDS, (piece, taken)


ANSWERS = (
    "agieval", "aime", "bbh", "bfcl", "deepmind_math", "drop", "gpqa", "gsm8k", "math", "mmlu", "mmlu_pro", "omega",
    "popqa", "ruler", "zebralogic",
)  # fmt: skip
"""Folders of tasks whose answers are read by a function."""
INSTRUCTIONS = ("ifbench", "ifeval", "ifeval_ood")
"""Folders of tasks whose answers are checked against instructions."""


def generating(folder: str) -> list[SuiteTask]:
    """One task of a folder for each way of reading answers: its scorer, and what the scorer is bound to."""
    found: dict[str, SuiteTask] = {}
    for file in sorted({**LEAVES, **LATER_LEAVES}.values()):
        if file.parent.name == folder:
            task = load_task(file, SAMPLE)
            bound = [cell.cell_contents for cell in getattr(task.scorer.function, "__closure__", None) or ()]
            key = json.dumps([task.scorer.function.__name__, *(one for one in bound if isinstance(one, (str, bool)))])
            found.setdefault(key, task)
    return [
        task
        for task in found.values()
        if task.OUTPUT_TYPE == "generate_until"
        and isinstance(task.scorer, Scorer)
        and not isinstance(task.scorer, SandboxedScorer)
    ]


@pytest.mark.long
def test_no_folder_of_tasks_is_left_out() -> None:
    folders = {file.parent.name for file in {**LEAVES, **LATER_LEAVES}.values()}
    assert {folder for folder in folders if generating(folder)} == {*ANSWERS, *INSTRUCTIONS}


@pytest.mark.slow
@pytest.mark.parametrize("folder", ANSWERS)
def test_looping_answers_are_scored_in_linear_time(folder: str) -> None:
    """Also behind a right answer, which stays right where only white space follows it."""
    for task in generating(folder):
        doc = dict(task.eval_docs[0])
        score = functools.partial(task.scorer.one, doc)
        check(score)
        right = task.keys.gold(doc)
        check(score, ("\n", " ", "\t", "word ", "\n\n* a", "\\boxed{", "Therefore, the final answer is "), head=right)
        trimmed = "bbh_v0" not in task.config.task  # that one's answer is all of the line but its last character
        for space in ("\n", " ", "\r\n", "\t") if trimmed else ("\n",):
            assert score(right + space * 6000).scores == score(right).scores, (task.config.task, space)


def here(names: Iterable[str]) -> bool:
    """Whether this machine has what a checker reads."""
    return not any(map(language_resources.missing, names))


@pytest.mark.slow
@pytest.mark.parametrize("folder", INSTRUCTIONS)
def test_looping_answers_to_instructions_are_scored_in_linear_time(folder: str) -> None:
    """Strictly, and in all loose variants."""
    for task in generating(folder):
        for doc in map(dict, task.eval_docs):
            if here(task.keys.resources(doc)):
                check(functools.partial(task.scorer.one, doc), ("\n", "word ", "* a\n", "x\n", "Word.\n", "[", '"'))


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_every_constraint_takes_linear_time(profile: Profile) -> None:
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    for name, entry in everything(profile).items():
        if not here(entry.needs):
            continue
        case = next(case for case in cases if case["constraint"] == name and case["profile"] in ("both", profile))
        given = entry.arguments(case["kwargs"], case["prompt"], random.Random(0))

        def follows(text: str, entry: Constraint = entry, given: dict[str, Any] = given) -> None:
            with contextlib.suppress(IndexError, ValueError, ZeroDivisionError, csv.Error):
                entry.check(text, **given)

        check(follows, FEW, size=SIZE // 2)


HEADS = {
    "custom:csv_special_character": "ProductID,Category,Brand,Price,Stock\n" + 'a,b,c,d,"' * 14,
    "custom:csv_quotes": '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"\n"a',
    "custom:mcq_count_length": "Question 1",
}
"""Beginnings without which these checkers look no further."""


@pytest.mark.long
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("profile", PROFILES)
def test_constraints_that_look_at_the_beginning_first(profile: Profile, name: str) -> None:
    entry = find(name, profile)
    assert entry is not None

    def follows(text: str) -> None:
        with contextlib.suppress(IndexError, csv.Error):
            entry.check(text)

    check(follows, FEW, head=HEADS[name])


@pytest.mark.slow
def test_every_instruction_of_ifeval_takes_linear_time() -> None:
    if not here(["punkt_tab"]):
        pytest.skip("NLTK's punkt_tab is not on this machine")
    module = task_module("ifeval")
    for name in module.checkers().INSTRUCTION_DICT:
        given = {"combination:repeat_prompt": {"prompt_to_repeat": "Say it."}}.get(name)
        checker = module._checker(name, given, "Say it.")
        check(functools.partial(module._follows, checker), FEW, size=SIZE // 2)


def test_judges_answers_are_read_in_linear_time() -> None:
    href = task_module("href")
    for parse in (wildguard.parse, refusal.parse, href.parse):
        check(parse, (*FEW, ":", "a:\n", "refusal ", "tie\n"))


@pytest.mark.slow
def test_verifiers_take_linear_time() -> None:
    check(program, (*PIECES, "  ```", "```\n```python\n"))
    check(lambda text: string(text, "the right one", {}), FEW)
    check(lambda text: gsm8k(text, "12", {}), (*FEW, "#### ", "1,", "+"))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["", "Here it is:\n```python\ndef task_func(x):\n    return x\n```\n"])
def test_programs_are_found_in_linear_time(head: str) -> None:
    """The parser alone takes a second for some of these, so a slower machine gets more time."""
    pytest.importorskip("tree_sitter_python")
    for piece in PIECES:
        assert seconds(lambda text: sanitize(text, "task_func"), head + piece * (SIZE // len(piece))) < 3 * SECONDS, (
            piece
        )


# MATH: slow and silent ----------------------------------------------------------------------------------------------


PROSE = (
    "We want to find how many of the numbers are even and we note that each pair adds to the same total so that we can "
    "divide the whole by two which leaves us with a smaller problem of the same kind that we can solve in our heads "
)


@pytest.mark.long
@pytest.mark.parametrize("between", ["", ", ", ". ", " two-digit ", " (as before) ", " $x^2$ ", "\n"])
def test_prose_without_a_box_costs_milliseconds(between: str) -> None:
    module = task_module("math")
    doc = {"problem": "", "solution": "So it is $\\boxed{12}$."}
    module.score.one(doc, "12")
    texts = [between.join([PROSE, PROSE[number:], str(number), PROSE * 8]) for number in range(0, 20, 4)]
    begun = time.process_time()
    for text in texts:
        scored = module.score.one(doc, text)
        assert set(scored.scores.values()) == {0.0} and scored.flags == () and scored.failed
    assert time.process_time() - begun < 4.0  # 1 to 1.5 s, by machine; 14 s when SymPy read all of it


def test_a_check_that_is_given_up_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    module = task_module("math")
    doc = {"problem": "", "solution": "So it is $\\boxed{12}$."}
    assert module.score.one(doc, "\\boxed{13}").flags == ()
    monkeypatch.setattr(module, "_SYMPY_SECONDS", 0.3)
    module.compared_by_sympy.cache_clear()
    scored = module.score.one(doc, "\\boxed{9^{9^{9^{9}}}}")
    assert scored.flags == ("scorer_timeout",) and set(scored.scores.values()) == {0.0}
    assert module.score.one(doc, "\\boxed{" + "x/" * 50_000 + "1}").flags == ("scorer_timeout",)
