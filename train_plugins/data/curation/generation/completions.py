"""Completions of one model, from the journal where they are in it, otherwise asked for and written there at once.

The journal is a response cache in the unfinished folder. It is addressed by content: request, model and seed, whatever
the address of the server. A command that is killed and resumed asks only for completions that had not arrived. What
comes back is in the order of the requests, and its seeds depend on nothing else, so that the concurrency makes no
difference to the data.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from olmes_suite.errors import RequestFailed, one_line
from olmes_suite.models.base import Backend
from olmes_suite.models.cache.store import Entry, ResponseCache
from olmes_suite.models.interrupt import gentle_interrupt
from olmes_suite.records import Request, Response, canonical_json, sha256
from train_plugins.data.curation.generation.models import Model, build, identity, identity_by_address
from train_plugins.data.surrogates import in_unicode, is_unicode

IN_A_ROW = 25
"""Failed requests without an answer in between after which the command stops: the server is at fault, not the rows."""
FOR_ALL = frozenset({401, 403, 404})
"""Statuses that every request would get."""
FOR_ONE = frozenset({400, 413, 422})
"""Statuses that are the fault of a single request, such as one that is too long."""
EVERY = 10.0
"""Seconds between two lines of progress."""
KIND = "curation"

Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """A completion to ask for."""

    messages: Messages
    """(role, content) pairs, ending with a user's turn."""
    sample: int = 0
    """Number of the sample, from 0; each has a seed of its own."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A completion that could not be had after all retries."""

    reason: str


@dataclass(slots=True)
class Spent:
    """The completions and tokens of one model for a data set, those of earlier starts included."""

    completions: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def as_json(self, model: Model) -> dict[str, Any]:
        """Return the counts for the manifest; the cost in US dollars where the recipe has the model's price."""
        cost = None
        if model.price:
            cost = (self.prompt_tokens * model.price[0] + self.completion_tokens * model.price[1]) / 1e6
        return {
            "model": model.model, "name": model.called, "base_url": model.base_url, "completions": self.completions,
            "failed": self.failed, "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
            "cost_usd": cost,
        }  # fmt: skip


def note(line: str) -> None:
    """Print a line of progress on stderr."""
    print(line, file=sys.stderr, flush=True)


class Journal:
    """The completions that have arrived; use it as a context manager. Raises StorageError if it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._store = ResponseCache(folder)
        self.added = False
        """Whether a completion has been written."""

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._store.close()

    def find(self, keys: Sequence[str]) -> dict[tuple[str, int], Response]:
        """Return the completions of requests by (key, seed)."""
        return self._store.find(KIND, sorted(set(keys)))

    def add(self, model: str, name: str, entry: Entry) -> None:
        """Write a completion. It is kept if the process is killed afterwards."""
        self._store.add(KIND, model, name, [entry])
        self.added = True


@dataclass(slots=True)
class Completer:
    """Asks one model. The model is loaded, or its server reached, for the first completion that is not in the journal.

    `spent` counts each completion that the data set uses once.
    """

    model: Model
    journal: Journal
    seed: int
    report: Callable[[str], None] = note
    spent: Spent = field(default_factory=Spent)
    _identity: str = ""
    _backend: Backend | None = None
    _counted: set[tuple[str, int]] = field(default_factory=set)
    _answered: bool = False
    """Whether the model has answered any request of the data set."""
    _longest: int = 0
    """Size of the longest request that it has answered."""

    def complete(self, asks: Sequence[Ask]) -> list[Response | Failed]:
        """Return a completion for each request, in order.

        Raises RequestFailed where the server refuses all requests, none has ever been answered, or `IN_A_ROW` of them
        fail; ModelError or UsageError where the model cannot be loaded; KeyboardInterrupt after Ctrl-C, when the
        running requests are answered.
        """
        self._identity = self._identity or identity(self.model)
        requests = [self._request(number, ask) for number, ask in enumerate(asks)]
        keys = [request.key(self._identity) for request in requests]
        source = f"served {self.model.model}" if self.model.served else self._identity
        seeds = [self._seed(one.key(source), ask.sample) for one, ask in zip(requests, asks, strict=True)]
        places = list(zip(keys, seeds, strict=True))
        found: dict[tuple[str, int], Response | Failed] = dict(self.journal.find(keys))
        if self.model.served and len(found) < len(set(places)):
            found |= self._found_by_address(requests, places, found)
        missing = {place: number for number, place in reversed(list(enumerate(places))) if place not in found}
        if missing:
            self._answered = self._answered or bool(found)
            had = (_size(one) for one, place in zip(requests, places, strict=True) if place in found)
            self._longest = max(self._longest, *had, 0)
            found |= self._ask({place: requests[number] for place, number in reversed(missing.items())})
        self._count(places, found)
        return [_in_unicode(found[place]) for place in places]

    def _found_by_address(
        self, requests: Sequence[Request], places: Sequence[tuple[str, int]], found: Mapping[tuple[str, int], object]
    ) -> dict[tuple[str, int], Response]:
        """Return those of the missing completions that a journal of an earlier version has for this address."""
        former = identity_by_address(self.model)
        missing = {
            (request.key(former), place[1]): place
            for request, place in zip(requests, places, strict=True)
            if place not in found
        }
        before = self.journal.find([key for key, _ in missing])
        return {missing[place]: response for place, response in before.items() if place in missing}

    def close(self) -> None:
        """Free the model."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    def _request(self, number: int, ask: Ask) -> Request:
        messages = ask.messages
        if self.model.system and (not messages or messages[0][0] != "system"):
            messages = (("system", self.model.system), *messages)
        return Request(KIND, number, 0, "generate", messages, **self.model.sampling())

    def _seed(self, key: str, sample: int) -> int:
        """Return the seed of a request: that of the same model at another address is the same."""
        return int(sha256(canonical_json([self.seed, key, sample]))[:8], 16) % 2**31

    def _ask(self, missing: Mapping[tuple[str, int], Request]) -> dict[tuple[str, int], Response | Failed]:
        backend = self._backend = self._backend or build(self.model, self.seed)
        places, requests = list(missing), list(missing.values())
        if not backend.chat:
            requests = [_as_text(request) for request in requests]
        found: dict[tuple[str, int], Response | Failed] = {}
        answered, in_a_row, reported = 0, 0, time.monotonic()
        with gentle_interrupt(backend, self.report, "waiting for the completions that are under way"):
            for position, _, response in backend.attempt(requests, [[seed] for _, seed in places]):
                if isinstance(response, RequestFailed):
                    in_a_row += not self._too_long(response, requests[position])
                    self._check_failure(response, in_a_row, len(places))
                    found[places[position]] = Failed(one_line(response))
                    continue
                in_a_row = 0
                key, seed = places[position]
                self.journal.add(self._identity, self.model.called, Entry(key, seed, KIND, response))
                found[key, seed] = response
                self._longest = max(self._longest, _size(requests[position]))
                answered, self._answered = answered + 1, True
                if time.monotonic() - reported > EVERY:
                    reported = time.monotonic()
                    self.report(f"{self.model.called}: {answered} of {len(places)} completions")
        if backend.stop_requested:
            raise KeyboardInterrupt
        for place in places:  # an engine that yields nothing for a request
            found.setdefault(place, Failed("the engine returned no completion"))
        return found

    def _too_long(self, error: RequestFailed, request: Request) -> bool:
        """Whether a request was refused that is longer than any answered one; its server may be well all the same.

        Such requests come in a row where a command is resumed, or asks again for what has failed.
        """
        return getattr(error, "status", 0) in FOR_ONE and 0 < self._longest < _size(request)

    def _check_failure(self, error: RequestFailed, in_a_row: int, of: int) -> None:
        """Raise RequestFailed where the server is at fault, not the request."""
        status = getattr(error, "status", 0)
        if status in FOR_ALL:
            raise error
        if in_a_row >= IN_A_ROW:
            which = f"{in_a_row} requests in a row"
        elif in_a_row == of and not self._answered and status not in FOR_ONE:
            which = "all requests" if of > 1 else "the only request"
        else:
            return
        raise RequestFailed(
            f"{self.model.called}: {which} failed, the last with: {one_line(error)}; mend it, then repeat the command "
            "with --resume, which asks only for what is missing"
        )

    def _count(self, places: Sequence[tuple[str, int]], found: Mapping[tuple[str, int], Response | Failed]) -> None:
        for place in dict.fromkeys(places):
            response = found[place]
            if place in self._counted:
                continue
            self._counted.add(place)
            if isinstance(response, Failed):
                self.spent.failed += 1
                continue
            self.spent.completions += 1
            self.spent.prompt_tokens += response.prompt_tokens
            self.spent.completion_tokens += response.completion_tokens


def _in_unicode(response: Response | Failed) -> Response | Failed:
    """Return the completion with U+FFFD for each half of a surrogate pair."""
    if isinstance(response, Failed) or is_unicode((response.text, response.thinking)):
        return response
    return replace(response, text=in_unicode(response.text), thinking=in_unicode(response.thinking))


def _size(request: Request) -> int:
    """Return the bytes of a request's texts."""
    said = [content for _, content in request.messages or ()]
    return len("".join([*said, request.text or ""]).encode("utf-8", "replace"))


def _as_text(request: Request) -> Request:
    """Return the request to a model without a chat template: the turns as paragraphs."""
    text = "\n\n".join(content for _, content in request.messages or ()) + "\n\n"
    return replace(request, messages=None, text=text)
