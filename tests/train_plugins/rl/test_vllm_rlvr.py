"""`olmes train rlvr` on rollouts of a colocated vLLM, on the processor: the engine has the learner's weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, environment, olmes, one_line_error, write_gsm8k
from rlvr_fixture import history, make_models, make_rlvr, prompt_rows
from train_fixture import weights

from train_plugins.checkpoints import lineage

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm makes an environment that has it")
pytestmark = pytest.mark.vllm

DIFFERENCE = "sampling/sampling_logp_difference/max"
"""TRL's: the largest difference, in a rollout, of a sampled token's log-probability by vLLM and by the learner."""
SYNCED, APART = 5e-5, 1e-3
TRAINER = {"learning_rate": 5e-3, "lr_scheduler_type": "constant", "vllm_gpu_memory_utilization": 0.1}
"""Weights move far in a step, so that an engine with old ones shows."""


@pytest.fixture
def wide_heads_folder(tmp_path: Path) -> Path:
    """A folder with the models; vLLM's attention on a processor wants heads of 32 numbers."""
    make_models(tmp_path, head_dim=32, max_length=1024)
    return tmp_path


def train(folder: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    """The stage of the recipe in the folder, in a process of its own."""
    return olmes("train", "rlvr", folder / "rlvr.yaml", *more, tmp=folder)


def write_recipe(folder: Path, algorithm: str, steps: int, **keys: Any) -> None:
    trainer = TRAINER | {"max_steps": steps} | keys.pop("trainer", {})
    own = {"rollouts": "vllm_colocate"}
    make_rlvr(folder, algorithm, prompt_rows(24), trainer=trainer, rlvr=own, **keys)


def differences(out: Path) -> list[float]:
    """One of each rollout."""
    return [entry[DIFFERENCE] for entry in history(out) if DIFFERENCE in entry]


def test_grpo_to_an_evaluated_checkpoint(wide_heads_folder: Path) -> None:
    mirror = write_gsm8k(wide_heads_folder / "mirror", 2)
    wanted = {"tasks": ["gsm8k"], "limit": 2, "data_dir": [str(mirror)], "runs": str(wide_heads_folder / "runs")}
    write_recipe(wide_heads_folder, "grpo", 4, eval=wanted, trainer={"save_steps": 2})
    done = train(wide_heads_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(wide_heads_folder / "out"), "standard output is for the checkpoint's name"
    out = wide_heads_folder / "out"
    found = differences(out)
    assert len(found) == 4
    assert max(found) < SYNCED, found
    assert any(not (old == new).all() for old, new in zip(*each_weight(wide_heads_folder / "tiny", out), strict=True))
    assert [path.name for path in lineage.whole_checkpoints(out)] == ["checkpoint-2", "checkpoint-4"]
    assert lineage.read(out).stage == "rlvr"
    assert lineage.read(out).tokens > 0
    (evaluated,) = map(json.loads, (out / "evaluations.jsonl").read_text().splitlines())
    assert evaluated["error"] is None
    assert 0 <= evaluated["average"] <= 1


def each_weight(*folders: Path) -> list[list[Any]]:
    """The tensors of each checkpoint, in the same order."""
    found = [weights(folder) for folder in folders]
    return [[one[name] for name in sorted(found[0])] for one in found]


def test_ppo_and_the_same_weights_after_a_kill_within_a_cycle(wide_heads_folder: Path) -> None:
    write_recipe(wide_heads_folder, "ppo", 6, trainer={"num_iterations": 2, "save_steps": 3})
    done = train(wide_heads_folder)
    assert done.returncode == 0, done.stderr
    out, broken = wide_heads_folder / "out", wide_heads_folder / "broken"
    found = differences(out)
    assert len(found) == 3
    assert max(found) < SYNCED, found
    assert (out / "value_model/model.safetensors").is_file()
    assert not any(name.startswith("value_model") for name in weights(out))
    shutil.copytree(out / "checkpoint-3", broken / "checkpoint-3")
    assert train(wide_heads_folder, "--output", broken, "--resume").returncode == 0
    assert all((one == other).all() for one, other in zip(*each_weight(out, broken), strict=True))


def test_the_engine_has_an_adapter_too(wide_heads_folder: Path) -> None:
    write_recipe(wide_heads_folder, "grpo", 4, lora={"r": 4, "alpha": 64}, trainer={"learning_rate": 2e-2})
    done = train(wide_heads_folder)
    assert done.returncode == 0, done.stderr
    found = differences(wide_heads_folder / "out")
    assert len(found) == 4
    assert max(found) < SYNCED, found
    moved = [
        float((old - new).abs().max())
        for old, new in zip(*each_weight(wide_heads_folder / "tiny", wide_heads_folder / "out"), strict=True)
    ]
    assert max(moved) > APART, "weights this far apart would show"


def test_an_engine_with_old_weights_is_seen(wide_heads_folder: Path) -> None:
    write_recipe(wide_heads_folder, "grpo", 4)
    command = [
        sys.executable,
        ROOT / "tests/support/stale_engine.py",
        "2",
        "train",
        "rlvr",
        wide_heads_folder / "rlvr.yaml",
    ]
    done = subprocess.run(
        list(map(str, command)), env=environment(wide_heads_folder), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = differences(wide_heads_folder / "out")
    assert max(found[:2]) < SYNCED, found
    assert min(found[2:]) > APART, found


def test_an_engine_that_cannot_start_is_one_line(wide_heads_folder: Path) -> None:
    write_recipe(wide_heads_folder, "grpo", 4, trainer={"vllm_gpu_memory_utilization": 0.999})
    told = one_line_error(train(wide_heads_folder))
    assert "another program holds the device's memory" in told
    assert "trainer.vllm_gpu_memory_utilization" in told
    assert not any((wide_heads_folder / "out").glob("*"))
