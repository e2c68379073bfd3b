"""Programs and verdicts by the rules of LiveCodeBench's harness (`lcb_runner/evaluation/testing_util.py`).

A program that reads stdin is run once for each test with its imports first and the rest in a function, so that a
`return` ends it. A function is called with the test's values. The first test that fails ends the
run.
"""

from __future__ import annotations

import ast
import json
import secrets
from decimal import Decimal, InvalidOperation
from typing import Any

from olmes_suite.sandbox.limits import Limits
from olmes_suite.sandbox.verdict import Verdict

SECONDS = 6.0
_MEMORY = 4 * 2**30
_STARS = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
PRELUDE = (
    "".join(f"from {name} import *\n" for name in _STARS)
    + "".join(f"import {name}\n" for name in _STARS if name not in ("builtins", "typing"))
    + "sys.setrecursionlimit(50000)\n"
)
_STDIN = """
def _olmes_stdin():
    import io, os, sys
    class Lines(io.StringIO):
        pass
    text = sys.stdin.read()
    lines = Lines(text)
    lines.buffer = io.BytesIO(text.encode("utf-8"))
    sys.stdin = lines
    os.close(0)
_olmes_stdin()
del _olmes_stdin
"""
"""Reads the input before the program, which finds a text with a `buffer` in `sys.stdin`; `open(0)` fails."""


def verdict(code: str, tests: Any, sandbox: Any, careful: bool = False) -> Verdict:
    """Return the verdict of all tests on a program. `careful`: empty code fails, and fences' rests do not matter."""
    if not tests.cases:
        return Verdict("error", "the problem has no tests")
    if careful and not code.strip():
        return Verdict("fail", "no code")
    return _of_function(code, tests, sandbox, careful) if tests.function else _of_stdin(code, tests, sandbox)


# programs that read stdin ------------------------------------------------------------------------------------------


def _of_stdin(code: str, tests: Any, sandbox: Any) -> Verdict:
    total = 0.0
    mark = secrets.token_hex(16)
    program = f"{_STDIN}{wrapped(without_main(code))}\n{_call(mark)}"
    found = Verdict("pass")
    for case in tests.cases:
        ran = sandbox.run(program, case.given, SECONDS, Limits(cpu=SECONDS, memory=_MEMORY))
        total += ran.verdict.cpu
        stdout, ended, _ = ran.stdout.rpartition(mark)
        if ran.verdict.outcome != "pass":
            return Verdict(ran.verdict.outcome, ran.verdict.detail, total, ran.verdict.wall)
        if not ended or not same_output(stdout, case.wanted):
            return Verdict("fail", "wrong output" if ended else "the program ended early", total, ran.verdict.wall)
        found = Verdict("pass", "", total, ran.verdict.wall)
    return found


def _call(mark: str) -> str:
    """Return the code that calls the program's function; `exit()` ends the program as a return does."""
    return (
        "import sys as _olmes_sys\n"
        "try:\n    wrapped_function()\nexcept SystemExit:\n    pass\n"
        f"_olmes_sys.__stdout__.flush()\n_olmes_sys.__stdout__.write({mark!r})\n_olmes_sys.__stdout__.flush()\n"
    )


def without_main(code: str) -> str:
    """Unwrap an `if __name__ == "__main__":` at the program's end."""
    try:
        body = ast.parse(code).body
        if body and isinstance(body[-1], ast.If) and ast.unparse(body[-1].test).strip() == "__name__ == '__main__'":
            rest = ast.Module(body[:-1], type_ignores=[])
            return f"{ast.unparse(rest)}\n{ast.unparse(ast.Module(body[-1].body, type_ignores=[]))}"
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        pass
    return code


def wrapped(code: str) -> str:
    """Put the prelude and the program's imports first, and everything else into `wrapped_function`.

    Code that cannot be parsed stays as it is, and fails when it is run.
    """
    try:
        body = ast.parse(code).body
        imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        others = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
        function = ast.parse("def wrapped_function(): pass").body[0]
        assert isinstance(function, ast.FunctionDef)
        function.body = list(others) or [ast.Pass()]
        text = ast.unparse(ast.Module([*imports, function], type_ignores=[]))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return code
    return f"{PRELUDE}\n{text}"


def same_output(stdout: str, wanted: str) -> bool:
    """Compare stripped lines as text, otherwise token by token as decimal numbers."""
    got_lines, lines = _lines(stdout), _lines(wanted)
    return len(got_lines) == len(lines) and all(map(_same_line, got_lines, lines))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    try:
        return [Decimal(token) for token in got.split()] == [Decimal(token) for token in wanted.split()]
    except InvalidOperation:
        return False


# functions ---------------------------------------------------------------------------------------------------------


def _of_function(code: str, tests: Any, sandbox: Any, careful: bool) -> Verdict:
    name = str(tests.function)
    in_class = _defines_solution(code) if careful else "class Solution" in code
    target = f"_olmes_solution.{name}" if in_class else name
    made = "_olmes_solution = Solution()\n" if in_class else ""
    program = f"{PRELUDE}\n{code}\n{made}def olmes_entry(*args):\n    return {target}(*args)\n"
    if careful and not in_class and not _defines(code, name):
        return Verdict("fail", f"the code does not define {name}")
    try:
        cases = [
            ([json.loads(line) for line in case.given.split("\n")], json.loads(case.wanted)) for case in tests.cases
        ]
    except ValueError as error:
        return Verdict("error", f"a test's value is no JSON ({error})")
    checks = "".join(_check(given, wanted) for given, wanted in cases)
    source = f"def _olmes_list(value):\n    return list(value) if isinstance(value, tuple) else value\n{checks}"
    limits = Limits(cpu=SECONDS * len(cases), memory=_MEMORY)
    result: Verdict = sandbox.check(program, source, limits.cpu, names=["olmes_entry"], limits=limits)
    return result


def _check(given: list[Any], wanted: Any) -> str:
    return f"assert _olmes_list(olmes_entry(*{given!r})) == {wanted!r}\n"


def _defines(code: str, name: str) -> bool:
    try:
        return any(getattr(node, "name", "") == name for node in ast.parse(code).body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _defines_solution(code: str) -> bool:
    return _defines(code, "Solution")
