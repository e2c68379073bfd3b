"""Thoughts with a real engine of vLLM, in a process of its own: closing an engine ends those beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from models_fixture import answers, generation
from thinking_model import make_thinking_model

from olmes_suite.models.factory import make_backend

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm makes an environment that has it")
pytestmark = pytest.mark.vllm


def test_thoughts_are_those_of_hf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    folder = make_thinking_model(tmp_path / "thinks", head_dim=32)
    asked = [
        generation(i, text=None, messages=(("user", f"question {i}"),), max_tokens=limit, prefix=prefix)
        for i, limit, prefix in ((0, 64, ""), (1, 64, ""), (0, 10, ""), (0, 10, "Answer:"))
    ]
    backend = make_backend("vllm", str(folder), model_args={"enforce_eager": True, "gpu_memory_utilization": 0.2})
    try:
        ours = answers(backend, asked)
    finally:
        backend.close()
    assert ours == answers(make_backend("hf", str(folder), device="cpu", dtype="float32"), asked)
    assert [response.unclosed for response in ours[:3]] == [False, False, True]
