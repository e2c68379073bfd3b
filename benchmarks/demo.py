"""The demo over seeds, and a control: the same last stage with a coin in place of the verifier must not gain.

    python benchmarks/demo.py [--seeds 0 1 2] [--out demo-seeds] [--no-control] [--thinking]

Prints a markdown table: exact match on 500 held-out questions after each stage, the stage's paired difference, and its
p-value (Holm over the seed's rows). One seed takes about six minutes on two cores; what is done is not repeated.
`--thinking` runs the demo that thinks, without a control.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONTROL = "olmes_coin"
COIN = '''"""A verifier that is a coin: what a stage gains from it is no skill."""
import hashlib


def coin(response, truth, row):
    return float(hashlib.sha256(response.encode()).digest()[0] % 2)
'''


def call(*command: str, **extra: str) -> None:
    """Run a command; its end is ours if it fails."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | extra
    if subprocess.run([sys.executable, *command], cwd=ROOT, env=env).returncode:
        raise SystemExit(f"{' '.join(command)} failed")


def control(out: Path, seed: int) -> list[dict[str, Any]]:
    """RLVR from the seed's DPO checkpoint with a coin as verifier; an entry point of a package made on the spot."""
    import yaml

    package = out / "coin"
    info = package / f"{CONTROL}-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (package / f"{CONTROL}.py").write_text(COIN)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {CONTROL}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[olmes.verifiers]\ncoin = {CONTROL}:coin\n")
    recipe = yaml.safe_load((ROOT / "examples/demo/pipeline.yaml").read_text())["stages"][2]["recipe"]
    recipe |= {"model": f"{out}/checkpoints/dpo", "data": [{"path": f"{out}/data/prompts.jsonl"}]}
    recipe["eval"]["data_dir"] = [f"{out}/data"]
    recipe["rlvr"]["verifiers"] = {"gsm8k": "coin"}
    stage = {"name": "coin", "kind": "rlvr", "recipe": recipe}
    file = out / "control.yaml"
    settings = {"runs": f"{out}/control-runs", "output": f"{out}/control", "seed": seed, "stages": [stage]}
    file.write_text(yaml.safe_dump(settings))
    paths = os.pathsep.join([str(package.resolve()), str(ROOT), os.environ.get("PYTHONPATH", "")])
    call("-m", "olmes_suite.cli.main", "train", "run", str(file), PYTHONPATH=paths)
    return gains(out / "control-runs")


def gains(runs: Path) -> list[dict[str, Any]]:
    """The rows of `gains.json`."""
    found: list[dict[str, Any]] = json.loads((runs / "gains.json").read_text())["gains"]
    return found


def line(seed: int, row: dict[str, Any]) -> str:
    """A row of the table, in points."""
    low, high = row["ci95"]
    return (
        f"| {seed} | {row['stage']} | {100 * row['before']:.1f} | {100 * row['after']:.1f} | {100 * row['delta']:+.1f} "
        f"| {100 * low:+.1f} … {100 * high:+.1f} | {row['p_holm']:.2g} |"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("demo-seeds"))
    parser.add_argument("--no-control", action="store_true")
    parser.add_argument("--thinking", action="store_true")
    chosen = parser.parse_args()
    variant = ["--thinking"] if chosen.thinking else []
    lines = []
    for seed in chosen.seeds:
        out = (chosen.out / str(seed)).resolve()
        call("examples/demo/run.py", "--seed", str(seed), "--out", str(out), *variant)
        rows = gains(out / "runs")
        if not (chosen.no_control or chosen.thinking):
            rows = [*rows, *(row for row in control(out, seed) if row["stage"] == "coin")]
        lines += [line(seed, row) for row in rows]
    print(
        "| seed | stage | before | after | Δ | 95 % interval | p |", "|---|---|---|---|---|---|---|", *lines, sep="\n"
    )


if __name__ == "__main__":
    main()
