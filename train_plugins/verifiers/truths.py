"""Ground truths, read before a training as the built-in verifiers read them; none of it needs SymPy or a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from train_plugins.verifiers import (
    final_answer,
    form,
    instructions,
    judged,
    mathematics,
    program_tests,
    programs,
    tasksets,
)

COMPARED: Mapping[str, Callable[[Any], Any]] = {
    "gsm8k": final_answer.number_of,
    "gsm8k_benchmark": final_answer.text_with_digits,
    "math": mathematics.gold_of,
    "math_benchmark": mathematics.gold_of,
    "string": final_answer.accepted_of,
    "string_f1": final_answer.accepted_of,
    "re_search": form.pattern_of,
    "max_length": form.length_of,
    "rubric": judged.criteria_of,
    "up_to_max_length": form.length_of,
}
"""Verifiers that read only the ground truth, not the row's other columns."""
WITH_ROW: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    **dict.fromkeys(
        ("ifeval", "ifeval_fraction", "ifeval_strict", "ifeval_strict_fraction"), instructions.check_constraints
    ),
    **dict.fromkeys(("code", "code_fraction"), programs.tests_of),
    **dict.fromkeys(("code_stdio", "code_stdio_fraction"), program_tests.stdin_tests),
    "taskset": tasksets.check_truth,
}


COLUMNS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("ifeval", "ifeval_fraction", "ifeval_strict", "ifeval_strict_fraction"), instructions.COLUMNS),
    **dict.fromkeys(("code", "code_fraction"), programs.COLUMNS),
    **dict.fromkeys(("code_stdio", "code_stdio_fraction"), program_tests.COLUMNS),
}
"""Columns of a row in which these verifiers look for the truth where `ground_truth` has none, or lacks a part."""
_BESIDE = frozenset({"prompt", "kwargs", "metadata"})
"""Columns that are no truth alone."""


def with_columns(name: str, truth: Any, row: Mapping[str, Any]) -> Any:
    """Return the truth with what the verifier `name` would read of it in the row's other columns.

    Such a truth is whole where it is kept without the row. None stays where the row has none of the columns.
    """
    columns = COLUMNS.get(name)
    if columns is None:
        return truth
    found = {key: row[key] for key in columns if row.get(key) is not None}
    if truth is None:
        return found if found.keys() - _BESIDE else None
    if columns is programs.COLUMNS and isinstance(truth, Mapping):
        return {**found, **truth}
    return truth


def read_truth(name: str, truth: Any, row: Mapping[str, Any]) -> None:
    """Raise Malformed for a truth that the built-in verifier `name` cannot read; truths of others are not read."""
    if name in COMPARED:
        COMPARED[name](truth)
    elif name == "judge":
        judged.reference_of(truth)
    elif name in WITH_ROW:
        WITH_ROW[name](truth, row)
