"""Detect adapter checkpoints and merge them into their base model.

python -m train_plugins.checkpoints.adapters ADAPTER FOLDER      merge ADAPTER and write the whole model to FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CONFIG = "adapter_config.json"
FOLDER = "adapter"
"""Folder in the stage's output that holds the last checkpoint's adapter, before it was merged."""


def is_adapter(folder: Path) -> bool:
    """Return whether the folder holds an adapter that is not merged, or only partly merged."""
    return (folder / CONFIG).is_file()


def merge(adapter: Path, folder: Path) -> None:
    """Write the base model with the adapter added to its weights, in the base model's precision, and the tokenizer.

    If `folder` is the adapter's folder, the model replaces the adapter: transformers would load the base model and
    the adapter again if it found both.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    base = config["base_model_name_or_path"]
    if config["task_type"] == "SEQ_CLS":
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype="auto")
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model.config.pad_token_id = tokenizer.pad_token_id
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    if folder != adapter:
        tokenizer.save_pretrained(folder)
        return
    (folder / CONFIG).unlink()  # first: without this file the folder counts as a whole model
    for file in folder.glob("adapter_*"):
        file.unlink()


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]))
