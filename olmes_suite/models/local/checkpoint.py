"""What a checkpoint folder must hold. Reads a few kilobytes, imports neither torch nor transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from olmes_suite.errors import ModelError, first_line

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
"""One of these must be there for a tokenizer to load; `*.tiktoken` files count too."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_hub_id(model: str) -> bool:
    """True for a name such as `org/model` that is not a folder on this machine."""
    return not Path(model).exists() and not model.startswith(("/", ".", "~")) and HUB_ID.fullmatch(model) is not None


def config_files(folder: Path) -> list[Path]:
    """The files that describe the network and its default generation settings."""
    return [folder / name for name in CONFIG_FILES if (folder / name).is_file()]


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that a tokenizer and its chat templates are made of."""
    named = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return named + sorted(folder.glob("*.tiktoken")) + sorted(folder.glob("additional_chat_templates/*.jinja"))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors where there are any, as transformers chooses, else PyTorch's."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def check_folder(path: str | Path) -> None:
    """Raise ModelError, in one line, unless `path` is a folder that a causal language model can be loaded from."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = (
            "is a file, not a folder" if folder.exists() else "is neither a folder nor a name on the Hugging Face Hub"
        )
        raise ModelError(f"{path}: {what}; give a checkpoint's folder or a Hub id such as org/model")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{path}: holds an adapter without its base model; merge the adapter and save the whole model"
            )
        raise ModelError(f"{path}: has no config.json; give the folder that save_pretrained wrote")
    config = _read_json(folder / "config.json")
    if "model_type" not in config:
        raise ModelError(f"{folder / 'config.json'}: names no model_type; save the model again with save_pretrained")
    if not any((folder / name).is_file() for name in VOCABULARIES) and not any(folder.glob("*.tiktoken")):
        raise ModelError(f"{path}: has no tokenizer (tokenizer.json or tokenizer.model); save it beside the model")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _read_json(folder / name)
    _check_weights(folder)


def _check_weights(folder: Path) -> None:
    present = weight_files(folder)
    indexes = sorted(folder.glob("model*.safetensors.index.json")) or sorted(
        folder.glob("pytorch_model*.bin.index.json")
    )
    if not present and not indexes:
        raise ModelError(
            f"{folder}: has no weights (model.safetensors or pytorch_model.bin); copy the whole checkpoint"
        )
    for index in indexes:
        named = _read_json(index).get("weight_map")
        if not isinstance(named, dict):
            raise ModelError(f"{index}: has no weight_map; copy the checkpoint again")
        missing = sorted({str(name) for name in named.values() if not (folder / str(name)).is_file()})
        if missing:
            raise ModelError(
                f"{folder}: lacks {len(missing)} of the weight files that its index names ({missing[0]}); copy it again"
            )
    for file in present:
        if file.suffix == ".safetensors":
            tensor_shapes(file)
        elif file.stat().st_size == 0:
            raise ModelError(f"{file}: is empty; copy the checkpoint again")


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """The shapes of the tensors in a safetensors file by their names, as its header has them.

    Raises ModelError unless the header is whole and describes all of the file.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:
            return {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file}: is damaged or no safetensors file ({first_line(error)}); copy the checkpoint again"
        ) from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({error}); copy the checkpoint again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{file}: is not a JSON object; copy the checkpoint again")
    return value
