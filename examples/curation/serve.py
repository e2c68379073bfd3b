"""Serve a checkpoint on this machine's processor, as an OpenAI-compatible server; for examples, not for load.

    python examples/curation/serve.py MODEL [--port 8000] [--name small]

Answers GET /v1/models and POST /v1/chat/completions. Requests that arrive together are answered as one batch, so that
a small model on two cores is not slower than it must be.
"""

from __future__ import annotations

import argparse
import json
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.models.factory import make_backend
from olmes_suite.records import Request, Response

WAIT, MOST = 0.05, 16
"""Seconds that a batch waits for more requests; requests of a batch."""


Open = tuple[Request, int, Callable[[], bool], "queue.Queue[Response | None]"]
"""A request, its seed, whether its client has gone, and where the answer goes."""


class Batches:
    """A thread that owns the model and answers requests in batches.

    Requests of clients that were killed or have given up are left out, and a batch ends early when nobody waits for
    the rest of it, because the others would wait for them.
    """

    def __init__(self, model: str) -> None:
        self.backend = make_backend("hf", model)
        self.open: queue.Queue[Open] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def answer(self, request: Request, seed: int, gone: Callable[[], bool]) -> Response | None:
        """Return the answer to one request, or None where its client has gone."""
        done: queue.Queue[Response | None] = queue.Queue()
        self.open.put((request, seed, gone, done))
        return done.get()

    def _work(self) -> None:
        while True:
            batch = [self.open.get()]
            time.sleep(WAIT)
            while len(batch) < MOST and not self.open.empty():
                batch.append(self.open.get())
            self._run(batch)

    def _run(self, batch: list[Open]) -> None:
        waiting = {number: one for number, one in enumerate(batch) if not one[2]()}
        numbers = list(waiting)
        if waiting:
            answers = self.backend.run([batch[n][0] for n in numbers], [[batch[n][1]] for n in numbers])
            for position, _, response in answers:
                waiting.pop(numbers[position])[3].put(response)
                if all(one[2]() for one in waiting.values()):
                    break
        answered = set(numbers) - set(waiting)
        for number in set(range(len(batch))) - answered:
            batch[number][3].put(None)


def has_gone(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection."""
    return bool(select.select([connection], [], [], 0)[0]) and not connection.recv(1, socket.MSG_PEEK)


def request_of(body: dict[str, Any]) -> Request:
    """Return the request of a body."""
    messages = tuple((turn["role"], turn["content"]) for turn in body["messages"])
    return Request(
        "serve", 0, 0, "generate", messages, stop=tuple(body.get("stop") or ()), top_p=body.get("top_p"),
        max_tokens=body.get("max_tokens", 256), temperature=body.get("temperature", 1.0),
    )  # fmt: skip


def handler(batches: Batches, name: str) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers requests to the server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two would wait for the client's delayed acknowledgement, 40 ms

        def do_GET(self) -> None:
            """List the model."""
            self._send({"object": "list", "data": [{"id": name, "object": "model"}]})

        def do_POST(self) -> None:
            """Answer a chat."""
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = batches.answer(request_of(body), int(body.get("seed", 0)), lambda: has_gone(self.connection))
            if found is None:
                self.close_connection = True
                return
            message = {"role": "assistant", "content": found.text or ""}
            tokens = {"prompt_tokens": found.prompt_tokens, "completion_tokens": found.completion_tokens}
            choice = {"index": 0, "message": message, "finish_reason": found.finish_reason}
            self._send({"object": "chat.completion", "model": name, "choices": [choice], "usage": tokens})

        def _send(self, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: object) -> None:
            """Print nothing for each request."""

    return Handler


class Server(ThreadingHTTPServer):
    """A server that says nothing about clients that go away."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that was killed."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--name", default="small")
    chosen = parser.parse_args()
    try:
        batches = Batches(chosen.model)
    except OlmesError as error:
        raise SystemExit(f"serve: {error}") from None
    with Server(("127.0.0.1", chosen.port), handler(batches, chosen.name)) as server:
        print(f"serving {chosen.model} as {chosen.name} at http://127.0.0.1:{server.server_port}/v1", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
