"""The client of one model on an OpenAI-compatible server, which retries requests that may still succeed."""

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
from olmes_suite.endpoints.pace import Pace
from olmes_suite.endpoints.usage import Usage
from olmes_suite.errors import RequestFailed, UsageError, one_line
from olmes_suite.wording import count

TRIES = 7
AGAIN = frozenset({408, 409, 425, 429})
"""Statuses that are retried, besides all statuses from 500 except NOT_IMPLEMENTED."""
NOT_IMPLEMENTED = 501
CROWDED = frozenset({429, 503})
"""Statuses of an overloaded server."""
KEY = "set $OPENAI_API_KEY to a key that it accepts"
ADVICE = {401: KEY, 403: KEY, 404: "check the address, which usually ends in /v1, and the model's name"}
"""What to do about a status."""
PATHS = ("/chat/completions", "/completions", "/models")
"""Paths that are appended to an address."""
LONGEST_WAIT, A_YEAR = 600.0, 365 * 86400.0
"""LONGEST_WAIT: seconds that a server may ask us to wait. More means an exhausted quota or an invalid header."""

Result = TypeVar("Result")


class Refused(RequestFailed):
    """The server refuses the request, so that retries are useless."""

    def __init__(self, line: str, status: int = 0, reason: str = "", param: str | None = None) -> None:
        """`param`: the field of the request that the server names."""
        super().__init__(line)
        self.status, self.reason, self.param = status, reason, param


class _Later(Exception):
    """The request may succeed later, after `wait` seconds where the server named a time."""

    def __init__(
        self, reason: str, wait: float | None = None, crowded: bool = False, response: requests.Response | None = None
    ) -> None:
        """`response`: the server's answer, whose body may say why."""
        super().__init__(reason)
        self.wait, self.crowded, self.response = wait, crowded, response


class _Bearer(requests.auth.AuthBase):
    """Authentication by the key alone; without it `requests` would read a .netrc file."""

    def __init__(self, key: str | None) -> None:
        """Check the key. Raises UsageError, which does not quote the key, where a header cannot hold it."""
        self.key = (key or "").strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise UsageError(
                "$OPENAI_API_KEY contains a line break or another character that is invalid in a key; set it again"
            )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


class Endpoint:
    """A client of a served model, with the key of `$OPENAI_API_KEY` where it is set. Thread-safe.

    408, 409, 425, 429, 5xx, interrupted connections, timeouts and bodies without an answer are retried, up to `tries`
    times in all, with exponential back-off, jitter and the server's Retry-After. After the last try, or for any other
    status, the request fails. Raises UsageError for an invalid key and for an address that contains a password.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        usage: Usage,
        limit: Limit,
        *,
        tries: int = TRIES,
        delay: float = 0.5,
        pace: Pace | None = None,
    ) -> None:
        """Prepare the client. `delay`: seconds before the second try, doubled after each try; `pace` delays each."""
        if "@" in base_url.partition("://")[2].partition("/")[0]:  # manifests, pages and errors show the address
            raise UsageError("a server's address must not contain a password; put the key in $OPENAI_API_KEY")
        if path := next((path for path in PATHS if base_url.rstrip("/").endswith(path)), None):
            raise UsageError(f"{base_url}: give the address without {path}: {base_url.rstrip('/')[: -len(path)]}")
        self.name, self.base_url, self.usage, self.limit = name, base_url.rstrip("/"), usage, limit
        self.tries, self.delay, self.pace = tries, delay, pace
        self._auth = _Bearer(os.environ.get("OPENAI_API_KEY"))
        self._not_before = 0.0
        self._lock = threading.Lock()

    def post(
        self,
        session: requests.Session,
        path: str,
        body: dict[str, Any],
        read: Callable[[bytes], Result],
        *,
        timeout: float,
        stop: threading.Event,
    ) -> Result | None:
        """Send a request and return the result of `read` on the answer's body, or None where `stop` was set.

        `read` raises Malformed for a body that is not an answer. `timeout` is in seconds without data. Raises
        RequestFailed.
        """
        last: _Later | None = None
        for attempt in range(self.tries):
            if self._wait_for_turn(stop) or (self.pace is not None and self.pace.wait(stop)):
                return None
            if attempt:
                with self._lock:
                    self.usage.retries += 1
            sent_at = time.monotonic()
            try:
                result = self._once(session, path, body, read, timeout)
                self.limit.answered(time.monotonic())
                return result
            except _Later as error:
                last = error
                if error.crowded:
                    self.limit.pushed_back(sent_at, time.monotonic())
                self._delay_all(error)
                pause = self.delay * 2**attempt * random.uniform(0.5, 1.5)
                if attempt + 1 < self.tries and stop.wait(pause):
                    return None
        raise self._given_up(last)

    def _given_up(self, last: _Later | None) -> Refused:
        """Return the error after the last try, with the reason that the server gives."""
        answer = last.response if last is not None else None
        tries = count(self.tries, "time")
        if answer is None:
            return self.refused(f"{last or ''}, {tries}")
        content = answer.content
        said = error_reason(content) if content.lstrip()[:1] in (b"{", b"[") else ""
        line = f"{last}, {tries}{f': {said}' if said else ''}"
        return self.refused(line, answer.status_code, said, error_param(content))

    def _delay_all(self, error: _Later) -> None:
        """Delay the requests of all threads until the time that the server named."""
        if error.wait is None:
            return
        if error.wait > LONGEST_WAIT:
            raise RequestFailed(f"{self.name} at {self.base_url}: {error}; {_requested_wait(error.wait)}") from None
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + error.wait)

    def _wait_for_turn(self, stop: threading.Event) -> bool:
        """Wait until the server's Retry-After has passed. Returns True where `stop` was set."""
        while (left := self._not_before - time.monotonic()) > 0:
            if stop.wait(left + random.uniform(0, min(left, 1.0))):
                return True
        return stop.is_set()

    def _once(
        self,
        session: requests.Session,
        path: str,
        body: dict[str, Any],
        read: Callable[[bytes], Result],
        timeout: float,
    ) -> Result:
        self._settle(session)
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
        if status in AGAIN or (status >= 500 and status != NOT_IMPLEMENTED):
            wait = retry_after(response.headers.get("Retry-After"))
            raise _Later(f"HTTP {status}", wait, crowded=status in CROWDED, response=response)
        if status != 200:
            reason = error_reason(response.content)
            advice = f"; {ADVICE[status]}" if status in ADVICE else ""
            raise self.refused(f"HTTP {status}: {reason}{advice}", status, reason, error_param(response.content))
        try:
            return read(response.content)
        except Malformed as error:
            raise _Later(str(error)) from None

    def _settle(self, session: requests.Session) -> None:
        """Read proxies and certificates from the environment once in a session, not with every request."""
        if session.trust_env:
            found = session.merge_environment_settings(self.base_url, {}, None, None, None)
            session.proxies, session.verify, session.cert = found["proxies"], found["verify"], found["cert"]
            session.trust_env = False

    def refused(self, line: str, status: int = 0, reason: str = "", param: str | None = None) -> Refused:
        """Return the error for a request that the server refuses."""
        return Refused(f"{self.name} at {self.base_url}: {line}", status, reason, param)

    def models(self, timeout: float = 30.0) -> list[str] | None:
        """Return the names that GET /models lists, or None where the server has no such list.

        Raises Refused where no server answers at the address, its API is under /v1, or it refuses the key.
        """
        reason = ""
        for attempt in range(3):
            if attempt:
                time.sleep(self.delay * 2**attempt)
            try:
                response = requests.get(
                    f"{self.base_url}/models", auth=self._auth, timeout=timeout, allow_redirects=False
                )
            except (requests.ConnectionError, requests.Timeout) as error:
                reason = _kind(error)
                continue
            except (requests.RequestException, ValueError) as error:
                raise self.refused(one_line(error, None)) from None
            if response.status_code in (401, 403):
                refusal = f"HTTP {response.status_code}: {error_reason(response.content)}"
                raise self.refused(f"{refusal}; {KEY}", response.status_code)
            if response.status_code == 200:
                return _names(response.content)
            if response.status_code == 404 and self._is_below(timeout):
                raise self.refused(f"its API is under {self.base_url}/v1; give that address")
            if response.status_code not in AGAIN and response.status_code < 500:
                return None
            reason = ""
        if reason:
            raise self.refused(f"{reason}; start the server or correct the address")
        return None

    def _is_below(self, timeout: float) -> bool:
        """Whether the server lists its models under /v1, which the address lacks."""
        if self.base_url.endswith("/v1"):
            return False
        try:
            below = requests.get(f"{self.base_url}/v1/models", auth=self._auth, timeout=timeout, allow_redirects=False)
        except requests.RequestException:
            return False
        return below.status_code in (401, 403) or (below.status_code == 200 and _names(below.content) is not None)


def _names(raw: bytes) -> list[str] | None:
    try:
        entries = json.loads(raw)["data"]
        return [str(entry["id"]) for entry in entries] or None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def error_reason(raw: bytes) -> str:
    """Return the reason in an error's body, on one line of at most 300 characters."""
    text = raw.decode("utf-8", "replace")
    try:
        body = json.loads(text)
        error = body.get("error", body) if isinstance(body, dict) else body
        message = error.get("message", error.get("detail")) if isinstance(error, dict) else error
        text = message if isinstance(message, str) else _problems(message) or text
        metadata = error.get("metadata") if isinstance(error, dict) else None
        if isinstance(metadata, dict) and isinstance(raw_reason := metadata.get("raw"), str):
            text = f"{text}: {raw_reason}"  # a router's, of the server behind it
    except (ValueError, RecursionError):
        pass
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= 300 else line[:300] + "…"


def error_param(raw: bytes) -> str | None:
    """Return the field of the request that an error's body names apart from its message (OpenAI's `param`)."""
    try:
        body = json.loads(raw)
        error = body.get("error", body) if isinstance(body, dict) else None
        param = error.get("param") if isinstance(error, dict) else None
    except (ValueError, RecursionError):
        return None
    return param if isinstance(param, str) else None


def _problems(detail: object) -> str:
    """Return the problems of a FastAPI server's `detail`, a list of places and messages; "" for another form."""
    if not isinstance(detail, list) or not all(isinstance(one, dict) and "msg" in one for one in detail):
        return ""
    return "; ".join(f"{'.'.join(map(str, one.get('loc') or ()))}: {one['msg']}" for one in detail)


def _kind(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return (
        "the connection was interrupted"
        if isinstance(error, requests.exceptions.ChunkedEncodingError)
        else "no connection"
    )


def _requested_wait(wait: float) -> str:
    return f"it asks to wait {wait:.0f} s" if wait < A_YEAR else "it asks to wait for more than a year"


def retry_after(header: str | None, now: float | None = None) -> float | None:
    """Return the seconds to wait by a Retry-After header in seconds or as a date (RFC 9110, 10.2.3)."""
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
