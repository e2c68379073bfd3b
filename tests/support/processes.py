"""Runs a script in several processes by torchrun, on processors alone, and reads what it wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from helpers import ROOT, environment

from train_plugins.running import launch

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What `accelerate launch` makes of train_plugins/launchers/fsdp.yaml."""


def work(script: str, folder: Path, processes: int, *words: str, **extra: str) -> dict[str, Any]:
    """What `<script> FOLDER OUT WORDS…` writes to OUT, in so many processes; `extra` joins the environment."""
    import torch

    out = folder / f"found-{processes}-{'-'.join(words)}.pt"
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port",
                  str(launch._free_port())]  # fmt: skip
    env = environment(folder / f"{processes}{words}", **extra)
    env |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}", "OMP_NUM_THREADS": "1"}
    command = [*start, str(ROOT / "tests/support" / script), str(folder), str(out), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = torch.load(out, weights_only=False)
    return found
