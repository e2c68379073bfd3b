"""Checkpoints in other forms than the one that is loaded here, each with what to do. Imports no torch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from olmes_suite.errors import ModelError
from olmes_suite.extras import installed

POINTER = b"version https://git-lfs"
"""The start of a Git LFS pointer, the text that stands for a file that was not fetched."""
SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
SENTENCEPIECE_NEEDS = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
"""Modules that transformers needs to read SentencePiece's files, and their packages."""
NO_LANGUAGE_MODEL = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM",
    "ForMultipleChoice", "ForImageClassification")  # fmt: skip
"""Ends of the names of architectures that do not continue text."""
QUANTISED: Mapping[str, tuple[str, ...]] = {
    "aqlm": ("aqlm",), "awq": ("gptqmodel",), "bitsandbytes": ("bitsandbytes",),
    "bitsandbytes_4bit": ("bitsandbytes",), "bitsandbytes_8bit": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",), "eetq": ("eetq",), "gptq": ("optimum", "gptqmodel"),
    "hqq": ("hqq",), "quanto": ("optimum-quanto",), "torchao": ("torchao",),
}  # fmt: skip
"""Methods of quantisation and the packages that transformers needs for them."""
IMPORTED = {"optimum-quanto": "optimum.quanto", "compressed-tensors": "compressed_tensors"}
"""Packages whose modules have other names."""


def check_pointer(file: Path) -> None:
    """Raise ModelError where a file is a Git LFS pointer."""
    try:
        with file.open("rb") as stream:
            pointer = stream.read(len(POINTER)) == POINTER
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); check the file and its permissions") from None
    if pointer:
        raise ModelError(f"{file}: is a Git LFS pointer, not the file itself; run `git lfs pull` in {file.parent}")


def without_config(folder: Path) -> str:
    """Return what a folder without a config.json holds, and what to do."""
    inside = sorted((path for path in folder.glob("*/config.json")), key=lambda path: path.stat().st_mtime)
    if inside:
        return f"has no config.json; give the folder of a checkpoint in it, such as {inside[-1].parent.name}"
    if any(folder.glob("consolidated*.pth")) or (folder / "params.json").is_file():
        return "holds a model in its maker's own form, not in Hugging Face's; convert it, or give the Hub's copy"
    if any(folder.glob("*.gguf")):
        return f"holds {GGUF}"
    return "has no config.json; give the folder that save_pretrained wrote"


GGUF = (
    "a GGUF file, which is not loaded here; give the original checkpoint, or serve it with llama.cpp and evaluate it "
    "with --backend openai"
)


def without_weights(folder: Path) -> str:
    """Return what to do about a folder without weights."""
    if any(folder.glob("*.gguf")):
        return f"holds {GGUF}"
    return "has no weights (model.safetensors or pytorch_model.bin); copy the whole checkpoint"


def check_head(path: str | Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for a model that does not continue text."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    if name.endswith(NO_LANGUAGE_MODEL):
        raise ModelError(f"{path}: is a {name}, which does not continue text; give a causal language model")


def check_quantised(path: str | Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for quantised weights that transformers cannot read without packages that are not installed."""
    quantised = config.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    needed = QUANTISED.get(str(method), ())
    if lacking := [package for package in needed if not _installed(package)]:
        raise ModelError(
            f"{path}: is quantised by {method}, which needs packages that are not installed: pip install "
            f"{' '.join(lacking)}"
        )


def _installed(package: str) -> bool:
    module = IMPORTED.get(package, package)
    return installed(module.split(".")[0]) and ("." not in module or installed(module))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _list_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(fits(item) for item in value)


_IDS = _list_of(_is_whole)
_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("repetition_penalty", "encoder_repetition_penalty"),
        ("a number above 0", lambda value: _is_number(value) and value > 0),
    ),
    "guidance_scale": ("a number", _is_number),
    **dict.fromkeys(
        ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"),
        ("a whole number from 0", lambda value: _is_whole(value) and value >= 0),
    ),
    **dict.fromkeys(
        ("eos_token_id", "forced_eos_token_id"),
        ("a token id or a list of them", lambda value: _is_whole(value) or _IDS(value)),
    ),
    "forced_bos_token_id": ("a token id", _is_whole),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), ("a list of token ids", _IDS)),
    "bad_words_ids": ("a list of lists of token ids", _list_of(_IDS)),
    "stop_strings": (
        "a text or a list of texts",
        lambda value: isinstance(value, str) or _list_of(lambda text: isinstance(text, str))(value),
    ),
    "exponential_decay_length_penalty": ("two numbers", lambda value: _list_of(_is_number)(value) and len(value) == 2),
    "sequence_bias": ("pairs of token ids and a number", lambda value: isinstance(value, dict | list)),
}
"""Fields of generation_config that are honoured: what each holds, and the test of it."""


def check_generation(file: str | Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for a field of a generation_config file that is honoured and has a wrong value."""
    for name, (what, fits) in _TYPES.items():
        if (value := config.get(name)) is not None and not fits(value):
            raise ModelError(f"{file}: {name}: expected {what}, not {value!r}; correct it, or remove the field")


def check_vocabulary(path: str | Path, folder: Path) -> None:
    """Raise ModelError for a tokenizer that is incomplete, or whose form needs packages that are not installed."""
    if (folder / "tokenizer.json").is_file():
        return
    for file in (folder / name for name in SENTENCEPIECE if (folder / name).is_file()):
        check_pointer(file)
        with file.open("rb") as stream:
            binary = stream.read(1) == b"\n"  # the first field of SentencePiece's model
        needed = SENTENCEPIECE_NEEDS if binary else {"tiktoken": "tiktoken"}
        if lacking := [package for module, package in needed.items() if not _module(module)]:
            raise ModelError(
                f"{path}: {file.name} needs packages that are not installed: pip install {' '.join(lacking)}"
            )
        return
    if (folder / "vocab.json").is_file() and not (folder / "merges.txt").is_file():
        raise ModelError(f"{path}: its tokenizer has a vocab.json and no merges.txt; copy tokenizer.json or merges.txt")


def _module(name: str) -> bool:
    try:
        return installed(name)
    except ModuleNotFoundError:  # of the package around it
        return False


def check_pickled(file: Path) -> None:
    """Raise ModelError for a PyTorch file that is empty or cut."""
    check_pointer(file)
    with file.open("rb") as stream:
        start = stream.read(2)
    if not start or (start == b"PK" and not zipfile.is_zipfile(file)):
        raise ModelError(f"{file}: is {'damaged' if start else 'empty'}; copy the checkpoint again")


def explain(model: str, error: BaseException, part: str) -> ModelError:
    """Return the error for an exception of transformers: `part` of a model (`tokenizer`) cannot be loaded, and why.

    Without a part, the model.
    """
    text = " ".join(str(error).split())
    unknown = "does not recognize this architecture" in text and _has_own_code(model)
    if unknown or "trust_remote_code" in text or "custom code" in text:
        return ModelError(
            f"{model}: needs code of its own repository, which is not run here; serve it with that code (vllm serve "
            "--trust-remote-code) and use --backend openai"
        )
    if text.startswith("Unrecognized configuration class"):
        name = text.partition("'")[2].partition("'")[0].rpartition(".")[2].removesuffix("Config")
        return ModelError(f"{model}: is a {name} model, not a causal language model, which is needed here")
    if "alidation error" in text:
        return ModelError(f"{model}: its config.json is invalid: {_cut(text)}")
    if "weights_only" in text:
        return ModelError(
            f"{model}: its .bin file holds more than tensors, which is not read here; convert it to safetensors"
        )
    what = f"its {part} cannot be loaded" if part else "cannot be loaded"
    if "instantiate the backend tokenizer" in text:
        return ModelError(f"{model}: {what}: its files are incomplete; save it with a tokenizer.json")
    if "tiktoken" in text and not (_module("sentencepiece") and _module("google.protobuf")):
        return ModelError(
            f"{model}: its tokenizer needs packages that are not installed: pip install sentencepiece protobuf"
        )
    kind = f"{type(error).__name__}: " if isinstance(error, (LookupError, AttributeError, TypeError)) else ""
    return ModelError(f"{model}: {what}: {kind}{_cut(text) or type(error).__name__}")


def _has_own_code(model: str) -> bool:
    try:
        return "auto_map" in json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):  # on the Hub, or damaged
        return False


def _cut(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
