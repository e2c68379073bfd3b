"""Checkpoints that cannot be loaded: each is one line."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from models_fixture import (
    SMALL,
    answers,
    generation,
    make_tiny_tokenizer,
    one_line,
)

from olmes_suite.cli.main import run as olmes
from olmes_suite.errors import ModelError, UsageError
from olmes_suite.evaluation.engines import check_model
from olmes_suite.extras import installed
from olmes_suite.models.factory import make_backend
from olmes_suite.models.local import forms
from olmes_suite.models.local.checkpoint import check_folder, check_source, tensor_shapes
from olmes_suite.models.local.loading import load_tokenizer


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _drop_the_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def _drop_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _shrink_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:10].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _config(**changes: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _own_code(folder: Path) -> None:
    _config(model_type="own9", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"})(folder)
    (folder / "own.py").write_text("raise SystemExit('code of a checkpoint was run')")


def _own_tokenizer_code(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    (folder / "own.py").write_text("raise SystemExit('code of a checkpoint was run')")


def _as_pickle(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    import torch
    from safetensors.torch import load_file

    weights, file = folder / "model.safetensors", folder / "pytorch_model.bin"
    torch.save(load_file(weights), file)
    weights.unlink()
    file.write_bytes(damage(file.read_bytes()))


def _only(folder: Path, **files: bytes) -> None:
    for file in folder.iterdir():
        file.unlink()
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _vocabulary(folder: Path, name: str, content: bytes) -> None:
    _drop_the_tokenizer(folder)
    (folder / name).write_bytes(content)


def _headless(folder: Path) -> None:
    from transformers import LlamaModel

    base: Any = LlamaModel.from_pretrained(folder)
    base.save_pretrained(folder)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config cut": (lambda f: (f / "config.json").write_text('{"model_type": '), "cannot be read as JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "config empty": (lambda f: (f / "config.json").write_text("{}"), "model_type"),
    "unknown architecture": (lambda f: (f / "config.json").write_text('{"model_type": "llamma"}'), "model"),
    "no tokenizer": (_drop_the_tokenizer, "no tokenizer"),
    "tokenizer cut": (lambda f: _truncate(f / "tokenizer.json"), "tokenizer.json"),
    "tokenizer of nothing": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "weights cut": (lambda f: _truncate(f / "model.safetensors"), "damaged"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
    "weights garbage": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x10" + bytes(7) + b"x" * 64),
        "damaged",
    ),
    "weights a pointer": (
        lambda f: (f / "model.safetensors").write_bytes(LFS),
        "is a Git LFS pointer.* run `git lfs pull` in",
    ),
    "tensor missing": (_drop_a_tensor, "lack 1 of the model's tensors"),
    "tensor of a wrong shape": (_shrink_a_tensor, "model"),
    "shard missing": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002.safetensors"}}'),
        "lacks 1 of the weight files",
    ),
    "code of its own": (_own_code, "needs code of its own repository, which is not run here"),
    "a tokenizer with code": (_own_tokenizer_code, "needs code of its own repository, which is not run here"),
    "a reward model": (_config(architectures=["LlamaForSequenceClassification"]), "does not continue text"),
    "an encoder": (_config(architectures=["BertForMaskedLM"]), "is a BertForMaskedLM, which does not continue text"),
    "no head": (_headless, "saved without the head of a language model"),
    "an encoder-decoder": (_config(model_type="t5"), "is a T5 model, not a causal language model"),
    "an invalid size": (_config(hidden_size=63), "config.json is invalid: .*not a multiple of"),
    "a wrong type": (_config(hidden_size="64"), "config.json is invalid: .*expected int, got str"),
    "bin cut": (lambda f: _as_pickle(f, lambda data: data[:-999]), "pytorch_model.bin: is damaged"),
    "bin empty": (lambda f: _as_pickle(f, lambda data: b""), "pytorch_model.bin: is empty"),
    "bin a pointer": (lambda f: _as_pickle(f, lambda data: LFS), "is a Git LFS pointer"),
    "bin with objects": (lambda f: _as_pickle(f, lambda data: pickle.dumps(print)), "convert it to safetensors"),
    "gguf beside": (lambda f: (f / "model.safetensors").rename(f / "q4.gguf"), "GGUF file.* --backend openai"),
    "gguf alone": (lambda f: _only(f, q4_dot_gguf=b"GGUF"), "GGUF file.* --backend openai"),
    "the maker's form": (lambda f: _only(f, consolidated_dot_00_dot_pth=b"x"), "in its maker's own form"),
    "checkpoints inside": (lambda f: _only(f, step_5__config_dot_json=b"{}"), "such as step_5"),
    "tokenizer a pointer": (lambda f: (f / "tokenizer.json").write_bytes(LFS), "tokenizer.json: is a Git LFS pointer"),
    "sentencepiece": (
        lambda f: _vocabulary(f, "tokenizer.model", b"\n\x0e\n\x05<unk>"),
        "tokenizer.model needs packages that are not installed: pip install sentencepiece protobuf",
    ),
    "sentencepiece of T5": (
        lambda f: _vocabulary(f, "spiece.model", b"\n\x0e\n\x05<unk>"),
        "spiece.model needs packages .*: pip install sentencepiece protobuf",
    ),
    "tiktoken": (lambda f: _vocabulary(f, "tokenizer.model", b"IQ== 0\n"), "pip install tiktoken"),
    "no merges": (lambda f: _vocabulary(f, "vocab.json", b"{}"), "vocab.json and no merges.txt"),
    "gptq": (_config(quantization_config={"quant_method": "gptq", "bits": 4}), "pip install optimum gptqmodel"),
    "bitsandbytes": (
        _config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "quantised by bitsandbytes.* pip install bitsandbytes",
    ),
}
NOT_HERE = ("sentencepiece", "google.protobuf", "tiktoken", "optimum", "gptqmodel", "bitsandbytes")


class TestBrokenCheckpoints:
    """Every broken checkpoint is one line that names what is wrong."""

    @pytest.mark.parametrize("name", BROKEN)
    def test_one_line(self, checkpoint_copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        damage, match = BROKEN[name]
        monkeypatch.setattr(forms, "installed", lambda module: module not in NOT_HERE and installed(module))
        damage(checkpoint_copy)
        one_line(lambda: make_backend("hf", str(checkpoint_copy), device="cpu"), match, ModelError)

    def test_weights_that_do_not_fit_the_configuration(self, checkpoint_copy: Path) -> None:
        _config(vocab_size=300)(checkpoint_copy)
        words = r"have the wrong shape for 2 of the model's tensors \(lm_head.weight: \[400, 64\] for \[300, 64\]\)"
        one_line(lambda: make_backend("hf", str(checkpoint_copy)), f"{words}; .*config.json")

    def test_tensors_that_the_model_does_not_use_are_noted(self, checkpoint_copy: Path) -> None:
        assert not any("does not use" in line for line in make_backend("hf", str(checkpoint_copy)).notes())
        _config(num_hidden_layers=1)(checkpoint_copy)
        notes = make_backend("hf", str(checkpoint_copy)).notes()
        assert any("9 tensors that the model does not use (model.layers.1." in line for line in notes), notes

    def test_a_context_without_room(self, checkpoint_copy: Path) -> None:
        _config(max_position_embeddings=0)(checkpoint_copy)
        one_line(lambda: make_backend("hf", str(checkpoint_copy)), r"config\.json gives a context of 0 tokens")

    def test_a_wrong_length_of_the_tokenizer(self, checkpoint_copy: Path) -> None:
        file = checkpoint_copy / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": "x"}))
        one_line(lambda: check_folder(checkpoint_copy), r"tokenizer_config\.json: model_max_length: expected a number")

    def test_an_unknown_model_with_code_of_its_own(self, checkpoint_copy: Path) -> None:
        _config(model_type="foo", auto_map={"AutoModelForCausalLM": "modeling_foo.Foo"})(checkpoint_copy)
        one_line(lambda: make_backend("hf", str(checkpoint_copy)), "needs code of its own repository")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("repetition_penalty", "x"), ("repetition_penalty", 0), ("repetition_penalty", -1.0),
            ("bad_words_ids", "x"), ("bad_words_ids", [5]), ("eos_token_id", "x"), ("eos_token_id", [1, None]),
            ("stop_strings", 5), ("stop_strings", ["a", 5]), ("no_repeat_ngram_size", "two"), ("min_length", -1),
            ("suppress_tokens", 5), ("forced_eos_token_id", "x"), ("exponential_decay_length_penalty", 1.5),
            ("guidance_scale", "x"), ("sequence_bias", 3),
        ],
    )  # fmt: skip
    def test_a_wrong_field_of_the_generation_config(self, checkpoint_copy: Path, field: str, value: object) -> None:
        file = checkpoint_copy / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
        one_line(lambda: check_folder(checkpoint_copy), rf"generation_config\.json: {field}: expected .*correct it")

    def test_a_generation_config_that_transformers_refuses(self, checkpoint_copy: Path) -> None:
        file = checkpoint_copy / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"num_return_sequences": 3}))
        one_line(lambda: make_backend("hf", str(checkpoint_copy)), r"its generation_config\.json is invalid: .*got 3")

    def test_shapes_by_the_header(self, checkpoint_copy: Path) -> None:
        file = checkpoint_copy / "model.safetensors"
        found = tensor_shapes(file)
        assert found["model.norm.weight"] == [json.loads((checkpoint_copy / "config.json").read_text())["hidden_size"]]
        whole = file.read_bytes()
        for damaged in (whole[:-1], whole + b"x", whole[:4]):
            file.write_bytes(damaged)
            one_line(lambda: tensor_shapes(file), "damaged", ModelError)

    @pytest.mark.parametrize("model", ["/nowhere/at/all", "./nothing", "a/b/c"])
    def test_missing_folders(self, model: str) -> None:
        one_line(lambda: make_backend("hf", model), "folder", ModelError)

    def test_a_file_is_no_folder(self, checkpoint_copy: Path) -> None:
        one_line(lambda: check_folder(checkpoint_copy / "config.json"), "is a file", ModelError)

    def test_quantised_weights_are_no_obstacle_to_vllm(self, checkpoint_copy: Path) -> None:
        _config(quantization_config={"quant_method": "awq"})(checkpoint_copy)
        check_folder(checkpoint_copy)

    def test_a_reward_model_may_be_trained(self, checkpoint_copy: Path) -> None:
        _config(architectures=["LlamaForSequenceClassification"])(checkpoint_copy)
        check_folder(checkpoint_copy, training=True)

    def test_a_gguf_file(self, tmp_path: Path) -> None:
        (tmp_path / "q4.gguf").write_bytes(b"GGUF")
        one_line(lambda: check_folder(tmp_path / "q4.gguf"), "q4.gguf: is a GGUF file", ModelError)

    def test_an_adapter_is_named(self, checkpoint_copy: Path) -> None:
        (checkpoint_copy / "config.json").rename(checkpoint_copy / "adapter_config.json")
        one_line(lambda: check_folder(checkpoint_copy), "adapter", ModelError)

    def test_unknown_hub_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        response: Any = SimpleNamespace(headers={}, request=None)

        def unknown(*args: Any, **kwargs: Any) -> None:
            raise RepositoryNotFoundError("404", response=response)

        def offline(*args: Any, **kwargs: Any) -> None:
            raise ConnectionError("no route")

        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr(HfApi, "model_info", unknown)
        one_line(lambda: make_backend("hf", "nobody/nothing", device="cpu"), "neither a folder nor a model", ModelError)
        monkeypatch.setattr(HfApi, "model_info", offline)
        one_line(lambda: make_backend("hf", "nobody/nothing", device="cpu"), "cannot be reached", ModelError)

    def test_a_mistyped_folder_is_not_looked_for_on_the_hub(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import HfApi

        monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: pytest.fail("the Hub is asked"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "checkpoints/sft-2").mkdir(parents=True)
        place = tmp_path / "checkpoints/sft-1"
        for name in ("checkpoints/sft-1", "./checkpoints/sft-1", str(place), "a/b/c", "../gone", "~/no-such-folder"):
            for check in (lambda: check_model("auto", name), lambda: load_tokenizer(name, None)):  # noqa: B023
                one_line(check, f"^{name}: no such folder.*[;?] give a checkpoint's folder", ModelError)
        one_line(
            lambda: check_model("hf", "checkpoints/sft-1"),
            f"{place}, did you mean 'sft-2'. give a checkpoint's folder",
            ModelError,
        )
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        one_line(
            lambda: check_model("hf", "nobody/nothing"), f"no such folder: {tmp_path}.*_OFFLINE is set", ModelError
        )
        one_line(lambda: check_model("hf", "sft-1"), f"no such folder: {tmp_path}/sft-1; it is not in", ModelError)

    def test_a_mistyped_folder_stops_a_stage_before_the_trainer_is_imported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for module in ("train_plugins.running.train_stage", "train_plugins.running.dry_run"):
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "sft.yaml").write_text("model: checkpoints/one\ndata: [{path: rows.jsonl}]\noutput: out\n")
        for more in ([], ["--dry-run"]):
            assert olmes(["train", "sft", "sft.yaml", *more]) == 2
            assert capsys.readouterr().err.startswith(f"olmes: checkpoints/one: no such folder: {tmp_path}/checkpoints")

    def test_what_the_cache_holds_is_no_mistyped_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        held = lambda name, file, revision: str(tmp_path) if (name, file) == ("org/m", "config.json") else None  # noqa: E731
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", held)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "org").mkdir()
        check_model("hf", "org/m")
        reason = "there is a folder org/ here: for the Hub's model of this name, run `hf download org/other` once"
        one_line(lambda: check_model("hf", "org/other"), reason, ModelError)

    def test_a_plan_names_models_that_an_offline_hub_lacks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.chdir(tmp_path)
        check_source("org/model", training=True, needed=False)
        one_line(lambda: check_source("org/model", training=True), "_OFFLINE is set", ModelError)
        (tmp_path / "org").mkdir()
        one_line(lambda: check_source("org/model", training=True, needed=False), "no such folder", ModelError)

    def test_a_name_that_may_be_the_hubs_is_left_to_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.chdir(tmp_path)
        check_model("hf", "org/model")
        check_model("hf", "gpt2")

    def test_offline_mode_and_revisions(self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import OfflineModeIsEnabled

        def offline(*args: Any, **kwargs: Any) -> None:
            raise OfflineModeIsEnabled("offline")

        monkeypatch.setattr(HfApi, "model_info", offline)
        for value in ("0", "1"):  # the client reads the variable once, at its import
            monkeypatch.setenv("HF_HUB_OFFLINE", value)
            one_line(lambda: make_backend("hf", "no-one/nothing", device="cpu"), "HF_HUB_OFFLINE is set", ModelError)
        model = str(tiny_checkpoint)
        one_line(
            lambda: make_backend("hf", model, device="cpu", revision="x"), "--revision x: .* is a folder", UsageError
        )

    @pytest.mark.parametrize(
        ("free", "words"), [(2, "another process is on it"), (23, "a larger device"), (None, "a larger device")]
    )
    def test_a_full_gpu_says_who_may_be_there(
        self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, words: str
    ) -> None:
        import torch
        from transformers import LlamaForCausalLM

        from olmes_suite.models.local.loading import load_model

        def memory(device: torch.device) -> tuple[int, int]:
            if free is None:
                raise RuntimeError("CUDA error: out of memory")
            return free * 1024**3, 24 * 1024**3

        def move(self: Any, device: torch.device) -> None:
            raise RuntimeError("CUDA error: out of memory")

        monkeypatch.setattr(LlamaForCausalLM, "to", move)
        monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
        cuda = torch.device("cuda", 0)
        one_line(
            lambda: load_model(str(tiny_checkpoint), None, torch.float32, cuda),
            f"does not fit on cuda:0.*{words}",
            ModelError,
        )

    def test_wrong_device_and_dtype(self, tiny_checkpoint: Path) -> None:
        one_line(lambda: make_backend("hf", str(tiny_checkpoint), device="gpu9"), "--device gpu9", UsageError)
        one_line(lambda: make_backend("hf", str(tiny_checkpoint), device="cuda:99"), "--device cuda:99", UsageError)
        one_line(
            lambda: make_backend("hf", str(tiny_checkpoint), device="cpu", dtype="int3"), "--dtype int3", UsageError
        )

    @pytest.mark.parametrize("device", ["meta", "hpu", "vulkan", "xla"])
    def test_devices_that_torch_knows_and_this_machine_has_not(self, tiny_checkpoint: Path, device: str) -> None:
        one_line(
            lambda: make_backend("hf", str(tiny_checkpoint), device=device),
            f"--device {device}: torch cannot",
            UsageError,
        )

    @pytest.mark.parametrize(("name", "own"), [("GPT2", {}), ("OPT", {}), ("GPTJ", {"rotary_dim": 8})])
    def test_a_context_beyond_the_positions(self, tmp_path: Path, name: str, own: dict[str, Any]) -> None:
        import transformers

        config: Any = getattr(transformers, f"{name}Config")(**{**SMALL, **own, "max_position_embeddings": 64})
        model: Any = transformers.AutoModelForCausalLM.from_config(config)
        model.save_pretrained(tmp_path)
        make_tiny_tokenizer().save_pretrained(tmp_path)
        whole: Any = make_backend("hf", str(tmp_path), device="cpu", max_length=64)
        (found,) = answers(whole, [generation(0, "x y z " * 40)])
        assert found.prompt_tokens == 40 and found.completion_tokens == 24
        one_line(
            lambda: make_backend("hf", str(tmp_path), device="cpu", max_length=65),
            "--max-length 65: .* has positions for 64 tokens only",
            UsageError,
        )
