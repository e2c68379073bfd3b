"""What can differ between two evaluations of a checkpoint, as the manifests record it. Pure functions."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from olmes_suite.runs.schema import Manifest

Facts = Mapping[str, str]
"""Name of a setting to its value in words."""
_NOISE = frozenset({"fingerprint", "device_name", "base_url", "commit", "reuse", "batch_size"})
"""Keys of an engine that change no answer, or that other facts cover."""
_WITHOUT_MODEL = frozenset({"mock", "oracle", "floor"})
_HASH = 8
"""Characters of a hash that are shown."""
_LONGEST = 60


def facts(manifest: Manifest) -> dict[str, str]:
    """Return the settings of a run that can change its scores, apart from the model and the tasks.

    Empty for imported scores, whose settings are not known.
    """
    engine = manifest.engine
    if manifest.imported or not engine.backend:
        return {}
    found: dict[str, Any] = {"backend": engine.backend, "chat template": _template(manifest)}
    found |= {key: value for key, value in engine.extra.items() if key not in {*_NOISE, "chat_template", *_versions()}}
    found |= {
        "limit": manifest.limit if manifest.limit is not None else "all",
        "seed": manifest.seed,
        "documents": "sample" if manifest.sample else "plan" if manifest.planned is not None else "full",
    }
    found |= _flat(manifest.settings or {})
    for need, used in (manifest.judge or {}).items():
        found[need] = used.model
    packages = manifest.packages or {}
    found |= {name: engine.extra.get(name, packages.get(name)) for name in _versions()}
    return {name: _shown(value) for name, value in found.items() if value is not None}


def differing(one: Facts, other: Facts) -> dict[str, tuple[str, str]]:
    """Return the settings in which two runs differ, with both values; empty where either is not known."""
    if not one or not other:
        return {}
    names = dict.fromkeys((*one, *other))
    pairs = {name: (one.get(name, "none"), other.get(name, "none")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def checkpoint(manifest: Manifest) -> str:
    """Return the place of the evaluated weights, "" where no checkpoint was: equal for two runs of one checkpoint."""
    path = manifest.model.path or ""
    if path and path.startswith((".", "/", "~")):
        path = os.path.normpath(os.path.join(manifest.folder, path))
    return f"{path}@{manifest.model.revision}" if path and manifest.model.revision else path


def _versions() -> tuple[str, ...]:
    return ("torch", "transformers", "vllm", "olmes-suite")


def _template(manifest: Manifest) -> str | None:
    if manifest.engine.backend in _WITHOUT_MODEL:
        return None
    if not manifest.engine.chat:
        return "none"
    template = manifest.engine.extra.get("chat_template")
    return str(template)[:_HASH] if template else "the model's"


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lift the keys of nested settings: {"gen_kwargs": {"temperature": 1}} becomes {"temperature": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value) if isinstance(value, Mapping) else {key: value}
    return flat


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
