"""One process of several: trains small stages and writes losses and gradients. Run by test_train_processes.py.

python -m torch.distributed.run --nproc_per_node 2 tests/train_worker.py FOLDER OUT [fsdp]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from gradients import Keep, fsdp_on_cpu
from train_fixture import make_recipe

from train_plugins import distributed
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments
from train_plugins.stages import registry

KINDS: dict[str, dict[str, Any]] = {"sft": {}, "dpo": {}, "rm": {"rm": {"fresh_head": True}}}


def train(kind: str, folder: Path, sharded: bool) -> dict[str, Any]:
    """Two steps of four rows; their losses and gradients, and how the processes worked together."""
    world = distributed.world_size()
    settings = {"per_device_train_batch_size": 4 // world, "max_steps": 2, "max_grad_norm": 0.0,
                "gradient_checkpointing": False}  # fmt: skip
    rows = folder / ("sft.jsonl" if kind == "sft" else "pairs.jsonl")
    own = folder / f"recipe-{distributed.is_main()}-{world}-{sharded}"
    own.mkdir(exist_ok=True)
    keys = {"model": str(folder / "tiny"), "output": str(folder / f"out-{kind}-{world}-{sharded}"), **KINDS[kind]}
    wanted = make_recipe(kind, own, rows, batch_size=4, trainer=settings, **keys)
    stage = registry.find(kind)
    wanted, arguments = trainer_arguments(stage, wanted)
    ready = prepare(stage, wanted, arguments)
    args = configuration(stage.config(), arguments, wanted)
    if sharded:
        fsdp_on_cpu(args)
    trainer = stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)
    distributed.check_world(trainer.accelerator)
    keep = Keep()
    trainer.add_callback(keep)
    trainer.train()
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "gradients": keep.steps,
        "type": str(trainer.accelerator.distributed_type.value),
    }


def main() -> None:
    folder, out, sharded = Path(sys.argv[1]), Path(sys.argv[2]), "fsdp" in sys.argv[3:]
    found = {kind: train(kind, folder, sharded) for kind in KINDS}
    if distributed.is_main():
        torch.save(found, out)


if __name__ == "__main__":
    main()
