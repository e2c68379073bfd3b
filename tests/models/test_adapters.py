"""Folders with an adapter alone: they are loaded on their base model, and both are in the fingerprint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import need
from models_fixture import answers, choice, generation, make_tiny_model, one_line

import olmes_suite as olmes
from olmes_suite import extras
from olmes_suite.errors import ModelError, UsageError
from olmes_suite.models.factory import make_backend
from olmes_suite.models.local.adapter import adapter_of
from olmes_suite.models.local.checkpoint import check_folder
from olmes_suite.models.local.fingerprint import fingerprint_of
from olmes_suite.records import Request

need("peft", "adapters need PEFT: pip install 'olmes-suite[eval]'")


def make_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """Write a LoRA adapter with random weights for a base model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    kind = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"}
    config = LoraConfig(init_lora_weights=False, **{**kind, **settings})
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny checkpoint; read only."""
    return make_adapter(tiny_checkpoint, tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture
def own(adapter: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


def configure(folder: Path, **changes: Any) -> Path:
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in config.items() if value != "REMOVED"}))
    return folder


def test_the_answers_are_those_of_the_merged_model(tiny_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    from train_plugins.checkpoints.adapters import merge

    shutil.copytree(adapter, tmp_path / "with tokenizer")
    for file in (*tiny_checkpoint.glob("token*"), *tiny_checkpoint.glob("chat*")):
        shutil.copy(file, tmp_path / "with tokenizer")
    merge(tmp_path / "with tokenizer", tmp_path / "merged")
    asked = [generation(0, "The old clock"), choice(1, 0, "The hall", " nine"), choice(1, 1, "The hall", " doors")]
    found = {
        name: answers(make_backend("hf", str(folder), device="cpu"), asked)
        for name, folder in (("adapter", adapter), ("merged", tmp_path / "merged"), ("base", tiny_checkpoint))
    }
    assert [a.text for a in found["adapter"]] == [a.text for a in found["merged"]]
    for mine, other, base in zip(*found.values(), strict=True):
        if mine.loglikelihood is not None:
            assert mine.loglikelihood == pytest.approx(other.loglikelihood, abs=1e-4)
            assert abs(mine.loglikelihood - base.loglikelihood) > 1e-2


def test_every_part_moves_the_fingerprint(tiny_checkpoint: Path, own: Path, tmp_path: Path) -> None:
    digest = fingerprint_of(own).digest
    assert digest != fingerprint_of(tiny_checkpoint).digest
    moved = Path(shutil.copytree(tiny_checkpoint, tmp_path / "base"))
    assert (
        fingerprint_of(configure(own, base_model_name_or_path=str(moved))).digest == digest
    )  # its place does not count
    seen = {digest, fingerprint_of(configure(own, lora_alpha=8)).digest}
    configure(own, lora_alpha=16)
    weights = own / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    seen.add(fingerprint_of(own).digest)
    config = moved / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    seen.add(fingerprint_of(own).digest)
    assert len(seen) == 4 and fingerprint_of(own).files.keys() >= {"adapter_config.json", "base/model.safetensors"}


def test_the_base_may_be_named_from_the_adapters_folder(tiny_checkpoint: Path, own: Path) -> None:
    shutil.copytree(tiny_checkpoint, own.parent / "base")
    check_folder(configure(own, base_model_name_or_path="../base"))


def test_an_own_template_and_added_tokens(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    tokenizer.chat_template = "<|new|>{{ messages[0]['content'] }}"
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    model.resize_token_embeddings(len(tokenizer))
    tuned = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    )
    tuned.save_pretrained(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "a")
    configure(tmp_path / "a", base_model_name_or_path=str(tiny_checkpoint))
    asked = Request("t", 0, 0, "generate", messages=(("user", "x"),), max_tokens=2, temperature=0.0)
    backend: Any = make_backend("hf", str(tmp_path / "a"), device="cpu")
    assert backend.encoder.render(asked).startswith("<|new|>")
    assert answers(backend, [asked])[0].prompt_tokens > 1


def test_a_run_and_prompts(adapter: Path, tmp_path: Path) -> None:
    run = olmes.evaluate(adapter, task="popqa", data="sample", limit=1, runs=tmp_path, backend="hf", device="cpu")
    assert run.name.startswith("adapter-popqa-") and run.results.tasks["tulu3_popqa"].n == 1
    (line,) = olmes.prompts("popqa", data="sample", limit=1, model=adapter, max_length=4096)
    assert run.prompts["tulu3_popqa"].rendered == line["rendered"]


def _cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def _drop_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, folder / "adapter_model.safetensors")


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no base": (lambda f: configure(f, base_model_name_or_path=None), "names no base model; set base_model_name"),
    "base gone": (lambda f: configure(f, base_model_name_or_path="/gone/x/y"), "/gone/x/y, which is not here"),
    "base offline": (lambda f: configure(f, base_model_name_or_path="no-one/nothing"), "of the adapter: no-one"),
    "base itself": (lambda f: configure(f, base_model_name_or_path=str(f)), "names its own folder"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "lacks the adapter's weights"),
    "weights cut": (_cut, "damaged"),
    "config cut": (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read as JSON"),
    "config a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "not a JSON object"),
    "no kind": (lambda f: configure(f, peft_type="REMOVED"), "no peft_type"),
    "new kind": (lambda f: configure(f, peft_type="LORA9"), "cannot be merged into"),
    "prompts": (lambda f: configure(f, peft_type="PREFIX_TUNING"), "PREFIX_TUNING cannot be merged"),
    "reward model": (lambda f: configure(f, task_type="SEQ_CLS"), "adapter for SEQ_CLS"),
    "another rank": (lambda f: configure(f, r=8), "check adapter_config.json, and that this is the adapter"),
    "other modules": (lambda f: configure(f, target_modules=["nowhere"]), "cannot be merged into"),
    "tensor gone": (_drop_a_tensor, "lacks tensors of the adapter"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_adapters_are_one_line(own: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    damage, words = WRONG[name]
    damage(own)
    one_line(lambda: make_backend("hf", str(own), device="cpu"), words, ModelError)


def test_another_base(own: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "wider", hidden_size=32)
    configure(own, base_model_name_or_path=str(other))
    one_line(lambda: make_backend("hf", str(own), device="cpu"), "cannot be merged into .*wider", ModelError)


def test_an_adapter_of_an_adapter(own: Path, tmp_path: Path) -> None:
    second = configure(Path(shutil.copytree(own, tmp_path / "second")), base_model_name_or_path=str(own))
    one_line(
        lambda: check_folder(second), "is an adapter itself; merge that first: python -m train_plugins", ModelError
    )


def test_without_peft_the_extra_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module != "peft")
    one_line(lambda: check_folder(own), r"needs PEFT: pip install 'olmes-suite\[eval\]'", UsageError)


def test_whole_weights_beside_an_adapter(tiny_checkpoint: Path, own: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, own, dirs_exist_ok=True)
    assert adapter_of(own) is None
    one_line(lambda: check_folder(own), "whole weights and an adapter; .* merge it: python -m", ModelError)


def test_training_takes_no_adapter(own: Path) -> None:
    one_line(lambda: check_folder(own, training=True), "merge it into its base model first: python -m", ModelError)
