"""A model whose output is NaN or infinite: an error of its own request, never a score, and no harm to others."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from models_fixture import PROMPTS, answers, choice, generation, one_line

from olmes_suite.errors import RequestFailed
from olmes_suite.models.hf.backend import HFBackend

BAD = "Z"
"""What the broken model has no numbers for."""


def broken(folder: Path, value: float = float("nan"), **options: Any) -> Any:
    """An engine whose embedding of BAD is `value`."""
    import torch

    torch.set_num_threads(1)
    backend: Any = HFBackend(folder, device="cpu", **options)
    (token,) = backend.tokenizer.encode(BAD, add_special_tokens=False)
    with torch.no_grad():
        backend.model.get_input_embeddings().weight[token] = value
    return backend


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("reuse", [True, False])
def test_it_is_an_error_of_the_request(tiny_checkpoint: Path, reuse: bool, value: float) -> None:
    backend = broken(tiny_checkpoint, value, reuse=reuse)
    asked = [
        generation(7, f"{BAD} and so on"),
        generation(7, f"{BAD} and so on", temperature=0.8),
        generation(7, f"{BAD} and so on", temperature=0.8, top_p=0.9),
        choice(7, 0, f"{BAD} and so", " on"),
        choice(7, 0, f"{BAD} and so", " on and on"),
    ]
    for request in asked:
        one_line(partial(answers, backend, [request]), "tulu3_test.*document 7 is not a number", RequestFailed)
        healthy = [generation(1), choice(2, 0, "So", " it"), choice(2, 1, "So", " it is")]
        assert len(answers(backend, healthy)) == 3
    one_line(lambda: list(backend.alternatives([asked[0]], 3)), "not a number", RequestFailed)


def test_an_infinite_logit_is_no_certainty(tiny_checkpoint: Path) -> None:
    """Also minus infinity, which float16 makes of a large negative one: JSON has no such number."""
    import torch

    for value in (float("inf"), -float("inf")):
        for reuse in (True, False):
            backend: Any = HFBackend(tiny_checkpoint, device="cpu", reuse=reuse)
            (token,) = backend.tokenizer.encode(BAD, add_special_tokens=False)
            backend.model.lm_head.register_forward_hook(
                lambda module, inputs, out, token=token, value=value: out.index_fill(-1, torch.tensor([token]), value)
            )
            with pytest.raises(RequestFailed, match="not a number"):
                answers(backend, [choice(0, 0, "So", BAD)])
            if value < 0:  # a token that is never said harms no text
                assert answers(backend, [generation(0)])[0].text


def test_it_does_no_harm_to_the_rows_after_it(tiny_checkpoint: Path) -> None:
    """The place of a row that broke is taken by another, shorter one."""
    from olmes_suite.models.hf.generation import Decoder, Task
    from olmes_suite.models.local.jobs import Generation

    backend = broken(tiny_checkpoint)
    prompts = ["the children run down " * 7, f"{BAD} the old clock in the hall strikes nine and " * 6, *PROMPTS[:5]]
    jobs = []
    for i, prompt in enumerate(prompts):
        request = generation(i, prompt, max_tokens=24 if i else 200)
        ids = tuple(backend.tokenizer.encode(prompt))
        jobs.append(Generation(i, 0, request, 0, ids, request.max_tokens or 0, False))

    def texts(some: list[Generation]) -> dict[int, Any]:
        decoder = Decoder(backend.shared, [Task(job, None) for job in some], backend._stop, 2, 4096)
        found: dict[int, Any] = {}
        while decoder.left:
            decoder.advance()
            found |= {job.position: (stop.reason, stop.tokens) for job, stop in decoder.take_finished()}
        return found

    together = texts(jobs)
    assert together[1] == ("broken", [])
    assert together == {number: found for job in jobs for number, found in texts([job]).items()}
