"""A program and its unittest class in one process, for tests that patch and inspect objects that the program uses.

Here the program could reach its grader, since Python does not isolate code inside a process. Four measures prevent
that: the grader's functions are recorded before the program runs and compared afterwards; two tests with random names
that must fail run among the real tests; a value with its own comparison methods is not compared with values of other
types; and the report needs a nonce and an entry for every test. The exit status is ignored.
"""

from __future__ import annotations

import builtins
import functools
import json
import sys
import types
import unittest
import unittest.mock
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

from . import candidate

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_WATCHED = (builtins, unittest.TestCase, unittest.TestResult, unittest.TestSuite, unittest.mock)
_IDENTITY = ("__class__", "__getattribute__", "__instancecheck__", "__subclasscheck__")
_TRUTH = (*_IDENTITY, "__bool__", "__len__")
_COMPARES = (
    *_TRUTH, "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__", "__iter__", "__hash__",
    "__round__", "__sub__", "__rsub__", "__abs__",
)  # fmt: skip
_UNGUARDED = ("assertRaises", "assertRaisesRegex", "assertWarns", "assertWarnsRegex", "assertLogs", "assertNoLogs")


def snapshot() -> list[tuple[dict[str, Any], Any]]:
    """Record the attributes of the modules and classes that the grader depends on."""
    # unittest.mock replaces attributes that are None on first use.
    return [({name: value for name, value in vars(owner).items() if value is not None}, owner) for owner in _WATCHED]


def tampered(before: list[tuple[dict[str, Any], Any]], modules: dict[str, types.ModuleType]) -> bool:
    """Return whether an attribute or module that the grader depends on has changed since `snapshot`."""
    for attributes, owner in before:
        now = vars(owner)
        if any(name not in now or now[name] is not value for name, value in attributes.items() if name != "_"):
            return True
    return any(sys.modules.get(name) is not module for name, module in modules.items())


class Outcomes(unittest.TestResult):
    """A test result that records the outcome of each test by name."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, list[str]] = {}

    def _note(self, test: unittest.TestCase, kind: str, error: ExcInfo | None = None) -> None:
        name = getattr(test, "_testMethodName", str(test))
        if self.outcomes.get(name, ["ok"])[0] == "ok":  # a problem in tearDown does not replace the test's own problem
            text = f"{error[0].__name__}: {error[1]}" if error and error[0] else ""
            self.outcomes[name] = [kind, text[:300]]

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "ok")

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._note(test, "fail", err)

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._note(test, "error", err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._note(test, "ok")

    def addExpectedFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._note(test, "ok")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "fail")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: ExcInfo | None) -> None:
        if err is not None:
            self._note(test, "fail", err)


def defines(names: tuple[str, ...], value: object, trusted: tuple[str, ...]) -> bool:
    """Return whether the value's type has one of these methods from a file outside the trusted folders."""
    for kind in (*type.mro(type(value)), *type.mro(type(type(value)))[:-1]):
        for name in names:
            method = type.__getattribute__(kind, "__dict__").get(name)
            code = getattr(getattr(method, "fget", method), "__code__", None)
            if code is not None and not code.co_filename.startswith(trusted):
                return True
    return False


def honest(assertion: str, values: tuple[Any, ...], trusted: tuple[str, ...]) -> bool:
    """Return whether no method of the program decides the assertion, except between values of one type."""
    if assertion.startswith("assertIs") or "IsInstance" in assertion:
        return not any(defines(_IDENTITY, value, trusted) for value in values)
    if len(values) == 1:
        return not defines(_TRUTH, values[0], trusted)
    custom = any(defines(_COMPARES, value, trusted) for value in values)
    if custom and len({type(value) for value in values}) > 1:
        return False
    return not any(_contains_custom(value, trusted) for value in values)


def _contains_custom(value: Any, trusted: tuple[str, ...], depth: int = 0) -> bool:
    """Return whether a container, down to depth 3, has an item with its own comparison methods."""
    if type(value) not in (list, tuple, dict, set) or depth > 3:
        return False
    items = [*value.values(), *value] if type(value) is dict else list(value)
    return any(defines(_COMPARES, item, trusted) or _contains_custom(item, trusted, depth + 1) for item in items[:1000])


def guarded(base: type[unittest.TestCase], trusted: tuple[str, ...]) -> type[unittest.TestCase]:
    """Return a TestCase whose assertions reject values that could decide their own comparison."""

    def guard(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def checked(self: unittest.TestCase, *args: object, **kwargs: object) -> Any:
            if not honest(method.__name__, args[:2], trusted):
                raise self.failureException("a compared value has its own comparison methods")
            return method(self, *args, **kwargs)

        return checked

    methods = {
        name: guard(method)
        for name, method in vars(base).items()
        if name.startswith("assert") and name not in _UNGUARDED and callable(method)
    }
    return type("TestCase", (base,), methods)


def _decoys(job: dict[str, Any]) -> dict[str, Callable[[Any], None]]:
    """Return two tests that must fail, by an assertion and by an exception. Names and messages are random."""
    fails, raises = job["decoys"]

    def failing(self: unittest.TestCase) -> None:
        self.assertEqual(fails[1], fails[1][::-1] + "0")

    def raising(self: unittest.TestCase) -> None:
        raise ArithmeticError(raises[1])

    return {fails[0]: failing, raises[0]: raising}


def run(job: dict[str, Any], report: Callable[[str], None]) -> None:
    """Load the program and the tests, run every test method, and report the outcomes with the nonce."""
    trusted = (*(path for path in sys.path if path.startswith("/")), "<frozen", *job["trusted"])
    modules = {name: sys.modules[name] for name in list(sys.modules) if name.split(".")[0] in ("unittest", "builtins")}
    before, suite_run, loader = snapshot(), unittest.TestSuite.run, unittest.TestLoader()
    dumps, result, suite = json.dumps, Outcomes(), unittest.TestSuite()
    original, guard = unittest.TestCase, guarded(unittest.TestCase, trusted)
    nonce = job.pop("nonce")
    try:
        module = candidate.load(job["program"], "__test__")
        if tampered(before, modules):
            return report(dumps({"nonce": nonce, "problem": "the program changed the test framework"}))
        unittest.TestCase = unittest.case.TestCase = guard  # type: ignore[misc]
        exec(compile(job["tests"], "<tests>", "exec"), module.__dict__)
        unittest.TestCase = unittest.case.TestCase = original  # type: ignore[misc]
        cases = vars(module)["TestCases"]
        for name, decoy in _decoys(job).items():
            setattr(cases, name, decoy)
        suite.addTests(loader.loadTestsFromTestCase(cases))
        suite_run(suite, result)
    except BaseException as error:
        return report(dumps({"nonce": nonce, "problem": f"{type(error).__name__}: {error}"[:300]}))
    problem = "the program changed the test framework" if tampered(before, modules) else None
    report(dumps({"nonce": nonce, "problem": problem, "outcomes": result.outcomes}))
