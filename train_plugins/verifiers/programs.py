"""Verifiers of programs, which run only in the sandbox; the assertions run apart from the program's code.

A ground truth has one of two forms: HumanEval's `{"prompt", "test", "entry_point"}` (a mapping, its JSON, or columns of
the row), judged by the evaluator's task `humaneval`; or assertions about the functions that the program defines (a
list, its JSON, also compressed, or one text).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from train_plugins.verifiers.base import Malformed, OutOfTime, shown
from train_plugins.verifiers.program_tests import PACKED, decoded
from train_plugins.verifiers.task_modules import task

SECONDS = 3.0
"""Time limit of a program in processor seconds, as in HumanEval."""
_FENCE = re.compile(r"^[ \t]*```[^\n`]*$", re.MULTILINE)
_PYTHON = ("python", "py", "python3")
_DEFINES = re.compile(r"^(?:async +def|def|class)\b", re.MULTILINE)
COLUMNS = ("prompt", "test", "entry_point")
"""HumanEval's fields: of a truth, or columns of a row."""


def code(response: str, truth: Any, row: Mapping[str, Any], sandbox: Any) -> float | None:
    """Return 1 if all tests pass, else 0; None if the sandbox itself failed. Raises OutOfTime."""
    tests = tests_of(truth, row)
    if isinstance(tests, dict):
        _, samples = task("humaneval").score.judge(tests, [program(response)], sandbox)
        return _share([str(samples[0].verdict)])
    return _share([sandbox.check(program(response), "\n".join(tests), SECONDS).outcome])


def code_fraction(response: str, truth: Any, row: Mapping[str, Any], sandbox: Any) -> float | None:
    """Return the share of assertions that pass, each run separately; HumanEval's tests count as one assertion.

    None if the sandbox itself failed. Raises OutOfTime if all assertions run out of time.
    """
    tests = tests_of(truth, row)
    if isinstance(tests, dict):
        return code(response, truth, row, sandbox)
    text = program(response)
    return _share([sandbox.check(text, test, SECONDS).outcome for test in tests])


def program(response: str) -> str:
    """Return the program in a response: one of its fenced blocks, or the whole response without one.

    It is the last block that defines a function or a class, otherwise the last, among those marked as Python if any
    are: output and examples of use often follow the program. The last block may lack its closing fence.
    """
    chosen = fenced(response)
    return next((inner for inner in reversed(chosen) if _DEFINES.search(inner)), chosen[-1]) if chosen else response


def fenced(response: str) -> list[str]:
    """Return the fenced blocks of a response, only those marked as Python if any are; the last may lack its fence."""
    fences = list(_FENCE.finditer(response))
    blocks = []
    for opening, closing in zip(fences[::2], [*fences[1::2], None], strict=False):
        inner = response[opening.end() + 1 : closing.start() if closing else len(response)]
        blocks.append((opening[0].strip(" \t`").casefold(), inner))
    return [inner for mark, inner in blocks if mark in _PYTHON] or [inner for _, inner in blocks]


def _share(outcomes: Sequence[str]) -> float | None:
    """Return the share of passes in `outcomes` ("pass", "fail: why", ...); None if the sandbox failed on one."""
    kinds = [outcome.partition(":")[0] for outcome in outcomes]
    if "error" in kinds:
        return None
    if all(kind == "timeout" for kind in kinds):
        raise OutOfTime
    return kinds.count("pass") / len(kinds)


def tests_of(truth: Any, row: Mapping[str, Any]) -> dict[str, str] | list[str]:
    """Return HumanEval's fields, or the assertions. Raises Malformed."""
    value = row if truth is None else truth
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Malformed("it is not JSON") from None
    elif isinstance(value, str) and value.startswith(PACKED):
        value = decoded(value)
    if isinstance(value, Mapping):
        fields = {name: value.get(name, row.get(name)) for name in COLUMNS}
        for name, field in fields.items():
            if not isinstance(field, str) or (name != "prompt" and not field.strip()):
                raise Malformed(f"HumanEval's {name} must be text, not {shown(field)}")
        return {name: str(field) for name, field in fields.items()}
    tests = list(value) if isinstance(value, (list, tuple)) else [value]
    if not tests or not all(isinstance(test, str) and test.strip() for test in tests):
        raise Malformed(f"expected assertions, not {shown(value)}")
    trees = []
    for test in tests:
        try:
            trees.append(ast.parse(test))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise Malformed(f"a test does not parse: {shown(test)}") from None
    if not any(isinstance(node, ast.Assert | ast.Call | ast.Raise) for tree in trees for node in ast.walk(tree)):
        raise Malformed(f"the tests assert nothing, so any program would pass: {shown(value)}")
    return tests
