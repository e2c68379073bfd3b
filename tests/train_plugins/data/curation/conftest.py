"""A served model, and the command line in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from curation_server import Run, everything
from helpers import olmes_here
from judge_server import Served, judge_server


@pytest.fixture
def server() -> Iterator[Served]:
    """A model that rates, writes prompts and answers sums."""
    with judge_server(everything) as served:
        yield served


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command of `olmes data` with a recipe that is a mapping."""

    def command(name: str, recipe: object, *options: str | Path, out: str = "out") -> CompletedProcess[str]:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return olmes_here("data", name, file, "--out", tmp_path / out, *options, tmp=tmp_path)

    return command
