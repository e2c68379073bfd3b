"""olmes doctor: report what this installation and machine can run."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from olmes_suite.cli.options import DataDirs, Json
from olmes_suite.devices import has_gpu
from olmes_suite.evaluation.arguments import source
from olmes_suite.extras import installed

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_PACKAGES = (
    "lm-eval",
    "transformers",
    "torch",
    "datasets",
    "sympy",
    "antlr4-python3-runtime",
    "nltk",
    "langdetect",
    "emoji",
    "syllapy",
    "pyspellchecker",
    "spacy",
    "vllm",
)


@app.command()
def doctor(data_dir: DataDirs = None, as_json: Json = False) -> int:
    """Report the installed packages, the data, the device, the sandbox and the resources of the scorers."""
    source(data_dir, None).show_to_nltk()
    report: dict[str, Any] = {
        "python": sys.version.split()[0],
        "packages": _packages(),
        "device": _device(),
        "data": _data(data_dir),
        "sandbox": _sandbox(),
        "scorers": _scorers(),
    }
    if as_json:
        print(json.dumps(report))
        return 0
    print(f"python      {report['python']}")
    for name, package_version in report["packages"].items():
        print(f"{name:<23}{package_version or 'not installed'}")
    print(f"device      {report['device']}")
    print(f"sandbox     {report['sandbox']}")
    for name, state in report["scorers"].items():
        print(f"for scorers {name}: {state}")
    for place, (present, total) in report["data"].items():
        print(f"data        {place}: {present} of {total} splits")
    if not report["data"]:
        print("data        no mirror named (--data-dir, $OLMES_DATA_DIR): data sets come from the Hub")
    return 0


def _sandbox() -> str:
    """Say how model-written code would run on this machine, or why it cannot."""
    from contextlib import closing

    from olmes_suite.errors import MissingData
    from olmes_suite.scoring.tools import Tools

    try:
        with closing(Tools()) as tools:
            return str(tools.get("sandbox").rung)
    except MissingData as error:
        return f"none: {error}"


def _packages() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def _device() -> str:
    return "NVIDIA GPU" if installed("torch") and has_gpu() else f"{os.cpu_count()} processors, no GPU"


def _data(data_dir: Any) -> dict[str, tuple[int, int]]:
    from olmes_suite.tasks import index
    from olmes_suite.tasks.documents import DataSource, find_split
    from olmes_suite.tasks.mirror import needed

    where = source(data_dir, None)
    if not where.mirrors:
        return {}
    splits = needed(entry.name for entry in index.top_level())
    return {
        str(mirror): (
            sum(find_split(DataSource((mirror,)), item.spec, item.split) is not None for item in splits),
            len(splits),
        )
        for mirror in where.mirrors
    }


def _scorers() -> dict[str, str]:
    """Check the language resources of scorers: "found", or the error that a run would fail with."""
    from olmes_suite.scoring import language_resources

    names = (*language_resources.NLTK_DATA, *language_resources.PACKAGES, "spacy_model")
    return {name: language_resources.missing(name) or "found" for name in names}
