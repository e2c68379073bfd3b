"""One model behind an OpenAI-compatible server: a request is sent again until it is answered or has failed for good."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import requests

from olmes_suite.endpoints.bodies import Malformed
from olmes_suite.endpoints.concurrency import Limit
from olmes_suite.endpoints.usage import Usage
from olmes_suite.errors import RequestFailed, UsageError, one_line

TRIES = 7
AGAIN = frozenset({408, 409, 425, 429})
"""Statuses that are tried again, beside all of 500 and above."""
CROWDED = frozenset({429, 503})
"""Statuses by which a server says that it has too much to do."""
LONGEST_WAIT, A_YEAR = 600.0, 365 * 86400.0
"""Seconds that a server may ask us to wait: one that asks for more has no quota left, or talks nonsense."""

Found = TypeVar("Found")


class Refused(RequestFailed):
    """The server will not answer this request, however often it is sent."""

    def __init__(self, line: str, status: int = 0, reason: str = "") -> None:
        super().__init__(line)
        self.status, self.reason = status, reason


class _Later(Exception):
    """The request is worth another try, after `wait` seconds if the server named a time."""

    def __init__(self, reason: str, wait: float | None = None, crowded: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.crowded = wait, crowded


class _Bearer(requests.auth.AuthBase):
    """The key, and nothing from a .netrc file, which requests would read for itself."""

    def __init__(self, key: str | None) -> None:
        """Raises UsageError for what no header can hold; it says nothing of the key itself."""
        self.key = (key or "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise UsageError("$OPENAI_API_KEY holds a line break or another character that no key has; set it anew")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


class Endpoint:
    """Sends requests to a served model; the key is `$OPENAI_API_KEY`, if any. Used by many threads at a time.

    408, 409, 425, 429, 5xx, cut connections, timeouts and bodies that hold no answer are tried again, `tries` times in
    all, with exponential back-off, jitter and the server's Retry-After; then, or for any other status, the request has
    failed. Raises UsageError for a key that cannot be sent, and for an address with a password in it.
    """

    def __init__(
        self, name: str, base_url: str, usage: Usage, limit: Limit, *, tries: int = TRIES, delay: float = 0.5
    ) -> None:
        """`delay`: seconds before the second try, doubled each time."""
        if "@" in base_url.partition("://")[2].partition("/")[0]:  # it would stand in manifests, pages and error lines
            raise UsageError("a server's address may not hold a password; put a key in $OPENAI_API_KEY")
        self.name, self.base_url, self.usage, self.limit = name, base_url.rstrip("/"), usage, limit
        self.tries, self.delay = tries, delay
        self._auth = _Bearer(os.environ.get("OPENAI_API_KEY"))
        self._not_before = 0.0
        self._lock = threading.Lock()

    def post(
        self,
        session: requests.Session,
        path: str,
        body: dict[str, Any],
        read: Callable[[bytes], Found],
        timeout: float,
        stop: threading.Event,
    ) -> Found | None:
        """What `read` makes of the answer's body; None if `stop` was set meanwhile. Raises RequestFailed.

        `read` raises Malformed for a body that is no answer; `timeout` is in seconds of silence.
        """
        reason = ""
        for attempt in range(self.tries):
            if self._wait_for_turn(stop):
                return None
            if attempt:
                with self._lock:
                    self.usage.retries += 1
            sent = time.monotonic()
            try:
                found = self._once(session, path, body, read, timeout)
                self.limit.answered(time.monotonic())
                return found
            except _Later as error:
                reason = str(error)
                if error.crowded:
                    self.limit.pushed_back(sent, time.monotonic())
                self._heed(error)
                pause = self.delay * 2**attempt * random.uniform(0.5, 1.5)
                if attempt + 1 < self.tries and stop.wait(pause):
                    return None
        raise RequestFailed(f"{self.name} at {self.base_url}: {reason}, {self.tries} times")

    def _heed(self, error: _Later) -> None:
        """All threads ask the same server: none goes before the time that it named."""
        if error.wait is None:
            return
        if error.wait > LONGEST_WAIT:
            raise RequestFailed(f"{self.name} at {self.base_url}: {error}; {_asked_for(error.wait)}") from None
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + error.wait)

    def _wait_for_turn(self, stop: threading.Event) -> bool:
        """Wait until the server's Retry-After is over; True if `stop` was set."""
        while (left := self._not_before - time.monotonic()) > 0:
            if stop.wait(left + random.uniform(0, min(left, 1.0))):
                return True
        return stop.is_set()

    def _once(
        self,
        session: requests.Session,
        path: str,
        body: dict[str, Any],
        read: Callable[[bytes], Found],
        timeout: float,
    ) -> Found:
        try:
            response = session.post(
                f"{self.base_url}{path}", json=body, auth=self._auth, timeout=(30.0, timeout), allow_redirects=False
            )
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.InvalidHeader,
        ) as error:
            raise self.refused(str(error)) from None
        except requests.RequestException as error:
            raise _Later(_kind(error), crowded=isinstance(error, requests.Timeout)) from None
        status = response.status_code
        if status in AGAIN or status >= 500:
            wait = retry_after(response.headers.get("Retry-After"))
            raise _Later(f"HTTP {status}", wait, crowded=status in CROWDED)
        if status != 200:
            reason = said(response.content)
            raise self.refused(f"HTTP {status}: {reason}", status, reason)
        try:
            return read(response.content)
        except Malformed as error:
            raise _Later(str(error)) from None

    def refused(self, line: str, status: int = 0, reason: str = "") -> Refused:
        """The error for a request that this server will never answer."""
        return Refused(f"{self.name} at {self.base_url}: {line}", status, reason)

    def models(self, timeout: float = 30.0) -> list[str] | None:
        """Names that GET /models gives; None where the server has no such list.

        Raises Refused where nobody listens at the address, or the key is refused.
        """
        reason = ""
        for attempt in range(3):
            if attempt:
                time.sleep(self.delay * 2**attempt)
            try:
                found = requests.get(f"{self.base_url}/models", auth=self._auth, timeout=timeout, allow_redirects=False)
            except (requests.ConnectionError, requests.Timeout) as error:
                reason = _kind(error)
                continue
            except (requests.RequestException, ValueError) as error:
                raise self.refused(one_line(error, None)) from None
            if found.status_code in (401, 403):
                raise self.refused(
                    f"HTTP {found.status_code}: {said(found.content)}; set $OPENAI_API_KEY to a key that it takes",
                    found.status_code,
                )
            if found.status_code == 200:
                return _names(found.content)
            if found.status_code not in AGAIN and found.status_code < 500:
                return None
            reason = ""
        if reason:
            raise self.refused(f"{reason}; start the server, or mend the address")
        return None


def _names(raw: bytes) -> list[str] | None:
    try:
        entries = json.loads(raw)["data"]
        return [str(entry["id"]) for entry in entries] or None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def said(raw: bytes) -> str:
    """The reason in an error's body, on one line of at most 300 characters."""
    text = raw.decode("utf-8", "replace")
    try:
        body = json.loads(text)
        error = body.get("error", body) if isinstance(body, dict) else body
        found = error.get("message", error.get("detail")) if isinstance(error, dict) else error
        text = found if isinstance(found, str) else text
    except (ValueError, RecursionError):
        pass
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= 300 else line[:300] + "…"


def _kind(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "the connection was cut" if isinstance(error, requests.exceptions.ChunkedEncodingError) else "no connection"


def _asked_for(wait: float) -> str:
    return f"wait {wait:.0f} s" if wait < A_YEAR else "it asks to wait for more than a year"


def retry_after(header: str | None, now: float | None = None) -> float | None:
    """Seconds to wait by a Retry-After header, given in seconds or as a date (RFC 9110, 10.2.3)."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - (time.time() if now is None else now))
    except ValueError:
        return None
