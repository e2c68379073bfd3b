"""Folders with an adapter and no whole weights: their base model, and checks before it is loaded. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.errors import ModelError
from olmes_suite.extras import require_module

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
BASE = "base_model_name_or_path"
UNMERGED = frozenset(
    {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE",
     "POLY", "XLORA"}
)  # fmt: skip
"""Kinds of adapters that PEFT cannot merge into the weights."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter and the model that it changes."""

    folder: Path
    config: Mapping[str, Any]
    """The content of adapter_config.json."""
    base: str
    """The folder or Hub id of the base model."""
    revision: str | None
    """The revision of a base model on the Hub."""
    weights: Path

    def settings(self) -> dict[str, Any]:
        """Return the configuration without the place of the base model, for the fingerprint."""
        return {name: value for name, value in self.config.items() if name not in (BASE, "revision")}


def merge_command(folder: str | Path) -> str:
    """Return the command that merges an adapter's folder into its base model and writes the whole model."""
    return f"python -m train_plugins.checkpoints.adapters {folder} MERGED"


def adapter_of(model: str | Path) -> Adapter | None:
    """Read the adapter of a folder; None for a Hub id and for a folder without one, or with whole weights beside it.

    Raises ModelError in one line for an adapter that cannot be merged or lacks its weights or its base model,
    UsageError where PEFT is missing.
    """
    folder = Path(model).expanduser()
    if not (folder / CONFIG).is_file() or whole_weights(folder):
        return None
    config = _read(folder / CONFIG)
    _check(folder, config)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise ModelError(f"{model}: lacks the adapter's weights ({WEIGHTS[0]}); copy the whole adapter")
    require_module("peft", f"{model}: an adapter needs PEFT")
    revision = config.get("revision")
    return Adapter(folder, config, _base(folder, config), revision if isinstance(revision, str) else None, weights)


def whole_weights(folder: Path) -> list[Path]:
    """Return the weight files of a folder that are not an adapter's."""
    files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"), *folder.glob("*.index.json")]
    return sorted(file for file in files if file.name not in WEIGHTS)


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({error}); copy the adapter again") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file}: is not a JSON object; copy the adapter again")
    return config


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    kind, task = config.get("peft_type"), config.get("task_type")
    if not isinstance(kind, str):
        raise ModelError(f"{folder / CONFIG}: has no peft_type; save the adapter again with save_pretrained")
    if kind in UNMERGED:
        raise ModelError(f"{folder}: adapters of type {kind} cannot be merged into a model, which is needed here")
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(f"{folder}: is an adapter for {task}, not for a causal language model (CAUSAL_LM)")


def _base(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the folder or the Hub id of the base model. A relative path counts from here or from the adapter."""
    from olmes_suite.models.local.checkpoint import is_hub_id

    name = config.get(BASE)
    if not isinstance(name, str) or not name:
        raise ModelError(f"{folder / CONFIG}: names no base model; set {BASE} to the base model's folder or Hub id")
    places = [Path(name).expanduser(), folder / name]
    found = next((place for place in places if place.is_dir()), None)
    if found is not None and found.resolve() == folder.resolve():
        raise ModelError(f"{folder / CONFIG}: names its own folder as the base model; correct {BASE}")
    if found is None and not is_hub_id(name):
        raise ModelError(
            f"{folder}: is an adapter of {name}, which is not here; copy the base model, or set {BASE} in "
            f"{CONFIG} to its folder or Hub id"
        )
    return name if found is None else str(found)
