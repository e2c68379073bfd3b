"""`generation_kwargs` of task files, read as lm-eval reads them (`lm_eval.models.utils.normalize_gen_kwargs`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_MAX_TOKENS = 256
"""Token limit of a task that does not set one, as in lm-eval."""
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the token limit; the first one that is set counts."""
DEFAULT = "default"
"""Value of a sampling field that is left to the server."""
OPTIONAL: Mapping[str, tuple[type, object]] = {
    "top_k": (int, 0), "min_p": (float, 0.0), "repetition_penalty": (float, 1.0), "presence_penalty": (float, 0.0),
    "frequency_penalty": (float, 0.0),
}  # fmt: skip
"""Fields that few tasks set, with their types and the values that have no effect."""
SUPPORTED = ("until", *LIMITS, "do_sample", "temperature", "top_p", *OPTIONAL)
SAMPLING_ONLY = ("top_p", "top_k", "min_p")
"""Fields that do not affect greedy answers."""
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "typical_p": (1, 1.0), "num_beams": (1,), "num_return_sequences": (1,), "no_repeat_ngram_size": (0,),
}  # fmt: skip
"""Fields that no backend supports, with the values that have no effect."""
OF_SAMPLES = ("typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")
"""Fields that no backend supports and that do not affect greedy answers."""
OF_BEAMS = ("length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty")
"""Fields that have an effect with `num_beams` alone."""
NO_EFFECT = ("seed", "use_cache", "pad_token_id", "renormalize_logits")
"""Fields that change no answer, or that the run has instead."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling settings of a task."""

    stop: tuple[str, ...]
    max_tokens: int
    temperature: float
    """0 for greedy decoding."""
    top_p: float | None
    more: Mapping[str, Any] = field(default_factory=dict)
    """The fields of `OPTIONAL` that have an effect."""
    unset: tuple[str, ...] = ()
    """Fields that are left to the server; the temperature is then 1."""


def sampling(settings: Mapping[str, Any]) -> Sampling:
    """Read `generation_kwargs`: without `do_sample`, a temperature above 0 samples; `do_sample: false` is greedy."""
    until = settings.get("until") or []
    limits = [settings[name] for name in LIMITS if settings.get(name) is not None]
    unset = settings.get("temperature") == DEFAULT
    temperature = 1.0 if unset else float(settings.get("temperature") or 0.0)
    do_sample = settings.get("do_sample")
    temperature = 0.0 if do_sample is False else temperature
    more = {name: effective(name, settings.get(name)) for name in OPTIONAL}
    return Sampling(
        tuple([until] if isinstance(until, str) else until),
        int(limits[0]) if limits else DEFAULT_MAX_TOKENS,
        temperature,
        settings.get("top_p"),
        {
            name: value
            for name, value in more.items()
            if value is not None and (temperature or name not in SAMPLING_ONLY)
        },
        ("temperature",) if unset and temperature else (),
    )


def effective(name: str, value: Any) -> Any:
    """Return the value of a field of `OPTIONAL` in the field's type; None for one that has no effect."""
    kind, neutral = OPTIONAL[name]
    if value is None or (name == "top_k" and value <= 0):
        return None
    return None if value == neutral else kind(value)


def unsupported(settings: Mapping[str, Any]) -> list[str]:
    """Return the fields that would change answers and that no backend supports."""
    without_effect = {*SUPPORTED, *NO_EFFECT}
    if sampling(settings).temperature == 0:
        without_effect.update(OF_SAMPLES)
    if settings.get("num_beams") in (None, 1):
        without_effect.update(OF_BEAMS)
    return [
        name
        for name, value in settings.items()
        if name not in without_effect and value is not None and value not in NEUTRAL.get(name, ())
    ]
