"""Two processes train RLVR as one does: losses, gradients and saved weights, data parallel and sharded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from processes import FSDP, work
from rounding import gradient_limit
from safetensors.torch import load_file
from train_fixture import need_trl

from train_plugins.rl.value_model import FOLDER

need_trl()
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("rlvr processes")]
LIMIT = gradient_limit(8 * 40)  # prompts and responses of a rollout of eight, at most 40 tokens each
SCORE = 10
"""A loss is the mean of gains as large as scores, which nearly cancel: it is as exact as they are."""
MOVED = 0.01
"""Adam divides a gradient by its size. Where rounding alone is left of one, a step may go either way; such weights end
farther apart than a step, and are few. Processes that do not exchange their gradients part in all weights."""
LOGGED = ("loss", "grad_norm", "loss/value", "rlvr/verified", "rlvr/kl", "rlvr/length", "rlvr/eos_rate",
          "rlvr/no_signal", "rlvr/drawn", "rlvr/verified/gsm8k", "rlvr/verified/string")  # fmt: skip


ALONE = ("ppo", "grpo", "rloo", "ppo+lora", "grpo+lora", "grpo+active")
PARALLEL = (*ALONE, "ppo+checkpointing")
SHARDED = ("ppo", "ppo+lora", "fsdp")


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, rlvr_checkpoints: Path) -> Callable[..., dict[str, Any]]:
    """What so many processes find in the trainings of these words; each launch is made once, for it takes long."""
    folder = Path(shutil.copytree(rlvr_checkpoints, tmp_path_factory.mktemp("processes"), dirs_exist_ok=True))

    @cache
    def launch(processes: int, *words: str) -> dict[str, Any]:
        sharding = FSDP if "fsdp" in words else {}
        return work("rlvr_worker.py", folder, processes, *words, ACCELERATE_USE_CPU="true", **sharding)

    return launch


@pytest.mark.parametrize(
    ("words", "kind"),
    [*((word, "MULTI_CPU") for word in PARALLEL), ("ppo", "FSDP"), ("ppo+lora", "FSDP")],
)
def test_two_processes_are_one(launched: Callable[..., dict[str, Any]], words: str, kind: str) -> None:
    algorithm, *more = words.split("+")
    adapter = "lora" in more
    one = launched(1, *ALONE)["+".join([algorithm, *(word for word in more if word != "checkpointing")])]
    two = launched(2, *(SHARDED if kind == "FSDP" else PARALLEL))[words]
    assert two["type"] == kind
    assert len(one["history"]) == 4
    for mine, other in zip(two["history"], one["history"], strict=True):
        for name in [name for name in LOGGED if name in other]:
            size = SCORE if name == "loss" else 0.1
            assert mine[name] == pytest.approx(other[name], rel=1e-4, abs=size * LIMIT), name
    for mine, other in zip(two["gradients"], one["gradients"], strict=True):
        assert mine.keys() == other.keys()
        for inside in (False, True) if algorithm == "ppo" else (False,):
            names = [name for name in other if (FOLDER in name) == inside]
            largest = max(float(other[name].abs().max()) for name in names)
            assert largest > 0
            assert max(float((mine[name] - other[name]).abs().max()) for name in names) / largest < LIMIT
    for part in ("", "value_model") if algorithm == "ppo" else ("",):
        file = "adapter_model.safetensors" if adapter and not part else "model.safetensors"
        ends = [load_file(Path(found["saved"]) / part / file) for found in (two, one)]
        assert ends[0].keys() == ends[1].keys()
        far = sum(int(((ends[0][name] - ends[1][name]).abs() > one["rate"]).sum()) for name in ends[1])
        assert far < MOVED * sum(value.numel() for value in ends[1].values())
