"""Detect adapter checkpoints and merge them into their base model.

python -m train_plugins.checkpoints.adapters ADAPTER FOLDER      merge ADAPTER and write the whole model to FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from olmes_suite.errors import ModelError, OlmesError, StorageError, UsageError, one_line
from olmes_suite.files import read_json

CONFIG = "adapter_config.json"
FOLDER = "adapter"
"""Folder in the stage's output that holds the last checkpoint's adapter, before it was merged."""


def is_adapter(folder: Path) -> bool:
    """Return whether the folder holds an adapter that is not merged, or only partly merged."""
    return (folder / CONFIG).is_file()


def merge(adapter: Path, folder: Path) -> None:
    """Write the base model with the adapter added to its weights, in the base model's precision, and the tokenizer, the
    adapter's own or else the base model's.

    If `folder` is the adapter's folder, the model replaces the adapter: transformers would load the base model and
    the adapter again if it found both.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from olmes_suite.models.local.checkpoint import has_tokenizer

    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    base = config["base_model_name_or_path"]
    if config.get("task_type") == "SEQ_CLS":
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype="auto")
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(adapter if has_tokenizer(adapter) else base)
    model.config.pad_token_id = tokenizer.pad_token_id
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    if folder != adapter:
        tokenizer.save_pretrained(folder)
        return
    (folder / CONFIG).unlink()  # first: without this file the folder counts as a whole model
    for file in folder.glob("adapter_*"):
        file.unlink()


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit status; errors are one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m train_plugins.checkpoints.adapters",
        description="Merge an adapter into its base model and write the whole model.",
    )
    parser.add_argument("adapter", type=Path, help="the adapter's folder")
    parser.add_argument("folder", type=Path, help="a new folder, or the adapter's: the model then replaces the adapter")
    given = parser.parse_args(arguments)
    try:
        _quietly_merge(given.adapter.expanduser(), given.folder.expanduser())
    except OlmesError as error:
        print(f"olmes: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("olmes: interrupted", file=sys.stderr)
        return 130
    return 0


def _quietly_merge(adapter: Path, folder: Path) -> None:
    """Check both folders and merge, silently. Raises OlmesError; nothing is left of a merge that failed."""
    _check(adapter)
    here = folder.exists() and folder.samefile(adapter)
    if not here and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder}: {'is not empty' if folder.is_dir() else 'is a file'}; name a new folder")
    import transformers

    warnings.filterwarnings("ignore")  # of packages, about their own later versions
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    part = folder.parent / f".{folder.name}.merging"
    try:
        if here:
            merge(adapter, adapter)
            return
        shutil.rmtree(part, ignore_errors=True)
        merge(adapter, part)
        part.replace(folder)
    except OSError as error:
        if error.errno is None:  # transformers raises these for what it cannot load
            raise ModelError(f"{adapter}: cannot be merged: {one_line(error)}") from None
        raise StorageError(f"{folder}: cannot be written: {one_line(error)}") from None
    except Exception as error:  # transformers and PEFT raise many types here
        raise ModelError(f"{adapter}: cannot be merged: {one_line(error)}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check(adapter: Path) -> None:
    """Raise OlmesError unless the folder holds an adapter whose base model is at hand."""
    from olmes_suite.extras import require_module
    from olmes_suite.models.local.adapter import WEIGHTS
    from olmes_suite.models.local.checkpoint import check_folder, is_hub_id, tensor_shapes

    if not adapter.is_dir():
        raise ModelError(
            f"{adapter}: {'is a file' if adapter.exists() else 'no such folder'}; name an adapter's folder"
        )
    if not is_adapter(adapter):
        raise ModelError(f"{adapter}: holds no adapter ({CONFIG} is missing)")
    config = read_json(adapter / CONFIG)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{adapter / CONFIG}: names no base model (base_model_name_or_path)")
    weights = next((adapter / name for name in WEIGHTS if (adapter / name).is_file()), None)
    if weights is None:
        raise ModelError(f"{adapter}: lacks the adapter's weights ({WEIGHTS[0]}); copy the whole adapter")
    if weights.suffix == ".safetensors":
        tensor_shapes(weights)
    require_module("peft", f"{adapter}: an adapter needs PEFT")
    if not is_hub_id(base):
        try:
            check_folder(base, training=True)
        except ModelError as error:
            raise ModelError(f"{adapter}: its base model cannot be loaded: {error}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
