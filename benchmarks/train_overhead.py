"""What our stages cost over TRL's bare trainers: CPU seconds of a step, both in the same process, in turns.

    python benchmarks/train_overhead.py [--steps 30] [--rounds 5] [--width 512]

Bare: TRL's trainer over the same encoded rows with the same arguments, without our losses, watching, progress and
lineage. The best round of each counts; a ratio of 1.00 is no overhead. Ours is a cost of about a millisecond a step,
whatever the model: `--width 64` shows it on a model whose step takes 20.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/support"))

from models_fixture import make_tiny_model
from train_fixture import make_recipe, pair_rows, sft_rows, write_rows

from olmes_suite.runs.schema import NO_LINEAGE
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments
from train_plugins.stages import registry
from train_plugins.trainers.callbacks import Checkpoints, Progress

WARM = 5
"""Steps that are not counted."""


class Clock(TrainerCallback):
    """CPU seconds from the end of step WARM to the end of the last one."""

    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.end = time.process_time()
        if state.global_step == WARM:
            self.start = self.end


def bare(kind: str, recipe: Any, args: Any, rows: Any, tokenizer: Any) -> Any:
    """TRL's own trainer."""
    import trl

    if kind == "sft":
        args.max_length = None
        return trl.SFTTrainer(model=recipe.model, args=args, train_dataset=rows, processing_class=tokenizer)
    args.loss_type, args.beta = ["sigmoid_norm"], 5.0

    class Encoded(trl.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *rest: Any, **more: Any) -> Any:
            return dataset

    return Encoded(model=recipe.model, args=args, train_dataset=rows, processing_class=tokenizer)


def seconds(kind: str, folder: Path, steps: int, ours: bool) -> float:
    """CPU seconds of a step."""
    rows = folder / f"{kind}.jsonl"
    settings = {"max_steps": steps, "per_device_train_batch_size": 8, "gradient_checkpointing": False,
                "save_strategy": "no", "logging_steps": 5}  # fmt: skip
    recipe = make_recipe(kind, folder, rows, trainer=settings)
    stage = registry.find(kind)
    recipe, arguments = trainer_arguments(stage, recipe)
    ready = prepare(stage, recipe, arguments)
    args = configuration(stage.config(), arguments, recipe)
    make = stage.trainer if ours else lambda *parts: bare(kind, *parts)
    trainer = make(recipe, args, ready.encoded.rows, ready.tokenizer)
    clock = Clock()
    if ours:
        trainer.add_callback(Checkpoints(NO_LINEAGE, tokens=lambda: 0, saved=lambda *_: None, before=NO_LINEAGE))
        trainer.add_callback(Progress())
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    trainer.train()
    return (clock.end - clock.start) / (steps - WARM)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=512, help="hidden size of the model, of four layers")
    chosen = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        width = chosen.width
        make_tiny_model(folder / "tiny", hidden_size=width, intermediate_size=2 * width, num_hidden_layers=4)
        write_rows(folder / "sft.jsonl", sft_rows(8 * chosen.steps, draw.randint(0, 9)))
        write_rows(folder / "dpo.jsonl", pair_rows(8 * chosen.steps, draw.randint(0, 9)))
        for kind in ("sft", "dpo"):
            found: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(chosen.rounds):
                for ours in (False, True):
                    found[ours].append(seconds(kind, folder, chosen.steps, ours))
            trl, own = min(found[False]), min(found[True])
            print(f"{kind}: bare TRL {1000 * trl:.1f} ms a step, ours {1000 * own:.1f} ms, ratio {own / trl:.3f}")


if __name__ == "__main__":
    main()
