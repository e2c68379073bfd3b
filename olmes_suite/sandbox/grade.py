"""The sandbox's interface to the rest of the package: verdicts on programs and their tests.

Where tests are assertions about a function's results, two processes in two jails share the work: the program answers
calls in one, the assertions run in the other, and only data passes between them. The program never sees an expected
value, so that no trick inside its process can make a test pass.
"""

from __future__ import annotations

import ast
import atexit
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from olmes_suite.errors import MissingData
from olmes_suite.sandbox.interpreter import Interpreter, interpreter
from olmes_suite.sandbox.jail import Jail, JailFailed
from olmes_suite.sandbox.limits import Limits
from olmes_suite.sandbox.rungs import REFUSAL, Rung, candidates
from olmes_suite.sandbox.verdict import Outcome, Ran, Verdict
from olmes_suite.scoring.tools import ToolOptions

_PROGRAM_MODULES = (
    "typing", "math", "re", "collections", "itertools", "functools", "heapq", "random", "bisect", "string", "datetime",
    "copy", "statistics", "operator", "io", "json",
)  # fmt: skip
"""Modules that programs import most, all of LiveCodeBench's prelude: a jail imports them once, before it forks."""
_TESTS_MODULES = (*_PROGRAM_MODULES, "numpy")
_BATCH = 2**21
"""Characters of the inputs that are sent at once; a frame of six bytes a character still fits."""
_TRIES = 3
"""Failures in a row on one program, after which a failure on a harmless program too gives the verdict `error`."""


class _Lane:
    """A jail for programs and a jail for tests, used by one thread at a time."""

    def __init__(self, rung: Rung, python: Interpreter, preload: Sequence[str]) -> None:
        self.program = Jail(rung, python, (*_PROGRAM_MODULES, *preload))
        self.tests = Jail(rung, python, _TESTS_MODULES)

    def close(self) -> None:
        self.program.close()
        self.tests.close()


class Sandbox:
    """Runs programs that a model wrote, on one rung of isolation. Thread-safe."""

    def __init__(self, rung: Rung, python: Interpreter | None = None, preload: Sequence[str] = ()) -> None:
        """Prepare the sandbox without starting a jail. Raises MissingData without a working interpreter.

        `preload`: modules that a jail imports once, before it forks programs.
        """
        self.rung: Rung = rung
        self.python = python or interpreter()
        self.preload = tuple(preload)
        self.confined: dict[str, Any] = {}
        self._free: list[_Lane] = []
        self._room = threading.Semaphore(max(1, min(8, os.cpu_count() or 2)))
        self._lock = threading.Lock()
        self._siblings: dict[Interpreter, Sandbox] = {}
        atexit.register(self.close)

    def check(
        self,
        program: str,
        tests: str,
        timeout: float = 3.0,
        *,
        names: Sequence[str] | None = None,
        call: str | None = None,
        limits: Limits | None = None,
    ) -> Verdict:
        """Grade a program by assertions that run where its code does not.

        `names`: functions of the program that the tests use, by default those that it defines and the tests name.
        `tests` is executed with these names bound to stubs, then the function `call` of the tests, if given, is called
        with the first stub. `timeout`: processor seconds of the program. Never raises for what a program does.
        """
        bounds = limits or Limits(cpu=timeout)
        used = list(names) if names is not None else named(program, tests)
        if not used:
            return Verdict("fail", "the program does not define a function that the tests use")
        return self._with_lane(lambda lane: _check(lane, program, tests, names=used, call=call, limits=bounds))

    def unittests(self, program: str, tests: str, timeout: float, limits: Limits | None = None) -> Verdict:
        """Grade a program by a unittest class `TestCases` in the same process (see `inside/unittests.py`)."""
        bounds = limits or Limits(cpu=timeout)
        expected = test_names(tests)
        if not expected:
            return Verdict("error", "the class TestCases of the tests has no test method")
        return self._with_lane(lambda lane: _unittests(lane, program, tests, expected, bounds))

    def run(self, program: str, stdin: str = "", timeout: float = 3.0, limits: Limits | None = None) -> Ran:
        """Run a program as a script and return its output and how it ended. The caller compares the output."""
        bounds = limits or Limits(cpu=timeout)
        job = {"kind": "run", "program": program, "stdin": stdin, "limits": bounds.as_json()}
        stdout: list[str] = []

        def once(lane: _Lane) -> Verdict:
            lane.program.submit(job)
            report = lane.program.report()
            stdout[:] = [report["output"]]
            return _run_verdict(report)

        verdict = self._with_lane(once)
        return Ran("".join(stdout), verdict)

    def run_each(
        self, program: str, stdins: Sequence[str], accepts: Callable[[int, str], bool], limits: Limits
    ) -> list[Ran]:
        """Run a program once for each input, in few round trips, up to the first run that fails.

        A run fails if it does not end by itself with exit status 0, or if `accepts` refuses the output of the input
        with that number. The first input is run alone, because most wrong programs fail there.
        """
        runs: list[Ran] = []
        for part in batches(stdins):
            done = 0
            while done < len(part):
                found = self._run_batch(program, part[done:], limits)
                for ran in found:
                    runs.append(ran)
                    if ran.verdict.outcome != "pass" or not accepts(len(runs) - 1, ran.stdout):
                        return runs
                done += len(found)
        return runs

    def _run_batch(self, program: str, stdins: Sequence[str], limits: Limits) -> list[Ran]:
        """Return at least one run, of the inputs from the start."""
        job = {"kind": "run", "program": program, "stdins": list(stdins), "limits": limits.as_json()}
        runs: list[Ran] = []

        def once(lane: _Lane) -> Verdict:
            lane.program.submit(job)
            runs[:] = [Ran(report["output"], _run_verdict(report)) for report in lane.program.report()["runs"]]
            return runs[-1].verdict

        verdict = self._with_lane(once)
        return runs or [Ran("", verdict)]

    def under(self, python: str, preload: Sequence[str] = ()) -> Sandbox:
        """Return a sandbox on the same rung with another Python and all of its packages. Raises MissingData."""
        other = interpreter(python)
        with self._lock:
            if other not in self._siblings:
                sibling = Sandbox(self.rung, other, preload)
                sibling.probe()
                self._siblings[other] = sibling
            return self._siblings[other]

    def probe(self) -> None:
        """Start a jail and check that it runs a program and hides this package's files.

        Raises MissingData where the jail does not start or does not isolate programs.
        """
        lane = self._lane()
        try:
            lane.program.open()
            self.confined = lane.program.confined
        except JailFailed as error:
            lane.close()
            raise MissingData(str(error)) from None
        with self._lock:
            self._free.append(lane)
        if self.rung != "unsafe":
            result = self.run(f"print(6 * 7)\nopen({__file__!r})")
            outcome, stdout = result.verdict.outcome, result.stdout
            if outcome != "fail" or stdout.strip() != "42":
                self.close()
                raise MissingData(
                    f"{self.rung}: the jail does not isolate programs (the probe ended with {outcome}, {stdout[:40]!r})"
                )

    def describe(self) -> dict[str, Any]:
        """Describe the sandbox for the manifest: its rung, its interpreters and the jail's confinement."""
        others = [other.python.executable for other in self._siblings.values()]
        return {"rung": self.rung, "python": self.python.version, "interpreters": others, **self.confined}

    def close(self) -> None:
        """End all jails."""
        with self._lock:
            lanes, self._free = self._free, []
            siblings, self._siblings = self._siblings, {}
        for lane in lanes:
            lane.close()
        for sibling in siblings.values():
            sibling.close()

    def _lane(self) -> _Lane:
        return _Lane(self.rung, self.python, self.preload)

    def _with_lane(self, work: Callable[[_Lane], Verdict]) -> Verdict:
        with self._room:
            with self._lock:
                lane = self._free.pop() if self._free else self._lane()
            try:
                for _ in range(_TRIES):
                    try:
                        return work(lane)
                    except JailFailed as error:
                        lane.close()
                        problem = str(error)
                if _healthy(lane):
                    return Verdict("fail", f"the program broke its jail ({problem})")
                return Verdict("error", problem)
            finally:
                with self._lock:
                    self._free.append(lane)


def _healthy(lane: _Lane) -> bool:
    """Return whether a harmless program passes, so that the program before it caused the failure."""
    try:
        return _check(lane, "def f(): return 1", "assert f() == 1", names=["f"], call=None, limits=Limits()).passed
    except JailFailed:
        lane.close()
        return False


def _check(lane: _Lane, program: str, tests: str, *, names: list[str], call: str | None, limits: Limits) -> Verdict:
    host_end, jail_end = socket.socketpair()
    tests_limits = limits.as_json() | {
        "cpu": 2 * limits.cpu + 10, "idle": limits.wall + 10, "wall": limits.wall + 2 * limits.cpu + 30,
    }  # fmt: skip
    try:
        lane.program.submit({"kind": "calls", "program": program, "limits": limits.as_json()}, host_end)
        lane.tests.submit(
            {"kind": "asserts", "tests": tests, "names": names, "check": call, "limits": tests_limits}, jail_end
        )
    finally:
        host_end.close()
        jail_end.close()
    tests_report = lane.tests.report()
    lane.program.stop()
    program_report = lane.program.report()
    try:
        outcome, detail = json.loads(tests_report["output"])
    except ValueError:
        if "timeout" in (program_report["ended"], tests_report["ended"]):
            return _verdict("timeout", "it exceeded its time limit", program_report)
        if tests_report["ended"] == "memory":
            return _verdict("fail", "the program's return values are too large", program_report)
        return _verdict(
            "error", f"the tests' process ended without a verdict ({_ending(tests_report)})", program_report
        )
    if outcome == "fail" and program_report["ended"] == "timeout":
        return _verdict("timeout", "it exceeded its time limit", program_report)
    if outcome == "fail" and program_report["ended"] not in ("exit", "stopped"):
        detail = f"{detail} ({_ending(program_report)})"
    return _verdict(outcome, detail, program_report)


def _unittests(lane: _Lane, program: str, tests: str, expected: list[str], limits: Limits) -> Verdict:
    nonce, messages = secrets.token_hex(16), [secrets.token_hex(8) for _ in range(2)]
    decoys = [[f"test_{secrets.token_hex(4)}", message] for message in messages]
    job = {
        "kind": "unittests", "program": program, "tests": tests, "nonce": nonce, "decoys": decoys,
        "trusted": [lane.program.python.base, *lane.program.python.site], "limits": limits.as_json(),
    }  # fmt: skip
    lane.program.submit(job)
    report = lane.program.report()
    if report["ended"] == "timeout":
        return _verdict("timeout", "it exceeded its time limit", report)
    try:
        result = json.loads(report["output"])
        if result["nonce"] != nonce:
            raise ValueError
        if result.get("problem"):
            return _verdict("fail", result["problem"], report)
        outcomes = dict(result["outcomes"])
        fails, raises = (outcomes.pop(name) for name, _ in decoys)
    except (ValueError, KeyError, TypeError):
        return _verdict("fail", f"the tests ended without a report ({_ending(report)})", report)
    problems = [
        f"{name}: {outcomes.get(name, ['missing', ''])[1]}" for name in expected if outcomes.get(name, " ")[0] != "ok"
    ]
    if problems:
        return _verdict("fail", "; ".join(problems)[:300], report)
    if (fails[0], raises[0]) != ("fail", "error") or messages[0] not in fails[1] or messages[1] not in raises[1]:
        return _verdict("fail", "a test that must fail passed", report)
    return _verdict("pass", "", report)


def batches(stdins: Sequence[str]) -> list[list[str]]:
    """Divide inputs into the first alone and batches of at most `_BATCH` characters or one input."""
    parts: list[list[str]] = []
    room = 0
    for number, stdin in enumerate(stdins):
        if number <= 1 or len(stdin) > room:
            parts.append([])
            room = _BATCH
        parts[-1].append(stdin)
        room -= len(stdin)
    return parts


def _run_verdict(report: dict[str, Any]) -> Verdict:
    if report["ended"] == "exit" and report["status"] == 0:
        return _verdict("pass", "", report)
    return _verdict("timeout" if report["ended"] == "timeout" else "fail", _ending(report), report)


def _verdict(outcome: Outcome, detail: str, report: dict[str, Any]) -> Verdict:
    return Verdict(outcome, detail, report["cpu"], report["wall"])


def _ending(report: dict[str, Any]) -> str:
    if report["ended"] == "signal":
        return f"signal {report['signal']}"
    return f"exit status {report['status']}" if report["ended"] == "exit" else str(report["ended"])


def named(program: str, tests: str) -> list[str]:
    """Return the functions and classes that the program binds at the top level and the tests name.

    Empty where the program or the tests do not parse.
    """
    try:
        defined = {name for node in ast.parse(program).body for name in _callables(node)}
        used = [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [name for name in dict.fromkeys(used) if name in defined]


def _callables(node: ast.stmt) -> list[str]:
    """List the names that a statement may bind to something callable."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda | ast.Name | ast.Attribute | ast.Call):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def test_names(tests: str) -> list[str]:
    """Return the names of the test methods of the class `TestCases`, in order."""
    for node in ast.parse(tests).body:
        if isinstance(node, ast.ClassDef) and node.name == "TestCases":
            methods = [item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))]
            return [name for name in dict.fromkeys(methods) if name.startswith("test")]
    return []


def build(options: ToolOptions) -> Sandbox:
    """Build the best sandbox of this machine. Raises MissingData where it has none, unless `unsafe_code` is set."""
    reasons = []
    for rung in candidates(options.unsafe_code):
        sandbox = Sandbox(rung)
        try:
            sandbox.probe()
        except MissingData as error:
            reasons.append(str(error))
            continue
        return sandbox
    raise MissingData(REFUSAL.format(why="; ".join(reasons)))
