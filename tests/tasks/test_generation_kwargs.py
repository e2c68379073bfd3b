"""`generation_kwargs` mean what they mean to lm-eval."""

from __future__ import annotations

from typing import Any

import pytest

from olmes_suite.tasks.generation_kwargs import sampling, unsupported

CASES: list[dict[str, Any]] = [
    {},
    {"until": ["a", "b"], "max_gen_toks": 7, "do_sample": False, "temperature": 0.0},
    {"until": "a", "max_new_tokens": 5},
    {"max_tokens": 6},
    {"max_completion_tokens": 8, "max_new_tokens": 9},
    {"temperature": 1.5},
    {"temperature": 1.5, "do_sample": False},
    {"temperature": 0.7, "do_sample": True, "top_p": 0.9},
    {"do_sample": True},
]


OPTIONAL = {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": -0.5}


def test_every_sampling_field_is_read() -> None:
    assert sampling({"temperature": 0.7, **OPTIONAL}).more == OPTIONAL
    penalties = {name: value for name, value in OPTIONAL.items() if name.endswith("penalty")}
    assert sampling(OPTIONAL).more == penalties  # greedy: the others have no effect
    neutral = {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0.0, "frequency_penalty": None}
    assert sampling({"temperature": 0.7, **neutral}).more == {}


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_the_settings_are_lm_evals(settings: dict[str, Any]) -> None:
    from lm_eval.models.utils import normalize_gen_kwargs

    ours, theirs = sampling(settings), normalize_gen_kwargs(settings)
    assert list(ours.stop) == theirs["until"] and ours.max_tokens == theirs["max_gen_toks"]
    assert ours.temperature == (theirs.get("temperature") or 0.0)
    assert (ours.temperature > 0) == (theirs["do_sample"] and (theirs.get("temperature") or 0.0) > 0)


def test_fields_that_would_be_ignored_are_named() -> None:
    assert unsupported({"until": ["a"], "temperature": 0.7, "top_p": 0.9}) == []
    assert unsupported({"temperature": 0.7, "top_k": 20, "min_p": 0.1, "seed": 3}) == []
    assert unsupported({"temperature": 0.7, "typical_p": 0.9}) == ["typical_p"]
    assert unsupported({"typical_p": 0.9, "do_sample": False}) == []  # greedy: without effect
    assert unsupported({"repetition_penalty": 3.0, "num_beams": 4}) == ["num_beams"]
    assert unsupported({"repetition_penalty": 1.0, "num_beams": 1, "top_k": None}) == []
