"""Cached judgements, addressed by the exact request, so that no question is paid for twice.

The store is the folder `judgements` of the cache folder; threads and processes may share it. Answers that earlier
versions stored there, in one file of JSON lines per judge, are still read.
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
"""Part of every key; increased when the meaning of a stored answer changes."""
BACKEND, TASK = "judge", "judgement"
"""Values of the store's columns for the engine and the task."""


def question_key(question: Question, asked_of: str) -> str:
    """Hash the request and the judge: SHA-256 of their canonical JSON."""
    request = {
        "messages": question.messages,
        "text": question.text,
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "top_logprobs": question.top_logprobs,
    }
    return sha256(canonical_json([VERSION, asked_of, request]))


class AnswerCache:
    """The cached answers of a judge. A folder that cannot be read or written counts as empty."""

    def __init__(self, folder: Path, asked_of: str, name: str = "") -> None:
        """`asked_of` identifies the judge: its fingerprint and, if it is served, its address. `name` is for display."""
        self.asked_of, self.name = asked_of, name
        self.path = folder / "judgements"
        self._answers = dict(_lines(self.path / f"{sha256(asked_of)[:24]}.jsonl"))
        """Answers that earlier versions stored, and those of this process."""
        self._store: Store | None = None
        with contextlib.suppress(OlmesError):
            self._store = Store(self.path)

    def key(self, question: Question) -> str:
        """Return the question's key."""
        return question_key(question, self.asked_of)

    def get(self, key: str) -> Answer | None:
        """Return the stored answer, marked as cached; None if there is none."""
        answer = self._answers.get(key)
        if answer is None and self._store is not None:
            answer = self._store.read(BACKEND, [key], _answer).get((key, GREEDY))
        return None if answer is None else Answer(answer.text, answer.first_token, cached=True)

    def put(self, key: str, answer: Answer) -> None:
        """Store an answer in memory and on disk; safe for several threads and processes."""
        self._answers[key] = answer
        if self._store is not None:
            body = {"text": answer.text, "first_token": answer.first_token}
            with contextlib.suppress(OlmesError):
                self._store.write(BACKEND, sha256(self.asked_of), self.name, [(key, GREEDY, TASK, body)])

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()


def _answer(body: Any) -> Answer:
    first = tuple((str(token), float(logprob)) for token, logprob in body["first_token"])
    return Answer(str(body["text"]), first)


def _lines(path: Path) -> Iterator[tuple[str, Answer]]:
    """Yield (key, answer) from a file of JSON lines; a truncated line is skipped."""
    with contextlib.suppress(OSError):
        for raw in path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(raw.decode("utf-8", "surrogatepass"))
                yield str(entry["key"]), _answer(entry)
