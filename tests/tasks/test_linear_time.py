"""Every scorer takes time linear in the length of the answer: looping, huge and repetitive answers, over all tasks."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.scoring.scorers import SandboxedScorer, Scorer
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.task import SuiteTask

ROOT = Path(__file__).parents[2]
SAMPLE = DataSource((), sample=True)
SIZE = 100_000
SECONDS = 2.0
"""Processor time that an answer of `SIZE` characters may take."""
SLOW = 0.3
"""Below this a measurement says nothing about growth."""

PIECES = (
    "\n", " ", "7", "(", "[", "{", "((a", "\\", "$", "\\boxed{", "\\text{", "\\frac{1}{", "\\left(", "9^", "1,",
    "1/", "|", "&", "_", "=", "-", "+x", "\t", "\r\n", "\u00a0", "\u2003", "é", "🙂", "x", "word ", "Word. ",
    "well-known ", "a-", "a@", "A) ", "Answer: ", "answer is ", "the answer is ", "The answer is (A) ",
    "Therefore, the final answer is ", "Final Answer: The final answer is", "I hope it is correct. ", "#### ", "<<",
    ">>", "*", "**", "* a\n", "- a\n", "\"", "'", "\"a\" 'b' ", "! ", "?!", "...", ". ", ".\" ", "P.S. ",
    "http://a.", "```\n", "```python\n", "def f():\n", "a=1\n", "import os\n", "\"\"\"\n", "x\n", "x:\n",
    "the cat sat\n", "(\n", "  x\n", "# a\n", "<h1>", "<i>a</i> ", "Question 1\n", "Section 1 ", "***", "a,b\n",
    "Zimbabwe\n",
)  # fmt: skip


def seconds(function: Callable[[str], Any], text: str) -> float:
    begun = time.process_time()
    function(text)
    return time.process_time() - begun


def check(function: Callable[[str], Any], pieces: tuple[str, ...] = PIECES, around: tuple[str, str] = ("", "")) -> None:
    """Score an answer of `SIZE` characters in time; where that takes long, one of half the size takes about half."""
    head, tail = around
    function(head + "warm up" + tail)
    for piece in pieces:
        times = SIZE // len(piece)
        taken = seconds(function, head + piece * times + tail)
        if taken > SLOW:
            half = seconds(function, head + piece * (times // 2) + tail)
            assert taken < 3.5 * max(half, SLOW / 4), (piece, half, taken)
        assert taken < SECONDS, (piece, taken)


@functools.lru_cache(maxsize=1)
def tasks() -> dict[str, SuiteTask]:
    """One task for each way of scoring: its folder, its scorer, and what the scorer is bound to."""
    found: dict[tuple[str, str], SuiteTask] = {}
    for file in sorted((ROOT / "tasks").glob("*/tulu3_*.yaml")):
        if "\ngroup:" in file.read_text(encoding="utf-8"):
            continue
        task = load_task(file, SAMPLE)
        bound = [cell.cell_contents for cell in getattr(task.scorer.function, "__closure__", None) or ()]
        key = json.dumps([task.scorer.function.__name__, *(one for one in bound if isinstance(one, (str, bool)))])
        found.setdefault((file.parent.name, key), task)
    return {task.config.task: task for task in found.values()}


def generating() -> Iterator[str]:
    for name, task in tasks().items():
        scorer = task.scorer
        if (
            isinstance(scorer, Scorer)
            and not isinstance(scorer, SandboxedScorer)
            and task.OUTPUT_TYPE == "generate_until"
        ):
            yield name


@pytest.mark.parametrize("name", generating())
def test_looping_answers_are_scored_in_linear_time(name: str) -> None:
    task = tasks()[name]
    for doc in map(dict, list(task.eval_docs)[: 1 if "if" not in name else None]):
        check(functools.partial(task.scorer.one, doc))
