"""The process of the tests: it runs the assertions, sends calls to the program's process and receives only data."""

from __future__ import annotations

import builtins
import json
import socket
import types
from collections.abc import Sequence
from typing import Any

from . import wire


class Gone(BaseException):
    """The program's process ended or sent an invalid answer. Counted, as a bare `except` in a test could hide it."""

    occurrences = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        Gone.occurrences += 1


class RemoteError(Exception):
    """The program raised an exception that is not a builtin."""


class Remote:
    """A stub for a function in the program's process."""

    def __init__(self, link: socket.socket, name: str) -> None:
        self._link, self._name = link, name
        self._ahead: list[Any] = []

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Call the program's function. Raises its exception where that is a builtin, else RemoteError."""
        if self._ahead:
            expected = self._ahead.pop()
            if kwargs or list(map(id, args)) != list(map(id, expected)):
                raise RuntimeError("the tests made other calls than they announced by prefetch")
        else:
            self._send([(args, kwargs)])
        return answer(self._link)

    def prefetch(self, calls: Sequence[Sequence[Any]]) -> None:
        """Send the next calls, as lists of arguments, in one message."""
        self._send([(args, {}) for args in calls])
        self._ahead = [list(args) for args in reversed(calls)]

    def _send(self, calls: list[tuple[Any, dict[str, Any]]]) -> None:
        frame = {"calls": [[self._name, wire.encode(list(args)), wire.encode(kwargs)] for args, kwargs in calls]}
        try:
            wire.send(self._link, frame)
        except OSError:
            raise Gone("the program ended early") from None


def answer(link: socket.socket) -> Any:
    """Receive the program's next answer. Raises the program's exception, or Gone."""
    try:
        message = wire.receive(link)
        if type(message) is dict and "x" in message:
            name, text = message["x"]
            raise _exception(str(name), str(text))
        return wire.decode(message["r"])
    except (EOFError, OSError):
        raise Gone("the program ended early") from None
    except (wire.Malformed, KeyError, TypeError, ValueError) as error:
        if getattr(error, "remote", False):
            raise
        raise Gone("the program's answer is not valid data") from None


def _exception(name: str, text: str) -> Exception:
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RemoteError(f"{name}: {text}")
    try:
        error: Exception = kind(text)
    except TypeError:  # exceptions like UnicodeDecodeError need more arguments
        return RemoteError(f"{name}: {text}")
    error.remote = True  # type: ignore[attr-defined]
    return error


def run(job: dict[str, Any], code: types.CodeType, link: socket.socket) -> str:
    """Run the tests and return the verdict as JSON: ["pass" | "fail" | "error", detail].

    `code` is the compiled prompt and tests.
    """
    try:
        answer(link)  # the first answer says whether the program loads
    except BaseException as error:
        return json.dumps(["fail", shown(error)])
    stubs = {name: Remote(link, name) for name in job["names"]}
    scope: dict[str, Any] = {"__name__": "tests", **stubs}
    try:
        try:
            exec(code, scope)
        except (ImportError, SyntaxError) as error:
            if not getattr(error, "remote", False):
                return json.dumps(["error", f"the tests cannot be loaded: {shown(error)}"])
            raise
        scope.update(stubs)
        if job["check"]:
            scope[job["check"]](stubs[job["names"][0]])
    except BaseException as error:
        return json.dumps(["fail", shown(error)])
    return json.dumps(["fail", "the program ended early"] if Gone.occurrences else ["pass", ""])


def shown(error: BaseException) -> str:
    """Describe an exception in one short line."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}"[:300].replace("\n", " ")
