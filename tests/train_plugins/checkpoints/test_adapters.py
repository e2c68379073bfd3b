"""`python -m train_plugins.checkpoints.adapters`: a whole model, silently, or one line that says why not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment, need
from models_fixture import make_tiny_model

from train_plugins.checkpoints import adapters

need("peft", "adapters need PEFT")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter without a tokenizer of its own, in `adapter`, of the model in `base`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = make_tiny_model(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.long
def test_a_whole_model_is_written_without_a_word(adapter: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "train_plugins.checkpoints.adapters", str(adapter), str(tmp_path / "merged")],
        env=environment(tmp_path), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = {file.name for file in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names, "the base model's tokenizer"
    assert not any(path.name.endswith(".merging") for path in tmp_path.iterdir())


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Path, status: int = 2) -> str:
    assert adapters.main([str(one) for one in arguments]) == status
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1 and printed.err.startswith("olmes: ")
    return printed.err


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("no folder", "no such folder"), ("a whole model", "holds no adapter (adapter_config.json is missing)"),
        ("no weights", "lacks the adapter's weights"), ("cut weights", "adapter_model.safetensors"),
        ("no base", "base model cannot be loaded"), ("nameless", "names no base model"),
        ("not JSON", "adapter_config.json"), ("other shapes", "cannot be merged"), ("a full folder", "is not empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_one_line(
    adapter: Path, tmp_path: Path, damage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = adapter, tmp_path / "merged"
    config, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    if damage == "no folder":
        given = tmp_path / "none"
    elif damage == "a whole model":
        given = tmp_path / "base"
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "no base":
        shutil.rmtree(tmp_path / "base")
    elif damage == "nameless":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": None}))
    elif damage == "not JSON":
        config.write_text("{")
    elif damage == "other shapes":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 4}))
    else:
        out = tmp_path / "base"
    before = sorted(path.name for path in (tmp_path / "base").glob("*"))
    assert said in refusal(capsys, given, out)
    assert not (tmp_path / "merged").exists()
    assert sorted(path.name for path in (tmp_path / "base").glob("*")) == before


def test_arguments_that_are_missing_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        adapters.main([])
    assert ended.value.code == 2
    assert "the following arguments are required: adapter, folder" in capsys.readouterr().err
