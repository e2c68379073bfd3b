"""Adapter checkpoints: recognising one, and merging it into its base model.

python -m train_plugins.checkpoints.adapters ADAPTER FOLDER      merge an adapter and write the whole model
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CONFIG = "adapter_config.json"


FOLDER = "adapter"
"""In the stage's output: the adapter of the last checkpoint, as it was before it was merged."""


def is_adapter(folder: Path) -> bool:
    """The folder holds an adapter that is not merged, or not to the end."""
    return (folder / CONFIG).is_file()


def merge(adapter: Path, folder: Path) -> None:
    """Write the base model with the adapter added to its weights, in the base's own precision, and the tokenizer.

    In the adapter's own folder the model takes its place: transformers would go back to the base where it finds both.
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
    (folder / CONFIG).unlink()  # first: without it the model is whole
    for file in folder.glob("adapter_*"):
        file.unlink()


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]))
