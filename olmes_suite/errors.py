"""The errors that a user can cause.

OlmesError                 exit 2   one line on stderr, never a traceback
├── UsageError             exit 2   a wrong name, flag or file
│   └── WrongKey           exit 2   a wrong key or value in a user's file, which the text names
├── DataError              exit 2   data of the wrong shape
├── MissingData            exit 1   a data set that is not on this machine: its task fails, the others run
├── UnsuitableTask         exit 1   a task whose score is not a mean over documents: it fails, the others run
├── ModelError             exit 2   a checkpoint that cannot be loaded
├── BrowserFailed          exit 2   a browser that makes no picture of a page
├── RunLocked              exit 2   another process is writing the run
├── StorageError           exit 2   the disk is full or read-only
├── ProcessLost            exit 1   a process that works for the command was killed
├── NotComparable          exit 4   two runs whose scores were not made in the same way
├── Broken                 exit 5   the gate cannot judge: a run is damaged or incomplete
├── StageRefused           exit 1   a training stage was stopped: contaminated data, a gate, a loss that is not a number
├── NothingLeft            exit 1   a data set that was made and has no rows
└── RequestFailed          exit 1   the engine gave up on a request: an error, never a score
"""

from __future__ import annotations

from collections.abc import Iterable


def first_line(error: BaseException, limit: int = 300) -> str:
    """Return the first line of an error's text, cut to `limit` characters; the name of its type if it has no text.

    For errors of torch, Ray and similar packages, whose text can fill pages.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return _cut(next(filter(None, lines), type(error).__name__), limit)


def one_line(error: BaseException, limit: int | None = 200) -> str:
    """Return an error's whole text on one line, cut to `limit` characters; the name of its type if it has no text.

    For errors of parsers and checkers, whose later lines name the place and the reason.
    """
    return _cut(" ".join(str(error).split()) or type(error).__name__, limit)


def _cut(text: str, limit: int | None) -> str:
    return text if limit is None or len(text) <= limit else text[:limit] + "…"


class OlmesError(Exception):
    """Base of all errors that are shown as one line. `exit_code` is the process's exit status."""

    exit_code = 2


class UsageError(OlmesError):
    """The command line, a name or a file given by the user is wrong."""


class WrongKey(UsageError):
    """A key or value in a file given by the user is wrong; the text begins with the file."""


class DataError(OlmesError):
    """A data file lacks columns, has wrong types or cannot be read."""


class MissingData(OlmesError):
    """A data set is not on this machine and could not be fetched."""

    exit_code = 1

    def __init__(self, *parts: str) -> None:
        """`parts` are the texts before and after the name of the task, which the raising code does not know."""
        super().__init__("TASK".join(parts))
        self.parts = parts

    def of(self, task: str) -> str:
        """Return the message with the name of the task."""
        return task.join(self.parts)


class UnsuitableTask(OlmesError):
    """A task cannot be run here: its output type, or none of its metrics is a mean over documents."""

    exit_code = 1


class ModelError(OlmesError):
    """A model or tokenizer cannot be loaded."""


class BrowserFailed(OlmesError):
    """The browser made no picture of a page."""


class RunLocked(OlmesError):
    """Another process is writing this run."""


class StorageError(OlmesError):
    """A file cannot be written."""


class ProcessLost(OlmesError):
    """Raised where a process that works for the command is killed."""

    exit_code = 1


class NotComparable(OlmesError):
    """The scores of two runs were not made in the same way."""

    exit_code = 4


class Broken(OlmesError):
    """The gate cannot judge: a run's files are damaged."""

    exit_code = 5


class StageRefused(OlmesError):
    """A training stage must not start or go on: contaminated data, a failed gate, a loss that is not a number."""

    exit_code = 1


class NothingLeft(OlmesError):
    """A data set was made, and has no rows."""

    exit_code = 1


class RequestFailed(OlmesError):
    """A request to a model failed for good, after its retries."""

    exit_code = 1


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` with the known name most similar to `name`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""
