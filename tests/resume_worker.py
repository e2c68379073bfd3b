"""One of two processes under FSDP 2: trains a stage whole, then stopped at a checkpoint and gone on with. Run by
test_train_kills.py.

    python -m torch.distributed.run --nproc_per_node 2 tests/resume_worker.py FOLDER OUT NAME
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from gradients import fsdp_on_cpu
from rlvr_fixture import Coin

from train_plugins import plan, recipe, rollouts, run, stages, watch

rollouts.Verifiers = Coin
KILL = {"sft": 4, "dpo": 2, "grpo": 6, "ppo": 6}
TYPES: list[str] = []
configuration = run.configuration
on_save = watch.Checkpoints.on_save


class Stopped(Exception):
    """Both processes stop here."""


def sharded(*args: Any) -> Any:
    """The trainer's configuration, with FSDP on."""
    made = configuration(*args)
    fsdp_on_cpu(made)
    return made


def stopping(at: int) -> Any:
    """`Checkpoints.on_save` that ends the stage after the checkpoint of the step `at`."""

    def saved(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        on_save(self, args, state, control, **rest)
        if state.global_step == at:
            raise Stopped

    return saved


def check_world(accelerator: Any) -> None:
    """Note how the processes work together."""
    TYPES.append(str(accelerator.distributed_type.value))


def train(folder: Path, name: str, output: str, go_on: bool = False) -> None:
    kind = name if name in ("sft", "dpo") else "rlvr"
    stage = stages.find(kind)
    wanted = recipe.load(folder / f"{name}.yaml", kind, stage.own, stages.names(), (), folder / output)
    run.run(stage, wanted, go_on)


def main() -> None:
    folder, out, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    run.configuration = sharded  # type: ignore[assignment]
    plan.check_world = check_world  # type: ignore[assignment]
    Accelerator.end_training = lambda self: None  # type: ignore[method-assign]  # more stages follow
    train(folder, name, f"{name}-fsdp-whole")
    stopped = False
    watch.Checkpoints.on_save = stopping(KILL[name])  # type: ignore[method-assign]
    try:
        train(folder, name, f"{name}-fsdp-broken")
    except Stopped:
        stopped = True
    watch.Checkpoints.on_save = on_save  # type: ignore[method-assign]
    train(folder, name, f"{name}-fsdp-broken", True)
    if plan.is_main():
        torch.save({"type": TYPES[-1], "stopped": stopped}, out)


if __name__ == "__main__":
    main()
