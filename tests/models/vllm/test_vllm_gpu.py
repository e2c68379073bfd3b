"""The vllm backend on a CUDA device, with vLLM's own build: `make gpu-check`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from models_fixture import PROMPTS, STOPS, answers, choice, generation, make_tiny_model

from olmes_suite.models.factory import make_backend

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def wide_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'olmes-suite[vllm]'")
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), head_dim=64)


@pytest.fixture(scope="module")
def vllm(wide_heads: Path) -> Iterator[Any]:
    backend = make_backend(
        "vllm",
        str(wide_heads),
        dtype="float32",
        model_args={"gpu_memory_utilization": 0.3, "enforce_eager": True},
    )
    yield backend
    backend.close()


def test_float32_answers_equal_hf(wide_heads: Path, vllm: Any) -> None:
    hf = make_backend("hf", str(wide_heads), device="cuda", dtype="float32")
    asked = [generation(i, stop=STOPS) for i in range(len(PROMPTS))]
    assert [r.text for r in answers(vllm, asked)] == [r.text for r in answers(hf, asked)]
    ranked = [
        choice(i, n, prompt, text) for i, prompt in enumerate(PROMPTS) for n, text in enumerate((" A", " in the"))
    ]
    for mine, other in zip(answers(vllm, ranked), answers(hf, ranked), strict=True):
        assert mine.loglikelihood == pytest.approx(other.loglikelihood, abs=1e-3)


def test_tokens_a_second_are_printed(vllm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [generation(i % 16, f"{PROMPTS[i % 16]} {i}", max_tokens=128) for i in range(512)]
    start = time.perf_counter()
    tokens = sum(r.completion_tokens for r in answers(vllm, asked))
    with capsys.disabled():
        print(f"\n{tokens / (time.perf_counter() - start):.0f} tokens/s in 512 requests")
    assert tokens > 512


def test_it_is_what_auto_takes(wide_heads: Path) -> None:
    backend = make_backend("auto", str(wide_heads))
    assert backend.name == "vllm"
    assert backend.settings()["dtype"] == "bfloat16"
