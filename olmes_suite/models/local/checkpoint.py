"""Checks of a checkpoint folder. Reads a few kilobytes, and imports neither torch nor transformers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from olmes_suite.errors import ModelError, first_line, nearest
from olmes_suite.models.local.adapter import adapter_of, merge_command
from olmes_suite.models.local.forms import (
    GGUF,
    check_generation,
    check_head,
    check_pickled,
    check_pointer,
    check_vocabulary,
    without_config,
    without_weights,
)

CONFIG_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
"""A tokenizer needs one of these files, or a `*.tiktoken` file."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_hub_id(model: str) -> bool:
    """Return whether the name, such as `org/model`, is a Hub id and not a folder on this machine."""
    return not Path(model).exists() and not model.startswith(("/", ".", "~")) and HUB_ID.fullmatch(model) is not None


def check_name(model: str, revision: str | None = None, *, needed: bool = True) -> None:
    """Raise ModelError for a name that the Hub would be asked for in vain: a mistyped folder, or the Hub is offline.

    A name is taken for a folder's where its first part is a folder. What the Hub's cache holds is let through, and
    offline any other name where the model is not `needed` yet.
    """
    if not is_hub_id(model):
        return
    first, slash, _ = model.partition("/")
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    mistyped = bool(slash) and Path(first).is_dir()
    if not (mistyped or (offline and needed)) or _in_cache(model, revision):
        return
    advice = (
        f"give a checkpoint's folder; the name is read as a path because there is a folder {first}/ here: for the "
        f"Hub's model of this name, run `hf download {model}` once and repeat the command"
        if mistyped
        else "it is not in the Hub's cache either, and $HF_HUB_OFFLINE is set: give a checkpoint's folder, or unset it"
    )
    said = _no_folder(model)
    raise ModelError(f"{said}{' ' if said.endswith('?') else '; '}{advice}")


def check_source(model: str, revision: str | None = None, *, training: bool = False, needed: bool = True) -> None:
    """Raise ModelError unless a model is a whole checkpoint's folder, or a name that the Hub may have.

    Without `needed`, as for a plan that another machine carries out, an offline Hub may have any name.
    """
    if is_hub_id(model):
        check_name(model, revision, needed=needed)
    else:
        check_folder(model, training=training)


def _in_cache(model: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    names = ("config.json", "adapter_config.json")
    return any(isinstance(try_to_load_from_cache(model, name, revision=revision or "main"), str) for name in names)


def _no_folder(model: str | Path) -> str:
    """Say that there is no such folder, where it was looked for, and which folder beside it has a similar name."""
    place = Path(model).expanduser().absolute()
    beside = [one.name for one in place.parent.iterdir() if one.is_dir()] if place.parent.is_dir() else []
    where = "" if str(place) == str(model) else f": {place}"
    return f"{model}: no such folder{where}{nearest(place.name, beside)}"


def config_files(folder: Path) -> list[Path]:
    """Return the files with the configuration of the network and its default generation settings."""
    return [folder / name for name in CONFIG_FILES if (folder / name).is_file()]


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of the tokenizer and its chat templates."""
    known = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return known + sorted(folder.glob("*.tiktoken")) + sorted(folder.glob("additional_chat_templates/*.jinja"))


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that transformers would load: safetensors where there are any, else PyTorch's."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def check_folder(path: str | Path, *, training: bool = False) -> None:
    """Raise ModelError, in one line, unless `path` is a folder with a complete causal language model.

    An adapter whose base model is at hand is one too. `training` refuses adapters and allows models with other heads.
    Raises UsageError for an adapter without PEFT.
    """
    folder = _folder(path)
    if (folder / "adapter_config.json").is_file():
        _check_adapter(path, folder, training=training)
        return
    if not (folder / "config.json").is_file():
        raise ModelError(f"{path}: {without_config(folder)}")
    config = read_json(folder / "config.json")
    if "model_type" not in config:
        raise ModelError(f"{folder / 'config.json'}: has no model_type; save the model again with save_pretrained")
    if not training:
        check_head(path, config)
    if (folder / "generation_config.json").is_file():
        check_generation(folder / "generation_config.json", read_json(folder / "generation_config.json"))
    check_tokenizer(path)
    _check_weights(folder)


def _check_adapter(path: str | Path, folder: Path, *, training: bool) -> None:
    if training:
        raise ModelError(f"{path}: holds an adapter; merge it into its base model first: {merge_command(path)}")
    adapter = adapter_of(path)
    if adapter is None:  # transformers would load the weights, and the adapter over them
        raise ModelError(
            f"{path}: holds whole weights and an adapter; move adapter_config.json out of the folder if the adapter is "
            f"merged into the weights, else merge it: {merge_command(path)}"
        )
    if adapter.weights.suffix == ".safetensors":
        tensor_shapes(adapter.weights)
    if is_hub_id(adapter.base):
        return
    if (Path(adapter.base) / "adapter_config.json").is_file():
        raise ModelError(
            f"{path}: its base model {adapter.base} is an adapter itself; merge that first: "
            f"{merge_command(adapter.base)}"
        )
    try:
        check_folder(adapter.base)
    except ModelError as error:
        raise ModelError(f"{path}: its base model cannot be loaded: {error}") from None


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the vocabulary of a tokenizer."""
    return any((folder / name).is_file() for name in VOCABULARIES) or any(folder.glob("*.tiktoken"))


def check_tokenizer(path: str | Path) -> None:
    """Raise ModelError, in one line, unless `path` is a folder with a tokenizer; weights are not needed."""
    folder = _folder(path)
    if not has_tokenizer(folder):
        raise ModelError(f"{path}: has no tokenizer (tokenizer.json or tokenizer.model); save it beside the model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        length = read_json(folder / name).get("model_max_length")
        if length is not None and (isinstance(length, bool) or not isinstance(length, int | float)):
            raise ModelError(
                f"{folder / name}: model_max_length: expected a number, not {length!r}; correct it, or remove the field"
            )
    check_vocabulary(path, folder)


def _folder(path: str | Path) -> Path:
    """Return the folder of a checkpoint. Raises ModelError where there is none."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.suffix == ".gguf" and folder.is_file():
        raise ModelError(f"{path}: is {GGUF}")
    problem = f"{path}: is a file, not a folder" if folder.exists() else _no_folder(path)
    raise ModelError(f"{problem}; give a checkpoint's folder or a Hub id such as org/model")


def _check_weights(folder: Path) -> None:
    present = weight_files(folder)
    indexes = sorted(folder.glob("model*.safetensors.index.json")) or sorted(
        folder.glob("pytorch_model*.bin.index.json")
    )
    if not present and not indexes:
        raise ModelError(f"{folder}: {without_weights(folder)}")
    for index in indexes:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelError(f"{index}: has no weight_map; copy the checkpoint again")
        missing = sorted({str(name) for name in weight_map.values() if not (folder / str(name)).is_file()})
        if missing:
            raise ModelError(
                f"{folder}: lacks {len(missing)} of the weight files that its index names ({missing[0]}); copy it again"
            )
    for file in present:
        if file.suffix == ".safetensors":
            tensor_shapes(file)
        else:
            check_pickled(file)


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a safetensors file by their names, from its header.

    Raises ModelError unless the header is complete and describes all of the file.
    """
    check_pointer(file)
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file}: is damaged or not a safetensors file ({first_line(error)}); copy the checkpoint again"
        ) from None


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint. Raises ModelError."""
    check_pointer(file)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({error}); copy the checkpoint again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{file}: is not a JSON object; copy the checkpoint again")
    return value
