"""An OpenAI-compatible server in a thread, which answers as the test says and fails in the ways that servers do."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Reply:
    """What the server does with one request."""

    body: Any = None
    """JSON value, or bytes as they stand."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Promise more bytes than are sent, then close the connection."""
    hang: float = 0.0
    """Seconds of silence before the answer."""


def chat(text: str, first: dict[str, float] | None = None) -> Body:
    """A chat completion; `first` are the log-probabilities of the first token."""
    choice: Body = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if first is not None:
        top = [{"token": token, "logprob": logprob} for token, logprob in first.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}


def asked(body: Body) -> str:
    """The last message, or the prompt, of a request."""
    return body["messages"][-1]["content"] if "messages" in body else body["prompt"]


@dataclass
class Served:
    """The running server and what it has seen."""

    url: str
    seen: list[tuple[str, Body]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    """Of each request for an answer, what it was authorised with."""
    together: int = 0
    """Most requests that were under way at one time."""

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for _, body in self.seen:
            found[asked(body)] = found.get(asked(body), 0) + 1
        return found


@contextmanager
def judge_server(reply: Callable[[Body, int], Reply], port: int = 0, models: Reply | None = None) -> Iterator[Served]:
    """Serve `reply(body, how often this question came before)`, and `models` where GET /models asks for it."""
    lock = threading.Lock()
    under_way = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two would wait for the client's delayed acknowledgement, 40 ms

        def do_GET(self) -> None:
            served.seen.append((self.path, {"prompt": "GET"}))
            if models is None:
                self.send_error(404)
            else:
                self._send(models)

        def do_POST(self) -> None:
            nonlocal under_way
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                before = served.counts().get(asked(body), 0)
                served.seen.append((self.path, body))
                served.keys.append(self.headers["Authorization"])
                served.times.append(time.monotonic())
                under_way += 1
                served.together = max(served.together, under_way)
            try:
                self._send(reply(body, before))
            except OSError:
                pass
            finally:
                with lock:
                    under_way -= 1

        def _send(self, found: Reply) -> None:
            time.sleep(found.hang)
            raw = found.body if isinstance(found.body, bytes) else json.dumps(found.body).encode()
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw) + (100 if found.cut else 0)))
            self.end_headers()
            self.wfile.write(raw)
            if found.cut:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    served = Served(f"http://127.0.0.1:{server.server_port}/v1")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


TIMEOUT = 1.0
"""Seconds that a client waits where the server is silent; only there, as a busy machine is late with answers too."""
BAD_REPLIES = {
    "429": Reply({"error": "slow down"}, status=429),
    "429 with a time": Reply({"error": "slow down"}, status=429, headers={"Retry-After": "0"}),
    "408": Reply(None, status=408),
    "409": Reply(None, status=409),
    "500": Reply(b"<html>oops</html>", status=500),
    "503 with a date": Reply(None, status=503, headers={"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"}),
    "cut": Reply(chat("cut"), cut=True),
    "silence": Reply(chat("late"), hang=5.0),
    "no JSON": Reply(b'{"choices": [{"mess'),
    "not an object": Reply([1, 2]),
    "an error that says 200": Reply({"error": {"message": "overloaded"}}),
    "no choices": Reply({"id": "x"}),
    "null choices": Reply({"choices": None}),
    "empty choices": Reply({"choices": []}),
    "a null choice": Reply({"choices": [None]}),
    "null content": Reply({"choices": [{"message": {"role": "assistant", "content": None}}]}),
    "no message": Reply({"choices": [{"text": "for the other endpoint"}]}),
}
"""What is no answer, whoever asks: to be asked again."""
