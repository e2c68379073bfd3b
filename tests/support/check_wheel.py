"""Check what a wheel holds: every tracked file of the packages and the tasks, the entry points, and nothing else.

    python -m build && python tests/support/check_wheel.py dist/*.whl

Exits 0 where all is well, 1 with one line per problem, 2 for a wheel that cannot be read. Standard library only.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("olmes_suite", "train_plugins", "decontam", "leaderboard")
TASKS, INSTALLED_TASKS = "tasks/", "olmes_suite/_tasks/"
ENTRY_POINTS = ("[console_scripts]", "[olmes]", "[olmes.stages]", "olmes = olmes_suite.cli.main:main")


def expected(root: Path = ROOT) -> set[str]:
    """Names in the wheel of all tracked files that belong there."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", *PACKAGES, TASKS], check=True, capture_output=True, text=True
    ).stdout
    names = (name for name in listed.split("\0") if name)
    return {INSTALLED_TASKS + name.removeprefix(TASKS) if name.startswith(TASKS) else name for name in names}


def problems(names: Iterable[str], entry_points: str, wanted: set[str]) -> list[str]:
    """One line for each file that is missing or does not belong, and for each missing entry point."""
    held = {name for name in names if not name.split("/")[0].endswith(".dist-info") and not name.endswith("/")}
    return [
        *(f"missing: {name}" for name in sorted(wanted - held)),
        *(f"does not belong: {name}" for name in sorted(held - wanted)),
        *(f"missing entry point: {line}" for line in ENTRY_POINTS if line not in entry_points.splitlines()),
    ]


def main(arguments: list[str]) -> int:
    """Check the wheels that the arguments name."""
    if not arguments:
        print("check_wheel: name a wheel: check_wheel.py dist/*.whl", file=sys.stderr)
        return 2
    status = 0
    for argument in arguments:
        try:
            with zipfile.ZipFile(argument) as wheel:
                names = wheel.namelist()
                point_files = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
                points = wheel.read(point_files[0]).decode() if point_files else ""
        except (OSError, zipfile.BadZipFile) as error:
            print(f"check_wheel: {argument} cannot be read: {error}", file=sys.stderr)
            return 2
        found = problems(names, points, expected())
        for line in found:
            print(f"{argument}: {line}")
        status = max(status, int(bool(found)))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
