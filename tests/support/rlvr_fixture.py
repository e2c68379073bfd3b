"""Prompts, a reward model, a verifier that needs no processes, and recipes for the tests of RLVR."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models_fixture import make_tiny_model
from train_fixture import chat, write_rows

from train_plugins.config import recipe
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments
from train_plugins.running.train_stage import run
from train_plugins.stages import registry


def prompt_rows(count: int) -> list[dict[str, Any]]:
    """Questions of different lengths; every third is another verifier's."""
    return [
        {"messages": chat("Name the number " + "and " * (n % 4) + str(n)), "ground_truth": str(n),
         "dataset": "gsm8k" if n % 3 == 0 else "string"}
        for n in range(count)
    ]  # fmt: skip


def verdict(response: str, row: int) -> float:
    """A verdict that says yes, half or no at random, the same for the same response."""
    return zlib.crc32(f"{row} {response}".encode()) % 3 / 2


class Coin:
    """Stands in for the verifiers."""

    def __init__(self, names: Sequence[str], workers: int, timeout: float, **_: Any) -> None:
        self.names = names
        self.judges = None
        self.timeouts = self.crashes = 0

    def __enter__(self) -> Coin:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def check_truths(self, calls: Sequence[Any]) -> None:
        """It reads none."""

    def verify(self, calls: Sequence[Any]) -> list[float | None]:
        """See `verdict`."""
        return [verdict(call.response, call.row["row"]) for call in calls]


def make_models(folder: Path, **shape: Any) -> None:
    """`tiny`, a policy that ends its text after a few tokens, and `reward`, a sequence classifier with one label."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    make_tiny_model(folder / "tiny", **shape)
    file = folder / "tiny/generation_config.json"
    settings = json.loads(file.read_text())
    config = LlamaConfig.from_pretrained(folder / "tiny", num_labels=1)
    often = [config.eos_token_id, *range(20, config.vocab_size, 9)]
    file.write_text(json.dumps({**settings, "eos_token_id": often}))
    torch.manual_seed(7)
    LlamaForSequenceClassification(config).save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(folder / "tiny").save_pretrained(folder / "reward")


def make_rlvr(folder: Path, algorithm: str, rows: Sequence[Any], **keys: Any) -> recipe.Recipe:
    """A recipe over the models of `make_models`; `trainer` and `rlvr` are merged in."""
    import yaml

    data = write_rows(folder / "rows.jsonl", rows)
    trainer = {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 1000,
               "max_completion_length": 12, "gradient_checkpointing": False,
               **({} if algorithm == "ppo" else {"num_generations": 4}), **keys.pop("trainer", {})}  # fmt: skip
    own = {"algorithm": algorithm, **({"value_model": str(folder / "reward")} if algorithm == "ppo" else {}),
           **keys.pop("rlvr", {})}  # fmt: skip
    whole = {"model": str(folder / "tiny"), "output": str(folder / "out"), "chat_template": "tulu", "batch_size": 8,
             "data": [{"path": str(data)}], "trainer": trainer, "rlvr": own, **keys}  # fmt: skip
    file = folder / "rlvr.yaml"
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return recipe.load(file, "rlvr", registry.find("rlvr").own, registry.names())


def rlvr_trainer(wanted: recipe.Recipe) -> Any:
    """The trainer of a recipe, its models loaded."""
    stage = registry.find("rlvr")
    wanted, arguments = trainer_arguments(stage, wanted)
    ready = prepare(stage, wanted, arguments)
    args = configuration(stage.config(wanted), arguments, wanted)
    return stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)


def train_rlvr(
    folder: Path, algorithm: str, rows: Sequence[Any], go_on: bool = False, plugins: Any = (), **keys: Any
) -> Path:
    """Run the stage."""
    return run(registry.find("rlvr"), make_rlvr(folder, algorithm, rows, **keys), go_on, plugins)


def history(folder: Path) -> list[dict[str, Any]]:
    """What a finished stage logged, one mapping a step, without times."""
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return [
        {name: value for name, value in entry.items() if "time" not in name and "runtime" not in name}
        for entry in state["log_history"]
        if "loss" in entry
    ]
