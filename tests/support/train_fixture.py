"""Small training sets and recipes for the tests of the stages."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.errors import OlmesError
from olmes_suite.hooks import hookimpl
from train_plugins.config import recipe
from train_plugins.stages import registry

WORDS = ["red", "green", "blue", "seven", "eggs", "clock", "stairs", "hall", "hen", "school"]


def need_trl() -> None:
    """Skip the module where the extra is not installed."""
    pytest.importorskip("trl", reason="the extra `train` is not installed: pip install 'olmes-suite[train]'")


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def chat(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """A conversation: user, assistant, user, …"""
    turns = [{"role": "system", "content": system}] if system else []
    return turns + [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(contents)]


def sft_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations whose answers differ much in length; every third has two rounds."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        said = [f"What is {number}?", " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))]
        rows.append({"messages": chat(*said, *(["And then?", "Nothing."] if number % 3 == 0 else []))})
    return rows


def pair_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Preference pairs with answers of different lengths."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        question = f"Name {number} things"
        chosen, rejected = (" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(2))
        rows.append({"chosen": chat(question, chosen + "."), "rejected": chat(question, rejected + "!")})
    return rows


def make_recipe(kind: str, folder: Path, rows: Path, **keys: Any) -> recipe.Recipe:
    """A recipe over the tiny model in `folder`/tiny; `trainer` and the stage's own mapping are merged in."""
    import yaml

    trainer = {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "num_train_epochs": 1, "logging_steps": 1,
               "save_steps": 1000, "max_length": 256, **keys.pop("trainer", {})}  # fmt: skip
    whole = {"model": str(folder / "tiny"), "output": str(folder / "out"), "chat_template": "tulu",
             "data": keys.pop("files", [{"path": str(rows)}]), "trainer": trainer, **keys}  # fmt: skip
    file = folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return recipe.load(file, kind, registry.find(kind).own, registry.names())


def refused(action: Any, match: str, kind: type[OlmesError] = OlmesError) -> None:
    """The action fails with one of our errors, whose text is one line."""
    with pytest.raises(kind, match=match) as caught:
        action()
    assert "\n" not in str(caught.value)


class Poison:
    """A plugin that breaks the weights of the trained model after each checkpoint, as an overflow would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers import Trainer

        self.model: Any = None
        train = Trainer.train

        def noting(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
            self.model = trainer.model
            return train(trainer, *args, **kwargs)

        monkeypatch.setattr(Trainer, "train", noting)

    @hookimpl
    def olmes_after_checkpoint(self, stage: Any, checkpoint: Any) -> None:
        """Fill the weights of the last layer with NaN."""
        import torch
        from transformers import LlamaForCausalLM

        broken = [module for module in self.model.modules() if isinstance(module, LlamaForCausalLM)]
        assert broken
        with torch.no_grad():
            for module in broken:
                module.lm_head.weight.fill_(float("nan"))


def weights(folder: Path) -> dict[str, Any]:
    """All tensors of a checkpoint."""
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def losses(folder: Path) -> list[float]:
    """The logged losses of a finished stage."""
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]
