"""The openai backend against `vllm serve` on the processor, beside `hf`: `make test-vllm`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from models_fixture import PROMPTS, STOPS, answers, choice, generation, make_tiny_model

from olmes_suite.models.factory import make_backend
from olmes_suite.models.openai.backend import OpenAIBackend
from olmes_suite.records import Request, Response

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm makes an environment that has it")
pytestmark = pytest.mark.vllm

CONTEXT = 512
PATIENCE = 240
"""Seconds for the server to start."""
WORDS = " and the people of the school"
CHOICES = (" A", " in the hall strikes nine", "green\n")


@pytest.fixture(scope="module")
def wide_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vLLM's attention on a processor wants heads of 32 numbers."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), head_dim=32, max_length=CONTEXT)


@pytest.fixture(scope="module")
def hf(wide_heads: Path) -> Any:
    return make_backend("hf", str(wide_heads), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def served(wide_heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAIBackend]:
    """A server of its own on a free port. Ended with all its processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    options = {
        "served-model-name": "tiny", "dtype": "float32", "max-model-len": CONTEXT, "generation-config": "vllm",
        "gpu-memory-utilization": 0.2, "host": "127.0.0.1", "port": port,
    }  # fmt: skip
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(wide_heads), "--enforce-eager"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield OpenAIBackend("tiny", f"http://127.0.0.1:{port}/v1", tries=2)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            if requests.get(address, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    pytest.fail(f"vllm serve did not start:\n{log.read_text()[-3000:]}")


def told(response: Response) -> tuple[Any, ...]:
    """What both must say alike. The server leaves out a last character of which bytes are missing."""
    return (
        (response.text or "").rstrip("\ufffd"),
        response.finish_reason,
        response.truncated,
        response.prompt_tokens,
        response.completion_tokens,
    )


def equal(hf: Any, served: OpenAIBackend, asked: list[Request]) -> list[Response]:
    found = answers(served, asked)
    assert [told(response) for response in found] == [told(response) for response in answers(hf, asked)]
    return found


def chat(request: Request, **changes: Any) -> Request:
    return replace(request, text=None, messages=(("user", request.text or ""),), **changes)


def test_greedy_texts(hf: Any, served: OpenAIBackend) -> None:
    plain = [generation(i) for i in range(8)]
    stops = [generation(i, stop=STOPS[:3], max_tokens=40) for i in range(4)]
    found = equal(hf, served, [*plain, *stops, *(chat(plain[i], prefix=" So" if i % 2 else "") for i in range(4))])
    assert {response.finish_reason for response in found} == {"stop", "length"}


def test_prompts_that_do_not_fit(hf: Any, served: OpenAIBackend) -> None:
    """The answer gives way; then the prompt is cut, whose length the server never told."""
    asked = [
        generation(i, "The old clock" + WORDS * words, max_tokens=limit)
        for i, (words, limit) in enumerate([(40, 300), (60, 300), (100, 24), (2000, 24), (5, 600), (100, 600)])
    ]
    edge = [generation(10 + i, "The old clock strikes" + " a" * words) for i, words in enumerate(range(499, 513, 2))]
    found = equal(hf, served, asked + edge + [chat(asked[1]), chat(asked[2])])
    assert [response.truncated for response in found[:6]] == [False, True, True, True, False, True]
    assert {response.truncated for response in found[6:13]} == {False, True}


def test_samples_of_a_prompt_that_does_not_fit(served: OpenAIBackend) -> None:
    found = answers(served, [generation(0, "The old clock" + WORDS * 40, max_tokens=300, temperature=1.0)], [[1, 2]])
    assert len({response.text for response in found}) == 2
    assert served.settings()["several_samples_at_once"] is True


def test_log_likelihoods(hf: Any, served: OpenAIBackend) -> None:
    plain = [choice(i, j, PROMPTS[i], text) for i in range(3) for j, text in enumerate(CHOICES)]
    asked = plain + [chat(request, prefix="Answer:") for request in plain[:3]]
    for mine, other in zip(answers(served, asked), answers(hf, asked), strict=True):
        assert mine.loglikelihood == pytest.approx(other.loglikelihood, abs=1e-4)
        assert mine.is_greedy == other.is_greedy and not mine.truncated


def test_a_context_to_score_that_does_not_fit(wide_heads: Path, served: OpenAIBackend) -> None:
    """The server keeps two tokens less of it than `hf` with the same context."""
    asked = [choice(0, 0, "The old clock" + WORDS * 200, " in the hall")]
    shorter = make_backend("hf", str(wide_heads), device="cpu", dtype="float32", max_length=CONTEXT - 2)
    (mine,), (other,) = answers(served, asked), answers(shorter, asked)
    assert mine.truncated and other.truncated
    assert mine.loglikelihood == pytest.approx(other.loglikelihood, abs=1e-4)
