"""The sandbox as the rest of the package sees it: a program and its tests go in, a verdict comes out.

Where tests are assertions about a function's results, two processes in two jails share the work: the program answers
calls in one, the assertions run in the other, and only data passes between them. The program never meets an expected
value, so no trick inside its own process can make a test pass.
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
from typing import Any, TypeVar

from olmes_suite.errors import MissingData
from olmes_suite.sandbox.interpreter import Interpreter, interpreter
from olmes_suite.sandbox.jail import Jail, JailFailed
from olmes_suite.sandbox.limits import Limits
from olmes_suite.sandbox.rungs import REFUSAL, Rung, candidates
from olmes_suite.sandbox.verdict import Ran, Verdict
from olmes_suite.scoring.tools import ToolOptions

T = TypeVar("T")
_PROGRAM_MODULES = (
    "typing",
    "math",
    "re",
    "collections",
    "itertools",
    "functools",
    "heapq",
    "random",
    "bisect",
    "string",
)
_TESTS_MODULES = (*_PROGRAM_MODULES, "numpy")
_TRIES = 3
"""A sandbox that fails this often in a row on one program, and then on a harmless one, gives the verdict `error`."""


class _Lane:
    """A jail for programs and one for tests, used by one thread at a time."""

    def __init__(self, rung: Rung, python: Interpreter, preload: Sequence[str]) -> None:
        self.program = Jail(rung, python, (*_PROGRAM_MODULES, *preload))
        self.tests = Jail(rung, python, _TESTS_MODULES)

    def close(self) -> None:
        self.program.close()
        self.tests.close()


class Sandbox:
    """Runs programs that a model wrote, on one rung of isolation. Thread-safe."""

    def __init__(self, rung: Rung, python: Interpreter | None = None, preload: Sequence[str] = ()) -> None:
        """`preload`: modules that are imported once, before programs are forked. Raises MissingData."""
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
        `tests` is executed with these names bound to stubs; then the function `call` of the tests, if given, is called
        with the first stub. `timeout`: processor seconds of the program. Never raises for what a program does.
        """
        bounds = limits or Limits(cpu=timeout)
        used = list(names) if names is not None else named(program, tests)
        if not used:
            return Verdict("fail", "the program defines no function that the tests use")
        return self._with_lane(lambda lane: _check(lane, program, tests, used, call, bounds))

    def unittests(self, program: str, tests: str, timeout: float, limits: Limits | None = None) -> Verdict:
        """Grade a program by a unittest class `TestCases`, in one process with it (see `inside/unittests.py`)."""
        bounds = limits or Limits(cpu=timeout)
        expected = test_names(tests)
        if not expected:
            return Verdict("error", "the tests hold no test method")
        return self._with_lane(lambda lane: _unittests(lane, program, tests, expected, bounds))

    def run(self, program: str, stdin: str = "", timeout: float = 3.0, limits: Limits | None = None) -> Ran:
        """Run a program as a script and give what it printed; comparing that is the caller's business."""
        bounds = limits or Limits(cpu=timeout)
        job = {"kind": "run", "program": program, "stdin": stdin, "limits": bounds.as_json()}
        printed: list[str] = []

        def once(lane: _Lane) -> Verdict:
            lane.program.submit(job)
            report = lane.program.report()
            printed[:] = [report["output"]]
            if report["ended"] == "exit" and report["status"] == 0:
                return _verdict("pass", "", report)
            return _verdict("timeout" if report["ended"] == "timeout" else "fail", _ending(report), report)

        verdict = self._with_lane(once)
        return Ran("".join(printed), verdict)

    def under(self, python: str, preload: Sequence[str] = ()) -> Sandbox:
        """The same rung with another Python and all of its packages. Raises MissingData."""
        other = interpreter(python)
        with self._lock:
            if other not in self._siblings:
                sibling = Sandbox(self.rung, other, preload)
                sibling.probe()
                self._siblings[other] = sibling
            return self._siblings[other]

    def probe(self) -> None:
        """Start a jail and see that it runs a program and shows no file of this package. Raises MissingData."""
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
            seen = self.run(f"print(6 * 7)\nopen({__file__!r})")
            if seen.verdict.outcome != "fail" or seen.stdout.strip() != "42":
                self.close()
                raise MissingData(f"{self.rung}: the jail does not hold ({seen.verdict.outcome}, {seen.stdout[:40]!r})")

    def describe(self) -> dict[str, Any]:
        """For the manifest: rung, interpreter, what the jail could do without."""
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
                    return Verdict("fail", f"the program ends its jail ({problem})")
                return Verdict("error", problem)
            finally:
                with self._lock:
                    self._free.append(lane)


def _healthy(lane: _Lane) -> bool:
    """A program that harms nobody is graded rightly: what went wrong before was the program's doing."""
    try:
        return _check(lane, "def f(): return 1", "assert f() == 1", ["f"], None, Limits()).passed
    except JailFailed:
        lane.close()
        return False


def _check(lane: _Lane, program: str, tests: str, names: list[str], call: str | None, limits: Limits) -> Verdict:
    ours, theirs = socket.socketpair()
    patient = limits.as_json() | {
        "cpu": 2 * limits.cpu + 10, "idle": limits.wall + 10, "wall": limits.wall + 2 * limits.cpu + 30,
    }  # fmt: skip
    try:
        lane.program.submit({"kind": "calls", "program": program, "limits": limits.as_json()}, ours)
        lane.tests.submit({"kind": "asserts", "tests": tests, "names": names, "check": call, "limits": patient}, theirs)
    finally:
        ours.close()
        theirs.close()
    judged = lane.tests.report()
    lane.program.stop()
    ran = lane.program.report()
    try:
        outcome, detail = json.loads(judged["output"])
    except ValueError:
        if "timeout" in (ran["ended"], judged["ended"]):
            return _verdict("timeout", "out of time", ran)
        if judged["ended"] == "memory":
            return _verdict("fail", "the program's answers are too large", ran)
        return _verdict("error", f"the tests' process ended without a verdict ({_ending(judged)})", ran)
    if outcome == "fail" and ran["ended"] == "timeout":
        return _verdict("timeout", "out of time", ran)
    if outcome == "fail" and ran["ended"] not in ("exit", "stopped"):
        detail = f"{detail} ({_ending(ran)})"
    return _verdict(outcome, detail, ran)


def _unittests(lane: _Lane, program: str, tests: str, expected: list[str], limits: Limits) -> Verdict:
    nonce, marks = secrets.token_hex(16), [secrets.token_hex(8) for _ in range(2)]
    decoys = [[f"test_{secrets.token_hex(4)}", mark] for mark in marks]
    job = {
        "kind": "unittests", "program": program, "tests": tests, "nonce": nonce, "decoys": decoys,
        "trusted": [lane.program.python.base, *lane.program.python.site], "limits": limits.as_json(),
    }  # fmt: skip
    lane.program.submit(job)
    ran = lane.program.report()
    if ran["ended"] == "timeout":
        return _verdict("timeout", "out of time", ran)
    try:
        found = json.loads(ran["output"])
        if found["nonce"] != nonce:
            raise ValueError
        if found.get("problem"):
            return _verdict("fail", found["problem"], ran)
        outcomes = dict(found["outcomes"])
        fails, raises = (outcomes.pop(name) for name, _ in decoys)
    except (ValueError, KeyError, TypeError):
        return _verdict("fail", f"no report of the tests ({_ending(ran)})", ran)
    bad = [
        f"{name}: {outcomes.get(name, ['missing', ''])[1]}" for name in expected if outcomes.get(name, " ")[0] != "ok"
    ]
    if bad:
        return _verdict("fail", "; ".join(bad)[:300], ran)
    if (fails[0], raises[0]) != ("fail", "error") or marks[0] not in fails[1] or marks[1] not in raises[1]:
        return _verdict("fail", "a test that must fail did not", ran)
    return _verdict("pass", "", ran)


def _verdict(outcome: Any, detail: str, report: dict[str, Any]) -> Verdict:
    return Verdict(outcome, detail, report["cpu"], report["wall"])


def _ending(report: dict[str, Any]) -> str:
    if report["ended"] == "signal":
        return f"signal {report['signal']}"
    return f"exit status {report['status']}" if report["ended"] == "exit" else str(report["ended"])


def named(program: str, tests: str) -> list[str]:
    """Functions and classes that the program defines at its top and the tests name; none where one does not parse."""
    try:
        defined = {node.name for node in ast.parse(program).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        used = [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [name for name in dict.fromkeys(used) if name in defined]


def test_names(tests: str) -> list[str]:
    """The test methods of the class `TestCases`, in order."""
    for node in ast.parse(tests).body:
        if isinstance(node, ast.ClassDef) and node.name == "TestCases":
            methods = [item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))]
            return [name for name in dict.fromkeys(methods) if name.startswith("test")]
    return []


def build(options: ToolOptions) -> Sandbox:
    """The best sandbox of this machine. Raises MissingData, in one line, where there is none and none is waived."""
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
