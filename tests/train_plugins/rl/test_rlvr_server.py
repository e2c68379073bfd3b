"""RLVR on a vLLM server: a stand-in that answers, refuses, or is gone. No weights are sent: that needs a GPU."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rlvr_fixture import make_rlvr, prompt_rows
from train_fixture import need_trl

from train_plugins.checkpoints import lineage

need_trl()
pytestmark = pytest.mark.long

ANSWER = [7, 8, 9, 1]
"""Of token ids; the last ends the text."""


class Server(ThreadingHTTPServer):
    """What TRL's client asks a vLLM server for. `most`: rollouts that it answers; then it is gone, or says `then`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.most, self.then, self.rollouts = 1000, 0, 0
        self.known: dict[str, Any] = {
            "/health": {},
            "/v1/models": {"data": [{"id": "tiny"}]},
            "/server_info": {"vllm_config": {"model_config": {"logprobs_mode": "processed_logprobs"}}},
            "/reset_prefix_cache": {"success": True},
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers from `Server`."""

    server: Server

    def do_GET(self) -> None:
        found = self.server.known.get(self.path.partition("?")[0])
        self.say(404 if found is None else 200, found)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if self.path != "/v1/completions":
            return self.do_GET()
        self.server.rollouts += 1
        if self.server.rollouts > self.server.most:
            if self.server.then:
                return self.say(self.server.then, {"error": "no more"})
            self.close_connection = True
            return self.connection.close()
        told = {"tokens": [f"token_id:{n}" for n in ANSWER], "token_logprobs": [-1.0] * 4, "top_logprobs": [{}] * 4}
        choices = [
            {"prompt_token_ids": prompt, "token_ids": ANSWER, "logprobs": told}
            for prompt in asked["prompt"]
            for _ in range(asked["n"])
        ]
        self.say(200, {"choices": choices})

    def say(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and this process as one that has vLLM and a GPU; weights are not sent."""
    import trl.generation.vllm_client as client
    import trl.generation.vllm_generation as generation

    monkeypatch.setattr("train_plugins.stages.rlvr_checks.find_spec", lambda name: name)
    monkeypatch.setattr("train_plugins.stages.rlvr_checks.has_gpu", lambda: True)
    for module in (client, generation):
        monkeypatch.setattr(module, "is_vllm_available", lambda *_: True)
    monkeypatch.setattr(client, "Retry", lambda retry=client.Retry, **more: retry(**more | {"backoff_factor": 0}))
    monkeypatch.setattr(client.VLLMClient, "init_communicator", lambda self, device: self.get_server_info())
    monkeypatch.setattr(client.VLLMClient, "update_named_params", lambda self, metadata, weights: None)
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def train(
    rlvr_folder: Path, server: Server, cli: Callable[..., tuple[int, str, str]]
) -> Callable[..., tuple[int, str]]:
    """Trains through the command line; the exit status, and the error's line."""

    def run(*more: str, url: str = server.url, steps: int = 4) -> tuple[int, str]:
        make_rlvr(rlvr_folder, "grpo", prompt_rows(8), rlvr={"rollouts": "vllm_server", "server": url},
                  trainer={"max_steps": steps, "save_steps": 1, "vllm_server_timeout": 1})  # fmt: skip
        status, _, err = cli("train", "rlvr", rlvr_folder / "rlvr.yaml", *more)
        assert "Traceback" not in err, err
        lines = [line for line in err.splitlines() if line.startswith("olmes: ")]
        assert len(lines) == (status != 0), err
        return status, "".join(lines)

    return run


def nothing_in(folder: Path) -> bool:
    return not any(folder.glob("out/*"))


def test_a_server_that_is_not_there(rlvr_folder: Path, train: Callable[..., tuple[int, str]]) -> None:
    status, line = train(url="http://127.0.0.1:9")
    assert status == 2
    assert "the vLLM server http://127.0.0.1:9 does not answer" in line
    assert nothing_in(rlvr_folder)


@pytest.mark.parametrize(
    ("missing", "words"),
    [("/health", "does not answer (HTTP Error 404"), ("/v1/models", "cannot be used: Request failed: 404"),
     ("/server_info", "does not expose its development endpoints")],
)  # fmt: skip
def test_a_server_that_is_another(
    rlvr_folder: Path, server: Server, train: Callable[..., tuple[int, str]], missing: str, words: str
) -> None:
    del server.known[missing]
    status, line = train()
    assert status == 2
    assert words in line
    assert nothing_in(rlvr_folder)


@pytest.mark.parametrize("then", [0, 400, 503])
def test_a_server_that_is_gone_in_the_middle(
    rlvr_folder: Path, server: Server, train: Callable[..., tuple[int, str]], then: int
) -> None:
    server.most, server.then = 2, then
    status, line = train()
    assert status == 1
    assert f"the vLLM server {server.url} does not answer" in line
    assert "continue with --resume" in line
    out = rlvr_folder / "out"
    assert [path.name for path in lineage.whole_checkpoints(out)] == ["checkpoint-1", "checkpoint-2"]
    assert not (out / lineage.FILE).exists()
    server.most = 1000
    assert train("--resume") == (0, "")
    assert lineage.read(out).step == 4
