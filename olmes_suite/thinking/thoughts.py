"""A reader with the policy for thoughts that do not end, applied to texts and to separate channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from olmes_suite.errors import DataError, UsageError
from olmes_suite.thinking.reader import AnswerMarks, Reader

Unclosed = Literal["reference", "empty"]
UNCLOSED: tuple[str, ...] = get_args(Unclosed)


class Parts(NamedTuple):
    """A response in two parts: the answer, which is scored, and the thought before it."""

    answer: str
    thinking: str | None = None
    unclosed: bool = False


def check_unclosed(value: str | None) -> Unclosed:
    """Return the policy, `reference` for None. Raises UsageError for an unknown one."""
    if value is None or value == "reference":
        return "reference"
    if value == "empty":
        return "empty"
    raise UsageError(f"--unclosed {value}: use one of {', '.join(UNCLOSED)}")


@dataclass(frozen=True, slots=True)
class Thoughts:
    """How thoughts are read: the marks, and what is scored of a text that ends inside a thought.

    `reference` scores such a text whole, as OLMES does; `empty` scores an empty answer.
    """

    reader: Reader
    unclosed: Unclosed = "reference"
    opened: bool | None = None
    """Whether prompts end with an opened thought; None: the reader's own default."""

    def read(self, text: str, *, opened: bool | None = None, closed_only: bool = False) -> Parts:
        """Read a text that holds the thought and the answer.

        `closed_only` leaves a text without a closing mark as it is, for texts of models that may not think.
        """
        thinking, answer, unclosed = self.reader.split(text, self.opened if opened is None else opened)
        if unclosed and self.unclosed == "empty":
            answer = ""
        elif closed_only and self.reader.last_close(text)[0] < 0:
            answer = text
        return Parts(answer, thinking, unclosed)

    def read_channel(self, content: str | None, thinking: str) -> Parts:
        """Read an answer whose thought came apart from it. Without a content the thought did not end.

        `reference` then scores the thought, as where both come in one text.
        """
        if content is not None:
            return Parts(self.reader.split(content, False).answer, thinking)
        return Parts("" if self.unclosed == "empty" else thinking, thinking, True)

    def settings(self) -> dict[str, Any]:
        """Return what a fingerprint holds of the reader: its name, its marks where they are the user's, the policy."""
        return settings_of(self.reader) | {"unclosed": self.unclosed}


def settings_of(reader: Reader) -> dict[str, Any]:
    """Return what tells readers apart."""
    answer = [reader.answer.open, reader.answer.close]
    return {"reader": reader.name, "open": reader.open, "close": list(reader.close), "answer": answer}


def recorded_reader(settings: Mapping[str, Any]) -> Reader:
    """Return the reader that settings describe. Raises DataError where they are damaged."""
    try:
        start, end = settings["answer"]
        marks = AnswerMarks(start, end)
        return Reader(str(settings["open"]), tuple(map(str, settings["close"])), marks, name=str(settings["reader"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the run's manifest does not describe its reader of thoughts ({error!r})") from None
