"""The whole job on the spot, on a CPU: a small model is made, trained in three stages, and each gain is measured.

    python examples/demo/run.py [--seed 0] [--out demo] [--short] [--thinking]

`--short` takes a few steps of each stage, to show that all works; its gains mean nothing. `--thinking` runs the variant
in which the model learns to think first (thinking.yaml): SFT, then GRPO with active sampling and two rewards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SHORT = (
    "stages.0.recipe.trainer.max_steps=4", "stages.0.recipe.trainer.per_device_train_batch_size=8",
    "stages.0.recipe.batch_size=8", "stages.1.recipe.trainer.max_steps=2",
    "stages.1.recipe.trainer.per_device_train_batch_size=2", "stages.2.recipe.trainer.max_steps=1",
    "stages.2.recipe.trainer.per_device_train_batch_size=16",
)  # fmt: skip

THINKING_SHORT = (
    "stages.0.recipe.trainer.max_steps=60", "stages.1.recipe.trainer.max_steps=1",
    "stages.1.recipe.trainer.per_device_train_batch_size=16", "stages.1.recipe.rlvr.active_sampling=false",
)  # fmt: skip


def call(*command: str) -> None:
    """Run a command and stop the demo where it fails."""
    print(f"== python {' '.join(command)}", flush=True)
    status = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if status:
        raise SystemExit(f"demo: {' '.join(command[:4])} ended with status {status}")


def settings(out: Path, seed: int, short: bool) -> list[str]:
    """What differs from the pipeline's file, as arguments of `olmes train run`."""
    found = [f"seed={seed}", f"runs={out}/runs", f"output={out}/checkpoints"]
    found += [f"stages.0.recipe.model={out}/base", f"stages.0.recipe.data.0.path={out}/data/sft.jsonl"]
    pairs, prompts = f"{out}/data/pairs", f"{out}/data/prompts.jsonl"
    made = ("prepare.makes.0", "recipe.data.0.path")
    found += [f"stages.1.{key}={pairs}/data.parquet" for key in made]
    found += [f"stages.1.prepare.command.8={pairs}", f"stages.1.prepare.command.14=prompts.0.path={prompts}"]
    found += [f"stages.2.recipe.data.0.path={prompts}"]
    found += [f"stages.{number}.recipe.eval.data_dir.0={out}/data" for number in range(3)]
    if short:
        written = [sys.executable, "examples/demo/pairs.py", prompts, f"{pairs}.jsonl"]  # this model cannot add yet
        found += [*SHORT, f"stages.1.prepare.command={json.dumps(written)}"]
        found += [f"stages.1.{key}={pairs}.jsonl" for key in made]
        found += [f"stages.{number}.recipe.eval.limit=4" for number in range(3)]
    return [part for change in found for part in ("--set", change)]


def thinking_settings(out: Path, seed: int, short: bool) -> list[str]:
    """The same for thinking.yaml."""
    found = [f"seed={seed}", f"runs={out}/runs", f"output={out}/checkpoints"]
    found += [f"stages.0.recipe.model={out}/base", f"stages.0.recipe.data.0.path={out}/data/sft.jsonl"]
    found += [f"stages.1.recipe.data.0.path={out}/data/prompts.jsonl"]
    found += [f"stages.{number}.recipe.eval.data_dir.0={out}/data" for number in range(2)]
    if short:
        found += [*THINKING_SHORT, *(f"stages.{number}.recipe.eval.limit=4" for number in range(2))]
    return [part for change in found for part in ("--set", change)]


def main() -> None:
    """Make what the pipeline starts from, unless it is there; run the pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder; default: demo, or demo-thinking")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--thinking", action="store_true")
    chosen = parser.parse_args()
    chosen.out = chosen.out or Path("demo-thinking" if chosen.thinking else "demo")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    if not (chosen.out / "base" / "model.safetensors").is_file():
        size = ["--rows", "400", "--held-out", "20"] if chosen.short else []
        size += ["--thinking"] if chosen.thinking else []
        call("examples/demo/make.py", str(chosen.out), "--seed", str(chosen.seed), *size)
    file, changes = ("thinking.yaml", thinking_settings) if chosen.thinking else ("pipeline.yaml", settings)
    pipeline = ["train", "run", f"examples/demo/{file}"]
    call("-m", "olmes_suite.cli.main", *pipeline, *changes(chosen.out, chosen.seed, chosen.short))
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes. Scores, prompts and answers of every stage are in")
    print(f"{chosen.out / 'runs' / 'leaderboard.html'}: open it in a browser, it needs no server.")


if __name__ == "__main__":
    main()
