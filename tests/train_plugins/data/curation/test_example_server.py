"""The server of examples/curation answers in batches and leaves out requests of clients that have gone."""

from __future__ import annotations

import importlib.util
import json
import queue
import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from helpers import ROOT

from olmes_suite.records import Request, Response


class Slow:
    """A model that answers once it is let go."""

    def __init__(self) -> None:
        self.free, self.busy = threading.Event(), threading.Event()
        self.asked: list[str] = []
        self.made: list[str] = []

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, Response]]:
        texts = [(request.messages or ())[-1][1] for request in requests]
        self.asked += texts
        self.busy.set()
        self.free.wait(20)
        for number, text in enumerate(texts):
            self.made.append(text)
            yield number, 0, Response(text=f"so {text}", finish_reason="stop")


@pytest.fixture
def example() -> Any:
    spec = importlib.util.spec_from_file_location("curation_serve", ROOT / "examples/curation/serve.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raw(text: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], "seed": 1}).encode()


def test_a_client_that_has_gone_is_not_answered(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr(example, "make_backend", lambda *args: slow)
    answers: list[str] = []
    with example.Server(("127.0.0.1", 0), example.handler(example.Batches("m"), "small")) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"

        def ask(text: str) -> None:
            with urllib.request.urlopen(urllib.request.Request(url, raw(text)), timeout=30) as reply:
                answers.append(json.load(reply)["choices"][0]["message"]["content"])

        first = threading.Thread(target=ask, args=("one",))
        first.start()
        assert slow.busy.wait(20)
        with socket.create_connection(("127.0.0.1", server.server_port)) as leaving:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw('two'))}\r\n\r\n"
            leaving.sendall(head.encode() + raw("two"))
        slow.free.set()
        first.join(20)
        ask("three")
        server.shutdown()
    assert answers == ["so one", "so three"] and slow.asked == ["one", "three"]


def test_a_batch_ends_when_nobody_waits_for_the_rest(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    slow.free.set()
    monkeypatch.setattr(example, "make_backend", lambda *args: slow)
    batches = example.Batches("m")
    asked: list[Request] = [Request("serve", n, 0, "generate", (("user", f"{n}"),)) for n in range(4)]
    answers: list[Any] = [queue.Queue() for _ in asked]
    leaves = [False, False, False, False]

    def put(response: Response | None) -> None:
        leaves[2:] = [True, True]  # the last two leave when the first is answered
        queue.Queue.put(answers[0], response)

    answers[0].put = put
    batches._run([(asked[n], 0, lambda n=n: n == 1 or leaves[n], answers[n]) for n in range(4)])
    assert slow.asked == ["0", "2", "3"] and slow.made == ["0"]
    got = [one.get(timeout=5) for one in answers]
    assert got[0].text == "so 0" and got[1:] == [None, None, None]
