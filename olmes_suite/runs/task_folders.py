"""Folders of a recorded run's own tasks, which commands over the run search without `--include-path`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from olmes_suite.runs.schema import Manifest
from olmes_suite.tasks import catalog, suites

_OPTION = "--include-path"


def folders(manifest: Manifest) -> list[Path]:
    """Return the folders that still exist; of an older run, those that its command names."""
    named = list(manifest.include_paths)
    if not named:
        command = manifest.command
        named = [value for option, value in pairwise(command) if option == _OPTION]
        named += [word.partition("=")[2] for word in command if word.startswith(f"{_OPTION}=")]
    found = [Path(manifest.folder) / name for name in named]
    return [folder for folder in found if folder.is_dir()]


@contextmanager
def searched(manifest: Manifest) -> Iterator[None]:
    """Search the folders of a run's own tasks inside the block, after those that the command names."""
    with catalog.including(folders(manifest)):
        yield


def suite_names(manifest: Manifest) -> tuple[str, ...]:
    """Return the run's suites; the file of a user's suite is also looked for in the folder where the run was made."""
    return tuple(_suite(name, Path(manifest.folder)) for name in manifest.suites)


def _suite(name: str, folder: Path) -> str:
    there = folder / name
    return str(there) if name not in suites.names() and not Path(name).is_file() and there.is_file() else name
