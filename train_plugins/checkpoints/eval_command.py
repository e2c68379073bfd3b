"""The command `olmes eval` for a stage's checkpoint, and the environment that it runs in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from train_plugins.checkpoints import lineage
from train_plugins.config.evaluation import Evaluation


def asked(settings: Evaluation) -> str:
    """Describe what determines an average: the tasks, their documents, the judges, and how answers are generated."""
    judges = {name: getattr(settings, name) for name in ("judge", "classifier", "encoder")}
    named = [f"{name}={value}" for name, value in judges.items() if value is not None]
    suite = [settings.suite] if settings.suite else []
    named += [f"data={settings.data}"] if settings.data is not None else []
    return " ".join([*suite, *settings.tasks, f"limit={settings.limit}", *named, *sampling_options(settings)])


def command(
    settings: Evaluation, folder: Path | str, checkpoint: Path | str | None = None, live: str | None = None
) -> list[str]:
    """Return the command line that evaluates a checkpoint's folder.

    If `folder` holds links, an endpoint is asked for the model by the original path, `checkpoint`. `live` is the
    address of the training's engine.
    """
    at_endpoint = settings.device == "endpoint"
    line = [
        sys.executable,
        "-m",
        "olmes_suite.cli.main",
        "eval",
        "--model",
        str(checkpoint if at_endpoint and checkpoint is not None else folder),
        "--runs",
        settings.runs,
        "--json",
    ]
    if at_endpoint:
        line += ["--backend", "openai", "--base-url", str(settings.base_url)]
        lineage_file = Path(folder) / lineage.FILE
        line += ["--lineage", str(lineage_file)] if lineage_file.is_file() else []
    if live is not None:
        line += ["--backend", "live", "--base-url", live]
    elif settings.engine == "live":  # beside the training's engine, where a second vLLM has no room on the GPU
        line += ["--backend", "hf"]
    line += ["--suite", settings.suite] if settings.suite else []
    for task in settings.tasks:
        line += ["--task", task]
    for flag, folders in (("--data-dir", settings.data_dir), ("--include-path", settings.include_path)):
        for name in folders:
            line += [flag, name]
    for name in ("data", "limit", "judge", "judge_base_url", "classifier", "classifier_base_url", "encoder"):
        value = getattr(settings, name)
        line += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    return [*line, *sampling_options(settings)]


def sampling_options(settings: Evaluation) -> list[str]:
    """Return the options of `olmes eval` that change how answers are generated."""
    line: list[str] = []
    for name in ("profile", "samples", "system"):
        value = getattr(settings, name)
        line += [f"--{name}", str(value)] if value is not None else []
    for name in ("gen_kwargs", "chat_template_args"):
        if values := getattr(settings, name):
            pairs = (f"{key}={json.dumps(value)}" for key, value in values.items())
            line += [f"--{name.replace('_', '-')}", ",".join(pairs)]
    return line


def merging(folder: Path) -> list[str]:
    """Return the command line that turns a folder with an adapter into a whole model."""
    return [sys.executable, "-m", "train_plugins.checkpoints.adapters", str(folder), str(folder)]


def devices(settings: Evaluation) -> dict[str, str]:
    """Return the variables that restrict the evaluator to the recipe's GPU, if the recipe names one."""
    return {"CUDA_VISIBLE_DEVICES": str(settings.device)} if isinstance(settings.device, int) else {}


def environment() -> dict[str, str]:
    """Return the environment without a launcher's variables: the evaluator is always a single process."""
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_")
    return {name: value for name, value in os.environ.items() if not name.startswith(launcher)}
