"""The lineage of a checkpoint: `olmes_lineage.json` and the model card beside its weights."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from olmes_suite import __version__
from olmes_suite.errors import UsageError
from olmes_suite.files import write_text
from olmes_suite.hooks import Stage, StageData, TrainingSet
from olmes_suite.runs.contamination import Known, inherited
from olmes_suite.runs.ledger import lineage_of
from olmes_suite.runs.schema import (
    LINEAGE,
    NO_LINEAGE,
    Ancestor,
    Lineage,
    TrainingFile,
    read_lineage,
    write_lineage,
)
from olmes_suite.wording import count
from train_plugins.data.sets import BAD_ROWS, rows_hash

FILE = LINEAGE
END = "<!-- Lineage and scores end here; what follows was added by the stage or its hooks. -->"
"""Line that ends the generated part of a card."""
_PACKAGES = ("trl", "transformers", "torch", "accelerate", "datasets", "tokenizers", "peft")


def describe(
    stage: Stage, data: StageData, *, rows: Mapping[str, int], seed: int, processes: int, before: Lineage = NO_LINEAGE
) -> Lineage:
    """Return the lineage that all checkpoints of the stage share; step, tokens and seconds are added by `write`.

    `root` is the checkpoint that the first stage started from: looks at the unseen suite are counted under it. `flags`
    holds the benchmark documents that the data of this stage or of its ancestors is known to contain, `short` those
    that match only as short items, `scanned` the tasks that all of that data was compared with. `before` is the
    lineage of the checkpoint that the stage resumes from; it may hold flags that only the earlier start has seen.
    """
    parent = lineage_of(stage.parent, None)
    known = inherited(parent, Known(data.flags, data.short, frozenset(data.scanned)), before)
    return Lineage(
        parent=stage.parent,
        root=parent.root or parent.parent or stage.parent,
        stage=stage.kind,
        recipe=dict(stage.recipe),
        data=tuple(data_line(one) for one in data.sets),
        rows=dict(rows),
        decontam=None if data.decontam is None else dict(data.decontam),
        flags={task: tuple(ids) for task, ids in known.flags.items()},
        short={task: tuple(ids) for task, ids in known.short.items()},
        scanned=tuple(sorted(known.scanned)),
        ancestors=(*parent.ancestors, Ancestor(checkpoint=stage.parent, stage=parent.stage, step=parent.step)),
        seed=seed,
        versions=versions(),
        hardware={**_hardware(), "training_processes": processes},
    )


def data_line(one: TrainingSet) -> TrainingFile:
    """Summarise a training set: the hash of its files, and the number and hash of the rows that the hooks left."""
    return TrainingFile(
        path=one.path, sha256=one.sha256, rows=len(one.rows), rows_sha256=rows_hash(one.rows), bad_rows=len(one.bad)
    )


def write(checkpoint: Path, lineage: Lineage, step: int, tokens: int, seconds: float) -> Lineage:
    """Write the card, then the lineage, whose presence marks a whole checkpoint; return the lineage."""
    whole = lineage.but(step=step, tokens=tokens, seconds=round(seconds, 1))
    write_text(checkpoint / "README.md", card(whole))
    write_lineage(checkpoint / FILE, whole)
    return whole


def read(checkpoint: Path) -> Lineage:
    """Read the lineage of a checkpoint that this package wrote. Raises UsageError for a damaged file."""
    return read_lineage(checkpoint / FILE)


def step(checkpoint: Path) -> int:
    """Return the step in a checkpoint's lineage. Raises UsageError for a lineage without a step."""
    number = read(checkpoint).step
    if number is None:
        raise UsageError(f"lineage file {checkpoint / FILE} names no step")
    return number


def whole_checkpoints(output: Path) -> list[Path]:
    """Return the checkpoints of a stage that were written completely, oldest first."""
    checkpoints = [path for path in output.glob("checkpoint-*") if (path / FILE).is_file() and _step(path) >= 0]
    return sorted(checkpoints, key=_step)


def last_good(output: Path) -> str:
    """Say in words which checkpoint a stopped stage has left."""
    good = whole_checkpoints(output)
    return f"the last good checkpoint is {good[-1]}" if good else "there was no checkpoint yet"


def card(lineage: Lineage, scores: Sequence[Mapping[str, Any]] = (), others: Mapping[str, Any] | None = None) -> str:
    """Return the model card: front matter for the Hub, then lineage and scores in words.

    `scores` are `evaluator.Result` objects as dictionaries. `others` is front matter that others have added; the
    stage's own keys come first and take precedence.
    """
    others = others or {}
    tags = ["olmes-suite", lineage.stage]
    more_tags = others.get("tags") or []
    ours = {
        "base_model": lineage.parent,
        "library_name": "transformers",
        "tags": [
            *tags,
            *(tag for tag in (more_tags if isinstance(more_tags, list) else [more_tags]) if tag not in tags),
        ],
    }
    data = ModelCardData(**{**ours, **others, **ours}, ignore_metadata_errors=True)
    return f"---\n{data.to_yaml()}\n---\n{_text(lineage, scores)}"


def _text(lineage: Lineage, scores: Sequence[Mapping[str, Any]]) -> str:
    recipe = lineage.recipe
    lines = [
        "", f"# {Path(str(recipe.get('output', 'checkpoint'))).name}, step {lineage.step}", "",
        f"Stage `{lineage.stage}`, started from `{lineage.parent}`; first ancestor `{lineage.root}`.",
        f"{count(lineage.rows.get('trained', 0), 'row')}, {lineage.tokens} tokens, {lineage.seconds} s, "
        f"seed {lineage.seed}.", "",
        "| data | rows | SHA-256 |", "|---|---|---|",
        *(f"| {one.path} | {one.rows} | `{one.sha256}` |" for one in lineage.data), "",
        *_bad_row_lines(lineage.data),
        "Decontamination: " + ("not looked at." if lineage.decontam is None else f"`{lineage.decontam}`."), "",
        *_flag_lines(lineage.flags),
        *_score_lines(scores),
        "## Recipe", "", "```json", _json(recipe), "```", "",
        *_ancestor_lines(lineage.ancestors),
        "## Versions and hardware", "",
        ", ".join(f"{name} {number}" for name, number in lineage.versions.items()), "",
        ", ".join(f"{name}: {_plain(value)}" for name, value in lineage.hardware.items()), "", END, "",
    ]  # fmt: skip
    return "\n".join(lines)


def rewrite_card(checkpoint: Path, lineage: Lineage, scores: Sequence[Mapping[str, Any]]) -> None:
    """Rewrite the card, keeping what others have added to its front matter and at its end."""
    file = checkpoint / "README.md"
    added, others = "", {}
    if file.is_file():
        before = file.read_text(encoding="utf-8")
        added = before.partition(END)[2]
        with suppress(ValueError, TypeError, yaml.YAMLError):  # unreadable front matter is replaced
            others = ModelCard(before, ignore_metadata_errors=True).data.to_dict()
    write_text(file, card(lineage, scores, others).rstrip("\n") + (added or "\n"))


def _bad_row_lines(data: Sequence[TrainingFile]) -> list[str]:
    left = [f"{one.bad_rows} rows of `{one.path}`" for one in data if one.bad_rows]
    return [f"Left out because they cannot be trained on: {', '.join(left)} (`{BAD_ROWS}`).", ""] if left else []


def _flag_lines(flags: Mapping[str, Sequence[int]]) -> list[str]:
    if not flags:
        return []
    rows = [f"| {task} | {len(ids)} | {_plain(ids)} |" for task, ids in flags.items()]
    return ["Benchmark documents in this data or that of its ancestors:", "",
            "| task | documents | doc_id |", "|---|---|---|", *rows, ""]  # fmt: skip


def _ancestor_lines(ancestors: Sequence[Ancestor]) -> list[str]:
    rows = [f"| {one.checkpoint} | {one.stage or '–'} | {_plain(one.step)} |" for one in ancestors]
    return ["## Ancestors", "", "| checkpoint | stage | step |", "|---|---|---|", *rows, ""] if rows else []


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)


def _score_lines(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    if not scores:
        return []
    rows = [
        f"| {score['step']} | {task} | {'–' if value is None else f'{100 * value:.1f}'}"
        f"{' (projected to all documents)' if score.get('projected') else ''}"
        f"{' (sample documents)' if 'data=sample' in (score.get('asked') or '').split() else ''} |"
        for score in scores
        for task, value in [*score["tasks"].items(), ("average", score["average"])]
    ]
    return ["## Scores", "", "| step | task | score |", "|---|---|---|", *rows, ""]


def _json(value: Any) -> str:
    import json

    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that train."""
    versions = {"olmes-suite": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"platform": platform.platform(), "processors": os.cpu_count(), "gpus": gpus}


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
