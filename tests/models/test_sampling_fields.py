"""Sampling fields and a checkpoint's generation_config in the hf backend, against transformers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from models_fixture import PROMPTS, answers, generation

from olmes_suite.models.factory import make_backend

FIELDS: list[dict[str, Any]] = [
    {},
    {"top_k": 3},
    {"top_k": 10_000},
    {"top_p": 0.7},
    {"min_p": 0.1},
    {"top_k": 20, "top_p": 0.8},
    {"top_k": 20, "top_p": 0.95, "min_p": 0.05},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_a_draw_follows_the_distribution_of_transformers(fields: dict[str, Any], temperature: float) -> None:
    import torch
    from transformers import GenerationConfig, LogitsProcessorList
    from transformers.generation import logits_process as theirs

    from olmes_suite.models.hf.decoding import Choosing, RowSampler

    logits = 3 * torch.randn(8, 200, generator=torch.Generator().manual_seed(0))
    config = GenerationConfig(temperature=temperature, **fields)
    warpers = [theirs.TemperatureLogitsWarper(config.temperature)]
    warpers += [theirs.TopKLogitsWarper(config.top_k)] if config.top_k else []
    warpers += [theirs.TopPLogitsWarper(config.top_p)] if config.top_p else []
    warpers += [theirs.MinPLogitsWarper(config.min_p)] if config.min_p else []
    expected = LogitsProcessorList(warpers)(torch.zeros(8, 1, dtype=torch.long), logits.clone())
    others = Choosing(temperature=0.0)
    mixed = [Choosing(temperature, **fields), others] * 8
    sampler = RowSampler(mixed, list(range(16)), torch.device("cpu"))
    assert torch.allclose(sampler.filtered(logits), expected)
    both = logits.repeat_interleave(2, dim=0)
    assert torch.equal(sampler(torch.zeros(16, 1), both)[1::2], both[1::2])  # greedy rows stay


def test_penalties_are_those_of_transformers_and_of_openai() -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    from olmes_suite.models.hf.decoding import Choosing, RowPenalties

    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    row = RowPenalties(Choosing(repetition=1.3), [3, 4, 4])
    for token in (7, 7, 9):
        row.add(token)
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[3, 4, 4, 7, 7, 9]]), logits[None].clone())[0]
    assert torch.equal(row.apply(logits), expected)
    row = RowPenalties(Choosing(presence=0.5, frequency=0.25), [3, 4, 4])
    for count, token in enumerate((7, 7, 9), 1):
        row.add(token)
        expected = logits.clone()
        expected[7] -= 0.5 + 0.25 * min(count, 2)
        expected[9] -= 0.75 if count == 3 else 0.0
        assert torch.allclose(row.apply(logits), expected)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Any:
    """The model of the tiny checkpoint in transformers, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(tiny_checkpoint).eval(), AutoTokenizer.from_pretrained(tiny_checkpoint)


def by_transformers(model: Any, prompt: str, **settings: Any) -> list[int]:
    """Greedy tokens of `generate` for one prompt."""
    import torch

    network, tokenizer = model
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        found = network.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
            pad_token_id=0, **settings,
        )  # fmt: skip
    return [int(token) for token in found[0, ids.shape[1] :]]


@pytest.mark.long
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_greedy_answers_with_a_repetition_penalty_are_those_of_generate(
    checkpoint_copy: Path, model: Any, reuse: bool, own: bool
) -> None:
    """`own`: the penalty is the request's, otherwise the checkpoint's."""
    if not own:
        set_generation_config(checkpoint_copy, repetition_penalty=1.4)
    backend: Any = make_backend("hf", str(checkpoint_copy), device="cpu", reuse=reuse, batch_size=4)
    fields = {"repetition_penalty": 1.4} if own else {}
    found = answers(backend, [generation(i, **fields) for i in range(8)])
    expected = [by_transformers(model, prompt, repetition_penalty=1.4) for prompt in PROMPTS[:8]]
    ends = set(backend.ends.ids)
    texts = [model[1].decode([t for t in tokens if t not in ends], skip_special_tokens=True) for tokens in expected]
    assert [r.raw or r.text for r in found] == texts
    plain = answers(backend, [generation(i, repetition_penalty=1.0) for i in range(8)])
    assert [r.text for r in plain] != [r.text for r in found]  # the request's penalty wins over the checkpoint's


@pytest.mark.long
@pytest.mark.parametrize("reuse", [True, False])
def test_samples_do_not_depend_on_the_batch(tiny_checkpoint: Path, reuse: bool) -> None:
    fields = [
        {"temperature": 0.8, "top_k": 5},
        {"temperature": 0.9, "min_p": 0.1, "presence_penalty": 1.0},
        {"frequency_penalty": 1.5},
        {},
    ]
    requests = [generation(i, **fields[i % 4]) for i in range(12)]
    seeds = [[100 + i] for i in range(12)]
    one, many = (
        make_backend("hf", str(tiny_checkpoint), device="cpu", reuse=reuse, batch_size=size) for size in (1, 12)
    )
    assert [r.text for r in answers(one, requests, seeds)] == [r.text for r in answers(many, requests, seeds)]


VALUES: dict[str, Any] = {
    "eos_token_id": [2, 5], "stop_strings": ["ea"], "repetition_penalty": 1.2, "no_repeat_ngram_size": 2,
    "min_length": 5, "min_new_tokens": 5, "bad_words_ids": [[7]], "suppress_tokens": [7],
    "begin_suppress_tokens": [7], "sequence_bias": [[[7], -5.0]], "forced_bos_token_id": 7, "forced_eos_token_id": 2,
    "exponential_decay_length_penalty": [2, 1.1], "guidance_scale": 1.5, "encoder_repetition_penalty": 1.2,
    "encoder_no_repeat_ngram_size": 2, "do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1,
    "top_h": 0.4, "typical_p": 0.9, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "max_new_tokens": 3, "max_length": 30,
    "max_time": 0.001, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "penalty_alpha": 0.6,
    "dola_layers": "high", "constraints": [1], "force_words_ids": [[7]], "length_penalty": 2.0,
    "early_stopping": True, "num_return_sequences": 1, "token_healing": True, "remove_invalid_values": True,
    "decoder_start_token_id": 3, "pad_token_id": 0, "bos_token_id": 1, "use_cache": False, "renormalize_logits": True,
    "watermarking_config": {"greenlist_ratio": 0.25, "bias": 2.0}, "cache_implementation": "dynamic",
    "assistant_ensemble_weight": 0.5, "compile_config": None,
}  # fmt: skip
"""A value of each field that could change answers."""


def fields() -> list[str]:
    """Return all fields of transformers' GenerationConfig."""
    from transformers import GenerationConfig

    return [name for name in vars(GenerationConfig()) if name[0] != "_" and name != "transformers_version"]


def set_generation_config(folder: Path, **values: Any) -> None:
    """Add fields to the generation_config of a checkpoint."""
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_every_field_stands_in_one_table() -> None:
    from olmes_suite.models.local import generation_config as own

    tables = [own.ENDS, (own.PENALTY,), own.PROCESSED, own.SAMPLING, own.IGNORED, own.NO_EFFECT]
    assert [name for name in fields() if sum(name in table for table in tables) != 1] == []


@pytest.mark.parametrize("name", fields())
@pytest.mark.long
def test_every_field_is_honoured_or_said(checkpoint_copy: Path, hf_answers: list[Any], name: str) -> None:
    from olmes_suite.models.local import generation_config as own

    set_generation_config(checkpoint_copy, repetition_penalty=1.2)
    set_generation_config(checkpoint_copy, **{name: VALUES.get(name, 1)})
    try:
        backend: Any = make_backend("hf", str(checkpoint_copy), device="cpu")
    except Exception as error:
        pytest.fail(f"{name}: {error!r}")
    found = answers(backend, [generation(i) for i in range(4)])
    notes = "\n".join(backend.notes())
    if name in own.IGNORED and name != "num_return_sequences":  # transformers refuses several without beams
        assert "which is ignored" in notes and name in notes
    if name in own.SAMPLING:
        assert "recommends" in notes and name in notes
    if name in (*own.IGNORED, *own.SAMPLING, *own.NO_EFFECT):
        assert [r.text for r in found] == hf_answers
    else:
        assert "which is ignored" not in notes
    if name == "stop_strings":
        assert all("ea" not in (r.text or "") for r in found) and "'ea'" in notes


@pytest.fixture(scope="module")
def hf_answers(tiny_checkpoint: Path) -> list[Any]:
    """The answers of the tiny checkpoint with the repetition penalty of the test above."""
    backend: Any = make_backend("hf", str(tiny_checkpoint), device="cpu")
    return [r.text for r in answers(backend, [generation(i, repetition_penalty=1.2) for i in range(4)])]


def test_a_field_of_a_later_version_is_said(checkpoint_copy: Path) -> None:
    set_generation_config(checkpoint_copy, xtc_probability=0.5)
    backend: Any = make_backend("hf", str(checkpoint_copy), device="cpu")
    assert any("xtc_probability, which is ignored" in line for line in backend.notes())


def test_vllm_gets_every_field(tiny_checkpoint: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    from olmes_suite.models.local.encoding import Encoder
    from olmes_suite.models.local.generation_config import Own
    from olmes_suite.models.local.jobs import Ends, generations
    from olmes_suite.models.vllm.requests import TextAsk

    encoder = Encoder(AutoTokenizer.from_pretrained(tiny_checkpoint))
    own = Own.of(GenerationConfig(repetition_penalty=1.2, min_new_tokens=3, no_repeat_ngram_size=2))
    asked = {"top_k": 5, "min_p": 0.1, "presence_penalty": 0.5, "frequency_penalty": 0.25}
    requests = [
        generation(0, temperature=0.7, top_p=0.9, **asked),
        generation(1, repetition_penalty=1.4),
        generation(2),
    ]
    jobs = generations(encoder, requests, [(i, 0, 7) for i in range(3)], 400)
    made = {job.position: TextAsk(job, Ends.of(encoder, None), encoder.tokenizer, own).settings() for job in jobs}
    assert made[0].items() >= {**asked, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2}.items()
    assert [made[i]["repetition_penalty"] for i in range(3)] == [1.2, 1.4, 1.2]
    assert made[2]["min_tokens"] == 3 and "top_k" not in made[2]
    notes = own.notes("m", frozenset({"min_new_tokens"}))
    assert notes == ["m: its generation_config sets no_repeat_ngram_size, which is ignored"]
