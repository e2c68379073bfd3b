"""`generation_kwargs` of task files, read as lm-eval reads them (`lm_eval.models.utils.normalize_gen_kwargs`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_MAX_TOKENS = 256
"""Token limit of a task that does not set one, as in lm-eval."""
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the token limit; the first one that is set counts."""
SUPPORTED = ("until", *LIMITS, "do_sample", "temperature", "top_p")
SAMPLING_ONLY = ("top_k", "min_p", "typical_p", "seed")
"""Fields that do not affect greedy answers."""
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "top_k": (0, -1), "min_p": (0, 0.0), "typical_p": (1, 1.0), "repetition_penalty": (1, 1.0),
    "presence_penalty": (0, 0.0), "frequency_penalty": (0, 0.0), "num_beams": (1,), "num_return_sequences": (1,),
    "length_penalty": (1, 1.0), "no_repeat_ngram_size": (0,), "early_stopping": (False,),
}  # fmt: skip
"""Fields that no backend supports, with the values that have no effect."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling settings of a task."""

    stop: tuple[str, ...]
    max_tokens: int
    temperature: float
    """0 for greedy decoding."""
    top_p: float | None


def sampling(settings: Mapping[str, Any]) -> Sampling:
    """Read `generation_kwargs`: without `do_sample`, a temperature above 0 samples; `do_sample: false` is greedy."""
    until = settings.get("until") or []
    limits = [settings[name] for name in LIMITS if settings.get(name) is not None]
    temperature = float(settings.get("temperature") or 0.0)
    do_sample = settings.get("do_sample")
    return Sampling(
        tuple([until] if isinstance(until, str) else until),
        int(limits[0]) if limits else DEFAULT_MAX_TOKENS,
        0.0 if do_sample is False else temperature,
        settings.get("top_p"),
    )


def unsupported(settings: Mapping[str, Any]) -> list[str]:
    """Return the fields that would change answers and that no backend supports."""
    greedy = sampling(settings).temperature == 0
    return [
        name
        for name, value in settings.items()
        if name not in SUPPORTED
        and value is not None
        and value not in NEUTRAL.get(name, ())
        and not (greedy and name in SAMPLING_ONLY)
    ]
