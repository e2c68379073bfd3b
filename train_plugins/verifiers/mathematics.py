"""The verifier of mathematical answers, with extraction and comparison of the evaluator's task `math`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train_plugins.verifiers.base import Malformed
from train_plugins.verifiers.final_answer import text_of
from train_plugins.verifiers.task_modules import task


def math(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    r"""Return the task's `exact_match_flex`; the truth is an answer in LaTeX, or a solution with a `\boxed{}`.

    The verdict equals the scorer's with less work: the strict metric is not computed separately, because its answer is
    among the flexible metric's candidates, so equal strings never reach SymPy.
    """
    scorer = task("math")
    text = text_of(truth)
    gold = scorer.gold_answer(text if "\\boxed" in text or "\\fbox" in text else f"\\boxed{{{text}}}")
    if not gold.strip():
        raise Malformed("it contains no answer, or its braces do not match")
    return float(any(scorer.same(answer, gold) for answer in scorer.candidates(response)))


def prepare() -> None:
    """Load SymPy and its LaTeX parser outside any verdict's time."""
    task("math").same_by_sympy("1", "2")
