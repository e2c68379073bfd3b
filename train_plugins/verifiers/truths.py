"""Ground truths, read before a training as the built-in verifiers read them; none of it needs SymPy or a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from train_plugins.verifiers import final_answer, instructions, mathematics, programs, tasksets

COMPARED: Mapping[str, Callable[[Any], Any]] = {
    "gsm8k": final_answer.number_of,
    "gsm8k_benchmark": final_answer.text_with_digits,
    "math": mathematics.gold_of,
    "math_benchmark": mathematics.gold_of,
    "string": final_answer.accepted_of,
}
"""Verifiers that read only the ground truth, not the row's other columns."""
WITH_ROW: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    **dict.fromkeys(("ifeval", "ifeval_fraction", "ifeval_strict"), instructions.check_constraints),
    **dict.fromkeys(("code", "code_fraction"), programs.tests_of),
    "taskset": tasksets.check_truth,
}


def read_truth(name: str, truth: Any, row: Mapping[str, Any]) -> None:
    """Raise Malformed for a truth that the built-in verifier `name` cannot read; truths of others are not read."""
    if name in COMPARED:
        COMPARED[name](truth)
    elif name in WITH_ROW:
        WITH_ROW[name](truth, row)
