"""Merging whole checkpoints of one architecture into one, tensor by tensor, with the lineage of all of them."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import ModelError, StorageError, UsageError, one_line
from olmes_suite.files import read_json, storage, write_json
from olmes_suite.models.local.checkpoint import check_folder, is_hub_id, tensor_shapes, tokenizer_files
from olmes_suite.runs.contamination import NOTHING, joined, known
from olmes_suite.runs.ledger import lineage_of
from olmes_suite.runs.schema import Ancestor, Lineage
from train_plugins.checkpoints import blending, lineage

if TYPE_CHECKING:
    from torch import Tensor

STAGE = "merge"
"""Stage in the lineage of a merged checkpoint."""
PART = ".merging"
"""Folder in the output until the merge is done."""
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
"""File that makes a folder a checkpoint; it is moved to the output last, after the lineage."""
SHARD = 5 * 10**9
"""Bytes of a file of weights, at most, unless a tensor is larger."""
UNLIKE = frozenset(
    {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "pad_token_id", "bos_token_id",
     "eos_token_id", "attn_implementation", "_attn_implementation"}
)  # fmt: skip
"""Keys of config.json that may differ: they change neither the network nor its tensors."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint to merge."""

    folder: Path
    weight: float
    """Share in the result; all shares sum to 1."""
    tensors: Mapping[str, tuple[Path, list[int]]]
    """File and shape of each tensor."""
    lineage: Lineage


def merge(
    folders: Sequence[str], out: Path, *, weights: Sequence[float] = (), method: blending.Method = "linear"
) -> list[str]:
    """Merge checkpoints into the folder `out` and return notes. Without `weights` all count the same.

    Tokenizer, chat template and generation settings are those of the first one, and so are the types of the numbers.
    Raises UsageError or ModelError for checkpoints that do not fit together, before anything is written.
    """
    started = time.perf_counter()
    shares = normalised(folders, weights, method)
    _check_output(out, folders)
    sources = [read(folder, share) for folder, share in zip(folders, shares, strict=True)]
    for other in sources[1:]:
        _check_alike(sources[0], other)
    notes = [note for other in sources[1:] for note in _notes(sources[0], other)]
    part = out / PART
    with storage(out), _removed_on_error(part) as moved:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_weights(sources, part, method)
        _copy_rest(sources[0].folder, part)
        lineage.write(part, describe(sources, out, method), 0, 0, time.perf_counter() - started)
        for file in sorted(part.iterdir(), key=lambda path: path.name == CONFIG):
            moved.append(file.replace(out / file.name))
        part.rmdir()
    return notes


@contextmanager
def _removed_on_error(part: Path) -> Iterator[list[Path]]:
    """On an error, remove the folder `part`, the files of the list that it yields, and the output if it is empty."""
    moved: list[Path] = []
    try:
        yield moved
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for file in moved:
            file.unlink(missing_ok=True)
        with suppress(OSError):
            part.parent.rmdir()
        raise


def normalised(folders: Sequence[str], weights: Sequence[float], method: blending.Method) -> list[float]:
    """Return the shares of the checkpoints, which sum to 1. Raises UsageError for weights that do not fit."""
    if len(folders) < 2:
        raise UsageError("merge: name two checkpoints or more")
    if method == "slerp" and len(folders) != 2:
        raise UsageError(f"merge: slerp joins two checkpoints, not {len(folders)}; use --method linear")
    if weights and len(weights) != len(folders):
        raise UsageError(f"merge: {len(weights)} weights for {len(folders)} checkpoints; give --weight once for each")
    given = list(weights) or [1.0] * len(folders)
    for weight in given:
        if not (math.isfinite(weight) and weight >= 0):
            raise UsageError(f"merge: --weight must be 0 or above, not {weight}")
    total = math.fsum(given)
    if total <= 0:
        raise UsageError("merge: all weights are 0")
    return [weight / total for weight in given]


def _check_output(out: Path, folders: Sequence[str]) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"merge: --out {out} is a file, not a folder")
    if out.is_dir() and any(path.name != PART for path in out.iterdir()):
        merged = any(out.samefile(one) for one in folders if Path(one).exists())
        why = "is one of the checkpoints to merge" if merged else "is not empty"
        if (out / PART).is_dir():
            raise UsageError(f"merge: --out {out} holds a merge that was killed; remove it, or name a new folder")
        raise UsageError(f"merge: --out {out} {why}; name a new folder")


def read(name: str, share: float) -> Source:
    """Return a checkpoint with the places of its tensors. Raises ModelError for one that is not whole."""
    if is_hub_id(name):
        raise ModelError(f"merge: {name} is no folder; download it first (hf download {name} --local-dir DIR)")
    folder = Path(name).expanduser()
    check_folder(folder, training=True)
    if read_json(folder / CONFIG).get("quantization_config"):
        raise ModelError(
            f"merge: {folder} is quantised, and the numbers in its files have no mean; dequantise it first"
        )
    files = _weight_files(folder)
    if not files:
        raise ModelError(f"merge: {folder} has no safetensors weights; save it again with save_pretrained")
    tensors = {key: (file, shape) for file in files for key, shape in tensor_shapes(file).items()}
    return Source(folder, share, tensors, lineage_of(str(folder), None))


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers reads: others, such as `consolidated.safetensors`, hold the weights again."""
    if (single := folder / "model.safetensors").is_file():
        return [single]
    index = folder / INDEX
    names = read_json(index)["weight_map"].values() if index.is_file() else ()
    return sorted({folder / str(name) for name in names})


def _check_alike(first: Source, other: Source) -> None:
    """Raise UsageError unless both checkpoints have the same network and read the same token ids."""
    where = f"merge: {other.folder} does not fit {first.folder}:"
    configs = [read_json(one.folder / CONFIG) for one in (first, other)]
    for key in sorted({*configs[0], *configs[1]} - UNLIKE, key=lambda name: (name != "model_type", name)):
        mine, its = (config.get(key) for config in configs)
        if mine != its:
            raise UsageError(f"{where} {key} is {_short(its)} in its config.json, and {_short(mine)} in the other's")
    missing = sorted(first.tensors.keys() ^ other.tensors.keys())
    if missing:
        owner = first if missing[0] in first.tensors else other
        raise UsageError(f"{where} {len(missing)} tensors are in one only, {missing[0]} is in {owner.folder}")
    for name, (_, shape) in first.tensors.items():
        if shape != other.tensors[name][1]:
            raise UsageError(f"{where} {name} has shape {other.tensors[name][1]}, and {shape} in the other")
    if _vocabulary(first.folder) != _vocabulary(other.folder):
        raise UsageError(f"{where} their tokenizers have other tokens or ids")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _vocabulary(folder: Path) -> Any:
    """Return the tokens with their ids, as far as tokenizer.json holds them; else the bytes of the vocabulary."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return {one.name: one.read_bytes() for one in tokenizer_files(folder) if "config" not in one.name}
    content = read_json(file)
    added = {token.get("content"): token.get("id") for token in content.get("added_tokens") or ()}
    return (content.get("model") or {}).get("vocab"), added


def _notes(first: Source, other: Source) -> list[str]:
    """Return what differs without harm: the templates, and the checkpoints that both descend from."""
    found = []
    templates = [_template(one.folder) for one in (first, other)]
    if templates[0] != templates[1]:
        found.append(f"note: {other.folder} has another chat template; that of {first.folder} is kept")
    roots = [one.lineage.root or one.lineage.parent or str(one.folder) for one in (first, other)]
    if roots[0] != roots[1] and (first.lineage.is_known or other.lineage.is_known):
        found.append(f"note: {other.folder} descends from {roots[1]}, {first.folder} from {roots[0]}; looks at the "
                     "unseen suite are counted under the latter")  # fmt: skip
    return found


def _template(folder: Path) -> Any:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    return read_json(config).get("chat_template") if config.is_file() else None


def write_weights(sources: Sequence[Source], out: Path, method: blending.Method, limit: int = SHARD) -> None:
    """Write the merged tensors in files of at most `limit` bytes each, one of which is in memory at a time.

    Raises ModelError for a file that cannot be read, or tensors of whole numbers that differ.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    files = _shards(sources[0], limit)
    index: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        single = len(files) == 1
        file = "model.safetensors" if single else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        merged = {name: _blended(sources, name, method) for name in names}
        try:
            save_file(merged, out / file, metadata={"format": "pt"})
        except SafetensorError as error:  # it hides the system's error, such as a full disk
            raise StorageError(f"cannot write {out / file}: {one_line(error)}") from None
        index |= dict.fromkeys(names, file)
    if len(files) > 1:
        size = sum(_bytes(sources[0], name) for name in index)
        write_json(out / INDEX, {"metadata": {"total_size": size}, "weight_map": index})


def _shards(first: Source, limit: int) -> list[list[str]]:
    """Return the names of the tensors of each file."""
    files: list[list[str]] = [[]]
    size = 0
    for name in first.tensors:
        own = _bytes(first, name)
        if files[-1] and size + own > limit:
            files.append([])
            size = 0
        files[-1].append(name)
        size += own
    return files


def _bytes(source: Source, name: str) -> int:
    """Return the size of a tensor of 32 bits, which is the largest that it may have."""
    return math.prod(source.tensors[name][1]) * 4


def _blended(sources: Sequence[Source], name: str, method: blending.Method) -> Tensor:
    """Return a merged tensor in the type that it has in the first checkpoint."""
    import torch

    first = _tensor(sources[0], name)
    if not first.is_floating_point():
        if any(not torch.equal(first, _tensor(other, name)) for other in sources[1:]):
            raise ModelError(f"merge: {name} holds whole numbers, which differ; only floating-point weights merge")
        return first

    def tensors() -> Iterator[Tensor]:
        yield first
        yield from (_tensor(other, name) for other in sources[1:])

    merged = blending.BLENDS[method](tensors(), [one.weight for one in sources])
    return merged.to(first.dtype).contiguous()


def _tensor(source: Source, name: str) -> Tensor:
    from safetensors import SafetensorError, safe_open

    file = source.tensors[name][0]
    try:
        with safe_open(file, "pt") as opened:
            found: Tensor = opened.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"merge: {file} cannot be read ({one_line(error)}); copy the checkpoint again") from None
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise ModelError(f"merge: {source.folder}: {name} holds numbers that are not finite; train it again, or leave "
                         "the checkpoint out")  # fmt: skip
    return found


def _copy_rest(first: Path, out: Path) -> None:
    """Copy configuration, generation settings and tokenizer."""
    named = [first / name for name in (CONFIG, "generation_config.json") if (first / name).is_file()]
    for file in [*named, *tokenizer_files(first)]:
        target = out / file.relative_to(first)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def describe(sources: Sequence[Source], out: Path, method: blending.Method) -> Lineage:
    """Return the lineage: contamination of any of the checkpoints counts, and a task is scanned if it was in all.

    A checkpoint without a lineage counts as a base model, whose data is not considered.
    """
    found, with_file = NOTHING, [one.lineage for one in sources if one.lineage.is_known]
    for one in with_file:
        found = joined(found, known(one))
    scanned = frozenset.intersection(*(known(one).scanned for one in with_file)) if with_file else frozenset()
    before = {a.checkpoint: a for one in sources for a in one.lineage.ancestors}
    merged = tuple(
        Ancestor(checkpoint=str(one.folder), stage=one.lineage.stage, step=one.lineage.step) for one in sources
    )
    first = sources[0]
    models = [{"path": str(one.folder), "weight": one.weight} for one in sources]
    return Lineage(
        parent=str(first.folder),
        root=first.lineage.root or first.lineage.parent or str(first.folder),
        lineage=first.lineage.lineage,
        stage=STAGE,
        recipe={"output": str(out), "merge": {"method": method, "models": models}},
        flags={task: tuple(ids) for task, ids in found.flags.items()},
        short={task: tuple(ids) for task, ids in found.short.items()},
        scanned=tuple(sorted(scanned)),
        ancestors=(*before.values(), *merged),
        versions=lineage.versions(),
    )
