"""Verifiers of programs. They run in the sandbox or not at all; the assertions run where the program's code does not.

Two forms of ground truth: HumanEval's `{"prompt", "test", "entry_point"}` (a mapping, its JSON, or columns of the row),
judged by the evaluator's task `humaneval`; or assertions about the functions that the program defines: a list of them,
its JSON, or one text.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from train_plugins.verifiers.base import Malformed, OutOfTime, shown
from train_plugins.verifiers.task_modules import task

SECONDS = 3.0
"""Processor seconds of a program, as in HumanEval."""
_FENCE = re.compile(r"^[ \t]*```[^\n`]*$", re.MULTILINE)
_HUMANEVAL = ("prompt", "test", "entry_point")


def code(response: str, truth: Any, row: Mapping[str, Any], sandbox: Any) -> float | None:
    """1 where all tests hold; None where the sandbox itself failed. Raises OutOfTime."""
    tests = _tests(truth, row)
    if isinstance(tests, dict):
        _, samples = task("humaneval").score.judge(tests, [program(response)], sandbox)
        return _share([str(samples[0].verdict)])
    return _share([sandbox.check(program(response), "\n".join(tests), SECONDS).outcome])


def code_fraction(response: str, truth: Any, row: Mapping[str, Any], sandbox: Any) -> float | None:
    """The share of assertions that hold, each run alone; HumanEval's tests are one. Raises OutOfTime where all are."""
    tests = _tests(truth, row)
    if isinstance(tests, dict):
        return code(response, truth, row, sandbox)
    text = program(response)
    return _share([sandbox.check(text, test, SECONDS).outcome for test in tests])


def program(response: str) -> str:
    """What stands in the response's last fenced block (an open one reaches to the end), or else all of it."""
    fences = list(_FENCE.finditer(response))
    if not fences:
        return response
    opening = fences[(len(fences) - 1) // 2 * 2]
    closing = fences[-1] if fences[-1] is not opening else None
    return response[opening.end() + 1 : closing.start() if closing else len(response)]


def _share(outcomes: Sequence[str]) -> float | None:
    """The passed among `outcomes` ("pass", "fail: why", ...); None where the sandbox failed on one."""
    kinds = [outcome.partition(":")[0] for outcome in outcomes]
    if "error" in kinds:
        return None
    if all(kind == "timeout" for kind in kinds):
        raise OutOfTime
    return kinds.count("pass") / len(kinds)


def _tests(truth: Any, row: Mapping[str, Any]) -> dict[str, str] | list[str]:
    """HumanEval's fields, or the assertions. Raises Malformed."""
    found = row if truth is None else truth
    if isinstance(found, str) and found.lstrip()[:1] in ("[", "{"):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            raise Malformed("it is no JSON") from None
    if isinstance(found, Mapping):
        fields = {name: found.get(name, row.get(name)) for name in _HUMANEVAL}
        for name, value in fields.items():
            if not isinstance(value, str) or (name != "prompt" and not value.strip()):
                raise Malformed(f"HumanEval's {name} must be text, not {shown(value)}")
        return {name: str(value) for name, value in fields.items()}
    tests = list(found) if isinstance(found, (list, tuple)) else [found]
    if not tests or not all(isinstance(test, str) and test.strip() for test in tests):
        raise Malformed(f"expected assertions, not {shown(found)}")
    for test in tests:
        try:
            ast.parse(test)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise Malformed(f"a test does not parse: {shown(test)}") from None
    return tests
