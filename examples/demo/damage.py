"""Copy a checkpoint and damage the copy: noise on the weight matrices of some layers.

    python examples/demo/damage.py demo/smollm2 demo/smollm2-damaged [--layers 10-14] [--noise 0.4] [--seed 0]

The copy loads like any checkpoint and still writes words; what it has lost shows in its scores.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

LAYER = re.compile(r"\.layers\.(\d+)\.")


def main() -> None:
    """Read the command line; write the damaged copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--layers", default="10-14", help="first and last layer, from 0")
    parser.add_argument("--noise", type=float, default=0.4, help="in standard deviations of each matrix")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    first, last = (int(number) for number in chosen.layers.split("-"))
    count = damage(chosen.checkpoint, chosen.copy, range(first, last + 1), chosen.noise, chosen.seed)
    print(f"{chosen.copy}: noise on {count} matrices in layers {first} to {last}", flush=True)


def damage(checkpoint: Path, copy: Path, layers: range, noise: float, seed: int) -> int:
    """Write the copy with normal noise on the matrices of `layers`; returns how many there are.

    Exits where the checkpoint has no weights in one safetensors file, or none in these layers.
    """
    import torch
    from safetensors.torch import load_file, save_file

    weights = checkpoint / "model.safetensors"
    if not weights.is_file():
        raise SystemExit(f"damage: {weights}: no such file")
    tensors = load_file(weights)
    names = [name for name in sorted(tensors) if _layer(name) in layers and tensors[name].ndim == 2]
    if not names:
        raise SystemExit(f"damage: {weights} has no matrices in the layers {layers.start} to {layers.stop - 1}")
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        tensor = tensors[name]
        drawn = torch.randn(tensor.shape, generator=generator) * (noise * tensor.float().std())
        tensors[name] = (tensor.float() + drawn).to(tensor.dtype)
    shutil.copytree(checkpoint, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(weights.name))
    # Under its name at once: an interrupted copy must not pass for a finished one.
    unfinished = copy / f"{weights.name}.unfinished"
    save_file(tensors, unfinished, metadata={"format": "pt"})
    unfinished.rename(copy / weights.name)
    return len(names)


def _layer(name: str) -> int:
    found = LAYER.search(name)
    return int(found[1]) if found else -1


if __name__ == "__main__":
    main()
