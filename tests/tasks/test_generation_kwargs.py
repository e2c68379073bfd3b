"""`generation_kwargs` mean what they mean to lm-eval."""

from __future__ import annotations

from typing import Any

import pytest

from olmes_suite.errors import UsageError
from olmes_suite.tasks.generation_kwargs import sampling, unsupported
from olmes_suite.tasks.overrides import check_values

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


def test_fields_without_effect_are_no_obstacle() -> None:
    assert unsupported({"use_cache": True, "pad_token_id": 0, "renormalize_logits": True}) == []
    assert unsupported({"length_penalty": 2.0, "early_stopping": True}) == []  # of beams, and there are none
    assert unsupported({"epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "top_h": 0.3}) == []  # greedy
    assert unsupported({"epsilon_cutoff": 0.1, "temperature": 0.7}) == ["epsilon_cutoff"]
    assert unsupported({"num_beams": 3, "length_penalty": 2.0}) == ["num_beams", "length_penalty"]


WRONG: list[Any] = [
    ["until"], "until", {"max_gen_toks": 0}, {"max_new_tokens": -3}, {"max_tokens": "many"}, {"max_tokens": 5.5},
    {"max_tokens": True}, {"temperature": "hot"}, {"temperature": -1}, {"temperature": float("inf")},
    {"temperature": True}, {"top_p": 2}, {"top_p": 0}, {"top_p": "x"}, {"top_p": "0.9"}, {"until": 5},
    {"until": ["a", 5]}, {"until": {"a": 1}}, {"do_sample": "yes"}, {"repetition_penalty": 0},
    {"repetition_penalty": "x"}, {"top_k": 2.5}, {"top_k": -5}, {"min_p": 3}, {"presence_penalty": 9},
    {"frequency_penalty": [1]},
]  # fmt: skip


@pytest.mark.parametrize("settings", WRONG, ids=str)
def test_wrong_values_are_one_line(settings: Any) -> None:
    with pytest.raises(UsageError, match=r"^my\.yaml: generation_kwargs") as caught:
        check_values(settings, "my.yaml: generation_kwargs")
    assert "\n" not in str(caught.value)


def test_values_that_lm_eval_takes_are_taken() -> None:
    for settings in (
        None, {}, {"until": None}, {"until": ["", "a"]}, {"until": "a"}, {"max_gen_toks": "8"}, {"max_gen_toks": 8.0},
        {"temperature": "0.7", "top_p": None, "do_sample": None}, {"temperature": "default", "top_k": -1},
        {"seed": "x", "no_repeat_ngram_size": 0},
    ):  # fmt: skip
        check_values(settings, "my.yaml: generation_kwargs")
