"""The hf backend on a CUDA device: `make gpu-check`."""

from __future__ import annotations

from pathlib import Path

import pytest
from models_fixture import PROMPTS, STOPS, answers, choice, generation

from olmes_suite.models.factory import make_backend

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cuda")]


@pytest.fixture(scope="module")
def cuda() -> None:
    """Skip without a GPU."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def test_float32_answers_equal_the_processors(tiny_checkpoint: Path) -> None:
    here, there = (
        make_backend("hf", str(tiny_checkpoint), device=device, dtype="float32") for device in ("cpu", "cuda")
    )
    asked = [generation(i, stop=tuple(STOPS)) for i in range(len(PROMPTS))]
    assert [r.text for r in answers(there, asked)] == [r.text for r in answers(here, asked)]
    ranked = [choice(i, 0, prompt, " the") for i, prompt in enumerate(PROMPTS)]
    for mine, other in zip(answers(there, ranked), answers(here, ranked), strict=True):
        assert mine.loglikelihood == pytest.approx(other.loglikelihood, abs=1e-3)


def test_bfloat16_is_the_default_and_samples_repeat(tiny_checkpoint: Path) -> None:
    backend = make_backend("hf", str(tiny_checkpoint))
    assert backend.settings()["dtype"] == "bfloat16"
    asked = [generation(i, stop=tuple(STOPS), temperature=0.8, top_p=0.95) for i in range(len(PROMPTS))]
    assert [r.text for r in answers(backend, asked)] == [r.text for r in answers(backend, asked)]
