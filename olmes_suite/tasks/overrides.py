"""Sampling settings of a user (`--gen-kwargs`, profiles): checked, and put over those of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from olmes_suite.errors import UsageError, nearest
from olmes_suite.records import CONTEXT
from olmes_suite.tasks.generation_kwargs import DEFAULT, LIMITS, OPTIONAL, SAMPLING_ONLY, effective, sampling

CONTEXT_NAME = "context"
"""The value of `max_tokens` that stands for all that the context leaves after the prompt."""
FIELDS = ("temperature", "top_p", *OPTIONAL, "max_tokens", "stop", "do_sample")
"""The names of the settings."""
SYNONYMS: Mapping[str, str] = dict.fromkeys(LIMITS, "max_tokens") | {"until": "stop", "stop_sequences": "stop"}
"""Other names, which lm-eval and the OLMES reference use."""
ELSEWHERE = {
    "seed": "use --seed", "n": "use --samples", "num_return_sequences": "use --samples", "repeats": "use --samples",
    "enable_thinking": "use --chat-template-args", "reasoning_effort": "use --chat-template-args",
    "system": "use --system", "max_length": "use --max-length for the context, max_tokens for the answer",
}  # fmt: skip
"""Names of settings that other options set."""
BOUNDS: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, math.inf), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0), "repetition_penalty": (0.0, math.inf),
    "presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0),
}  # fmt: skip
ABOVE_ZERO = ("top_p", "repetition_penalty")


def checked(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings under their names in `FIELDS`. `where` begins an error: an option or a file.

    Raises UsageError for unknown names, values out of range and settings that contradict each other.
    """
    settings: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name, value in given.items():
        field = SYNONYMS.get(name, name)
        if field not in FIELDS:
            raise UsageError(f"{where}: {_unknown(name)}")
        if field in settings:
            raise UsageError(f"{where}: {written[field]} and {name} are the same setting; give one of them")
        settings[field], written[field] = _value(field, value, f"{where}: {name}"), name
    temperature, do_sample = settings.get("temperature"), settings.get("do_sample")
    if do_sample is False and temperature not in (None, 0.0):
        raise UsageError(f"{where}: do_sample=false contradicts temperature={temperature}; leave one of them out")
    if do_sample is True and temperature == 0:
        raise UsageError(f"{where}: do_sample=true contradicts temperature=0; give a temperature above 0")
    return settings


def _unknown(name: str) -> str:
    if name in ELSEWHERE:
        return f"{name} is not a sampling setting; {ELSEWHERE[name]}"
    return f"unknown setting {name!r}{nearest(name, [*FIELDS, *SYNONYMS])}; known: {', '.join(FIELDS)}"


def _value(field: str, value: Any, where: str) -> Any:
    """Check the value of a setting and convert it to the setting's type."""
    if field == "stop":
        return _stop(value, where)
    if field == "do_sample":
        if not isinstance(value, bool):
            raise UsageError(f"{where}: expected true or false, not {value!r}")
        return value
    if field == "max_tokens":
        return _max_tokens(value, where)
    if value is None or value == DEFAULT:
        return DEFAULT
    if field == "top_k":
        return _whole(value, where, least=-1)
    number = _number(value, where)
    low, high = BOUNDS[field]
    if not low <= number <= high or (field in ABOVE_ZERO and number == 0):
        bound = f"a number from {low:g} to {high:g}" if math.isfinite(high) else f"a number from {low:g}"
        if field in ABOVE_ZERO:
            bound = f"a number above 0{f', at most {high:g}' if math.isfinite(high) else ''}"
        raise UsageError(f"{where}: expected {bound}, not {value!r}")
    return number


def _max_tokens(value: Any, where: str) -> int:
    if value == CONTEXT_NAME:
        return CONTEXT
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{where}: expected a number of tokens from 1, or context, not {value!r}")
    return min(value, CONTEXT)


def _whole(value: Any, where: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{where}: expected a whole number from {least}, not {value!r}")
    return value


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{where}: expected a number, not {value!r}")
    return number


def _stop(value: Any, where: str) -> tuple[str, ...]:
    texts = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    if not all(isinstance(text, str) and text for text in texts):
        raise UsageError(f"{where}: expected a text or a list of texts that are not empty, not {value!r}")
    return tuple(texts)


def check_values(settings: Any, where: str) -> None:
    """Raise UsageError for `generation_kwargs` of a task file whose values are of a wrong type or out of range.

    Texts are allowed where lm-eval converts them to numbers: in token limits and temperatures.
    """
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        raise UsageError(f"{where}: expected a mapping such as {{max_gen_toks: 256}}, not {settings!r}")
    for name, value in settings.items():
        field, at = SYNONYMS.get(name, name), f"{where}: {name}"
        if value is None or field not in FIELDS or (field == "temperature" and value == DEFAULT):
            continue
        if field == "max_tokens":
            _max_tokens(_as_whole(value), at)
        elif field == "stop":
            _stop([text for text in value if text != ""] if isinstance(value, list | tuple) else value or [], at)
        elif field in (*OPTIONAL, "top_p") and isinstance(value, str):
            raise UsageError(f"{at}: expected a number, not {value!r}")
        else:
            _value(field, value, at)


def _as_whole(value: Any) -> Any:
    """Return a token limit as lm-eval converts it; a value that is not a whole number is returned as it is."""
    try:
        whole = value if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        return value
    return value if isinstance(value, float) and whole != value else whole


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are written: lists, and `context` for the whole context."""
    return {
        name: CONTEXT_NAME if value == CONTEXT else list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
    }


def merged(own: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's `generation_kwargs` with checked settings in place of its own.

    Where nothing changes, the task's own mapping is returned, so that its fingerprint stays the same.
    """
    result = dict(own)
    for name, value in settings.items():
        if name == "max_tokens":
            for synonym in LIMITS:
                result.pop(synonym, None)
            result[LIMITS[0]] = value
        elif name == "stop":
            result["until"] = list(value)
        elif name == "temperature":
            result.pop("do_sample", None)
            result["temperature"] = value
        elif value == DEFAULT or (name in OPTIONAL and effective(name, value) is None):
            result.pop(name, None)
        elif name != "do_sample":
            result[name] = value
    if "do_sample" in settings:
        result["do_sample"] = settings["do_sample"]
    return dict(own) if sampling(result) == sampling(own) else result


def without_effect(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings, of those that a command gives, that do not change greedy answers."""
    return [name for name in SAMPLING_ONLY if settings.get(name) not in (None, DEFAULT)]
