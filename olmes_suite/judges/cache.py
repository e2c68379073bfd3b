"""Judgements on disk, by the exact request: what a judge has said once is not paid for twice.

They are kept in the folder `judgements` of the cache folder, in a store like that of responses, which threads and
processes may share. Answers that earlier versions kept there, one file of JSON lines per judge, are still read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.judges.base import Answer, Question
from olmes_suite.models.cache.store import GREEDY, Store
from olmes_suite.records import canonical_json, sha256

VERSION = 1
"""Part of every key: raised when the meaning of a stored answer changes."""
BACKEND, TASK = "judge", "judgement"
"""In place of an engine and of a task, in the store."""


def question_key(question: Question, asked_of: str) -> str:
    """SHA-256 of the canonical JSON of all that the judge is sent, and of which judge it is."""
    sent = {
        "messages": question.messages,
        "text": question.text,
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "top_logprobs": question.top_logprobs,
    }
    return sha256(canonical_json([VERSION, asked_of, sent]))


class AnswerCache:
    """Answers of one judge. A folder that cannot be read or written is as good as an empty one."""

    def __init__(self, folder: Path, asked_of: str, name: str = "") -> None:
        """`asked_of` tells judges apart: fingerprint and, for a served one, the address. `name` is for people."""
        self.asked_of, self.name = asked_of, name
        self.path = folder / "judgements"
        self._answers = dict(_lines(self.path / f"{sha256(asked_of)[:24]}.jsonl"))
        """What earlier versions kept, and what this process asked."""
        self._store: Store | None = None
        with contextlib.suppress(OlmesError):
            self._store = Store(self.path)

    def key(self, question: Question) -> str:
        """The question's key."""
        return question_key(question, self.asked_of)

    def get(self, key: str) -> Answer | None:
        """The stored answer, marked as cached."""
        found = self._answers.get(key)
        if found is None and self._store is not None:
            found = self._store.read(BACKEND, [key], _answer).get((key, GREEDY))
        return None if found is None else Answer(found.text, found.first_token, cached=True)

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer, on disk too; safe from several threads and processes."""
        self._answers[key] = answer
        if self._store is not None:
            body = {"text": answer.text, "first_token": answer.first_token}
            with contextlib.suppress(OlmesError):
                self._store.write(BACKEND, sha256(self.asked_of), self.name, [(key, GREEDY, TASK, body)])

    def close(self) -> None:
        """Close the file."""
        if self._store is not None:
            self._store.close()


def _answer(body: Any) -> Answer:
    first = tuple((str(token), float(logprob)) for token, logprob in body["first_token"])
    return Answer(str(body["text"]), first)


def _lines(path: Path) -> Iterator[tuple[str, Answer]]:
    """(key, answer) of a file of JSON lines; a line that a kill has torn is passed over."""
    with contextlib.suppress(OSError):
        for raw in path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(raw.decode("utf-8", "surrogatepass"))
                yield str(entry["key"]), _answer(entry)
