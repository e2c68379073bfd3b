"""Two processes train RLVR as one does: losses, gradients and saved weights, data parallel and sharded."""

from __future__ import annotations

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
pytestmark = pytest.mark.long
LIMIT = gradient_limit(8 * 40)  # prompts and responses of a rollout of eight, at most 40 tokens each

LOGGED = ("loss", "grad_norm", "loss/value", "rlvr/verified", "rlvr/kl", "rlvr/length", "rlvr/eos_rate",
          "rlvr/no_signal", "rlvr/verified/gsm8k", "rlvr/verified/string")  # fmt: skip


@cache
def result(folder: Path, processes: int, *words: str) -> dict[str, Any]:
    """What so many processes have found."""
    sharding = FSDP if "fsdp" in words else {}
    return work("rlvr_worker.py", folder, processes, *words, ACCELERATE_USE_CPU="true", **sharding)


@pytest.mark.parametrize(
    ("words", "kind"),
    [(("ppo",), "MULTI_CPU"), (("ppo", "checkpointing"), "MULTI_CPU"), (("ppo", "fsdp"), "FSDP"),
     (("grpo",), "MULTI_CPU"), (("rloo",), "MULTI_CPU"), (("ppo", "lora"), "MULTI_CPU"),
     (("ppo", "lora", "fsdp"), "FSDP"), (("grpo", "lora"), "MULTI_CPU")],
)  # fmt: skip
def test_two_processes_are_one(rlvr_checkpoints: Path, words: tuple[str, ...], kind: str) -> None:
    adapter = "lora" in words
    one, two = (
        result(rlvr_checkpoints, 1, words[0], *(["lora"] if adapter else [])),
        result(rlvr_checkpoints, 2, *words),
    )
    assert two["type"] == kind
    assert len(one["history"]) == 4
    for mine, other in zip(two["history"], one["history"], strict=True):
        for name in [name for name in LOGGED if name in other]:
            assert mine[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), name
    for mine, other in zip(two["gradients"], one["gradients"], strict=True):
        assert mine.keys() == other.keys()
        for inside in (False, True) if words[0] == "ppo" else (False,):
            names = [name for name in other if (FOLDER in name) == inside]
            largest = max(float(other[name].abs().max()) for name in names)
            assert largest > 0
            assert max(float((mine[name] - other[name]).abs().max()) for name in names) / largest < LIMIT
    for part in ("", "value_model") if words[0] == "ppo" else ("",):
        file = "adapter_model.safetensors" if adapter and not part else "model.safetensors"
        ends = [load_file(Path(found["saved"]) / part / file) for found in (two, one)]
        assert ends[0].keys() == ends[1].keys()
        assert all(bool((ends[0][name] - ends[1][name]).abs().max() < 1e-4) for name in ends[1])
