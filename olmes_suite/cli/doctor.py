"""olmes doctor: report what this installation and machine can do, and how to get what is missing."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from olmes_suite import extras
from olmes_suite.cli.options import DataDirs, Json
from olmes_suite.devices import has_gpu
from olmes_suite.evaluation.arguments import source
from olmes_suite.extras import installed

app = typer.Typer(add_completion=False, rich_markup_mode=None)
ENABLES = {
    "eval": "olmes eval, score, prompts, tasks check, data pull",
    "vllm": "--backend vllm: fast generation on a GPU",
    "decontam": "olmes decontam",
    "train": "olmes train",
    "curate": "olmes data mix, prompts, responses, preferences",
    "code": "bigcodebench, bigcodebench_hard",
    "ood": "ifeval_ood and ifbench",
    "ray": "--ray: engines and scans on several machines",
    "verifiers": "tasksets of Prime Intellect as tasks and rewards",
    **{name: f"--report-to {name}" for name in ("wandb", "mlflow", "trackio", "tensorboard")},
}
"""Extra to what a user can do with it."""
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
    "trl",
)
_SHOWN = {"eval": ("lm-eval", "transformers", "torch"), "vllm": ("vllm",), "train": ("trl",), "ray": ("ray",)}
"""Extra to the packages whose versions are shown."""
_NEEDED = ("eval", "sandbox", "NLTK data")
_WIDTH = 80


@dataclass(frozen=True)
class Check:
    """One piece of the installation or the machine: what it enables, and if it is missing, how to get it."""

    name: str
    ok: bool
    found: str
    """The version or the kind, if it is there."""
    enables: str
    get: str | None = None
    """A command or setting that gets a missing piece; None if it is there."""
    needed: bool = False
    """Whether the suites cannot be run in full without it: the exit status is 1 then."""


@app.command()
def doctor(data_dir: DataDirs = None, as_json: Json = False) -> int:
    """Report what this installation and machine can do, and how to get what is missing.

    Exits 0 if what the suites need is there (the packages of `eval`, a sandbox, NLTK's data), otherwise 1.
    """
    source(data_dir, None).show_to_nltk()
    checks = list(_checks())
    data = _data(data_dir)
    status = int(any(check.needed and not check.ok for check in checks))
    if as_json:
        print(json.dumps(_report(checks, data) | {"ok": not status}))
        return status
    print(f"{'':9}{'python':<16}{sys.version.split()[0]}, {_device()}")
    for check in checks:
        _print(check)
    for place, (present, total) in data.items():
        print(f"{'':9}{'data':<16}{place}: {present} of {total} splits")
        if present < total:
            print(f"{'':25}olmes data verify --suite NAME lists what a suite lacks")
    if not data:
        print(f"{'':9}{'data':<16}from the Hub: no mirror is named (--data-dir, $OLMES_DATA_DIR)")
    lacking = [check.name for check in checks if check.needed and not check.ok]
    but = ", but for data" if data and all(present < total for present, total in data.values()) else ""
    print(f"\nThe suites need: {', '.join(lacking)}." if lacking else f"\nWhat the suites need is here{but}.")
    return status


def _print(check: Check) -> None:
    """Print the state, the name, and what was found or what it would enable; below it the line that gets it."""
    state = "ok" if check.ok else "MISSING" if check.needed else "missing"
    text = "\n".join(textwrap.wrap(check.found if check.ok else check.enables, _WIDTH - 25)) or check.enables
    print(f"{state:<9}{check.name:<16}{textwrap.indent(text, ' ' * 25).lstrip()}")
    if check.get:
        print(f"{'':25}{check.get}")


def _checks() -> Iterator[Check]:
    """Yield the extras, then what the machine brings."""
    for extra in extras.MODULES:
        lacking = extras.missing(extra)
        shown = ", ".join(f"{name} {number}" for name in _SHOWN.get(extra, ()) if (number := _version(name)))
        enables = ENABLES.get(extra, f"the extra {extra}")
        get = extras.install(extra) if lacking else None
        yield Check(extra, not lacking, shown or enables, enables, get, needed=extra in _NEEDED)
    yield _sandbox()
    yield from _resources()


def _sandbox() -> Check:
    """Say how model-written code would run on this machine, or why it cannot."""
    from contextlib import closing

    enables = "humaneval, bigcodebench and other tasks that run code"
    from olmes_suite.errors import MissingData
    from olmes_suite.scoring.tools import Tools

    try:
        with closing(Tools()) as tools:
            return Check("sandbox", True, str(tools.get("sandbox").rung), enables, needed=True)
    except MissingData as error:
        return Check("sandbox", False, "", enables, str(error), needed=True)


def _resources() -> Iterator[Check]:
    """Yield the resources of scorers that are no package of an extra."""
    from olmes_suite.scoring import language_resources

    lacking = [name for name in language_resources.NLTK_DATA if language_resources.missing(name)]
    enables = "ifeval, ifeval_ood, ifbench"
    get = None
    if lacking:
        get = extras.install("eval") if not installed("nltk") else language_resources.nltk_command(lacking)
    yield Check("NLTK data", not lacking, ", ".join(language_resources.NLTK_DATA), enables, get, needed=True)
    missing = language_resources.missing("spacy_model")
    found = os.environ.get(language_resources.SPACY_MODEL, "")
    get = f"export {language_resources.SPACY_MODEL}=en_core_web_sm (an installed model, or its folder)"
    yield Check("spaCy model", missing is None, found, "the constraint count:countries", get if missing else None)


def _report(checks: list[Check], data: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Return what `--json` prints."""
    from olmes_suite.scoring import language_resources

    names = (*language_resources.NLTK_DATA, *language_resources.PACKAGES, "spacy_model")
    sandbox = next(check for check in checks if check.name == "sandbox")
    return {
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": _device(),
        "data": data,
        "sandbox": sandbox.found if sandbox.ok else f"none: {sandbox.get}",
        "scorers": {name: language_resources.missing(name) or "found" for name in names},
        "checks": [asdict(check) for check in checks],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    return "NVIDIA GPU" if installed("torch") and has_gpu() else f"{os.cpu_count()} processors, no GPU"


def _data(data_dir: Any) -> dict[str, tuple[int, int]]:
    """Return for each mirror how many of the splits of the shipped tasks it has, and how many there are."""
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
