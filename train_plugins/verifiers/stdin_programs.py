"""Verifiers of programs that read stdin and write stdout, and of single functions, by tests of inputs and outputs.

A program runs once for each test, in a process of its own in the sandbox. Outputs are compared as LiveCodeBench does:
line by line without the white space around, otherwise token by token as decimal numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from olmes_suite.sandbox import Limits
from train_plugins.verifiers.base import OutOfTime
from train_plugins.verifiers.program_tests import Case, Tests, stdin_tests
from train_plugins.verifiers.programs import fenced
from train_plugins.verifiers.task_modules import part

SECONDS = 6.0
"""Time limit of one test in processor seconds, as in LiveCodeBench and open-instruct."""
TIMEOUTS = 3
"""Tests out of time after which the rest of a program's tests count as failed."""
_ENTRY = "olmes_entry"


def code_stdio(response: str, truth: Any, row: Mapping[str, Any], sandbox: Any) -> float | None:
    """Return 1 if all tests pass, else 0; None if the sandbox itself failed. Raises OutOfTime."""
    tests = stdin_tests(truth, row)
    if tests.function:
        return _of_function(response, tests, sandbox, each=False)
    same = part("livecodebench", "programs.py").same_output
    limits = Limits(cpu=SECONDS)

    def accepts(number: int, stdout: str) -> bool:
        return bool(same(stdout, tests.cases[number].wanted))

    program = script(response)
    if not program.strip():
        return 0.0
    runs = sandbox.run_each(program, [case.given for case in tests.cases], accepts, limits)
    last = runs[-1]
    if last.verdict.outcome == "error":
        return None
    if last.verdict.outcome == "timeout":
        raise OutOfTime
    passed = last.verdict.outcome == "pass" and accepts(len(runs) - 1, last.stdout)
    return float(passed and len(runs) == len(tests.cases))


def code_stdio_fraction(response: str, truth: Any, row: Mapping[str, Any], sandbox: Any) -> float | None:
    """Return the share of tests that pass; None if the sandbox itself failed.

    Raises OutOfTime if all tests that were run time out.
    """
    tests = stdin_tests(truth, row)
    if tests.function:
        return _of_function(response, tests, sandbox, each=True)
    same = part("livecodebench", "programs.py").same_output
    program = script(response)
    if not program.strip():
        return 0.0
    verdicts: list[str] = []
    passed = 0
    while len(verdicts) < len(tests.cases) and verdicts.count("timeout") < TIMEOUTS:  # a bad end ends a batch
        left = tests.cases[len(verdicts) :]
        runs = sandbox.run_each(program, [case.given for case in left], lambda *_: True, Limits(cpu=SECONDS))
        for ran, case in zip(runs, left, strict=False):
            verdicts.append(ran.verdict.outcome)
            passed += ran.verdict.outcome == "pass" and same(ran.stdout, case.wanted)
    if "error" in verdicts:
        return None
    if all(verdict == "timeout" for verdict in verdicts):
        raise OutOfTime
    return passed / len(tests.cases)


def script(response: str) -> str:
    """Return the script in a response: its last fenced block, of those marked as Python if any are, or all of it."""
    blocks = fenced(response)
    return blocks[-1] if blocks else response


def _of_function(response: str, tests: Tests, sandbox: Any, each: bool) -> float | None:
    code, name = script(response), str(tests.function)
    name = name.removeprefix("Solution.")
    in_class = not _defines(code, name) and _defines(code, "Solution")
    target = f"Solution().{name}" if in_class else name
    program = f"{code}\n\ndef {_ENTRY}(*args):\n    return {target}(*args)\n"
    parts = [[case] for case in tests.cases] if each else [list(tests.cases)]
    outcomes = []
    for cases in parts:
        limits = Limits(cpu=SECONDS * len(cases))
        checks = _CHECK + "".join(_assertion(case) for case in cases)
        outcomes.append(sandbox.check(program, checks, limits.cpu, names=[_ENTRY], limits=limits).outcome)
    if "error" in outcomes:
        return None
    if all(outcome == "timeout" for outcome in outcomes):
        raise OutOfTime
    return outcomes.count("pass") / len(outcomes)


_CHECK = (
    "def _plain(value):\n    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value\n"
)


def _assertion(case: Case) -> str:
    wanted, call = repr(case.wanted), f"{_ENTRY}(*{case.given!r})"
    if isinstance(case.wanted, list) and len(case.wanted) == 1:  # APPS and TACO put the value into a list
        return f"_got = _plain({call})\nassert _got == _plain({wanted}) or [_got] == _plain({wanted})\n"
    return f"assert _plain({call}) == _plain({wanted})\n"


def _defines(code: str, name: str) -> bool:
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    names = [getattr(node, "name", "") for node in body]
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return name in names or name in [target.id for target in targets if isinstance(target, ast.Name)]
