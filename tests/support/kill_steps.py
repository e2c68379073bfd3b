"""Kill a command before each of its changes to the file system, resume it, and compare what it has made.

Usage: python kill_steps.py FOLDER STEP ARGUMENTS…, in which OUT stands for the output folder; an undisturbed run makes
FOLDER/whole first. Prints one JSON object: the number of changes, and what was wrong, by the number of the change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
KILLED = 99


def is_change(event: str, arguments: tuple[Any, ...], folder: Path) -> bool:
    """Whether an audited event changes a file below the folder."""
    if event not in CHANGES or not str(arguments[0]).startswith(str(folder)):
        return False
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    return event != "open" or bool(set(str(arguments[1])) & set("wax+") or int(arguments[2]) & writes)


def run(arguments: list[str], folder: Path, kill: int = 0) -> tuple[int, int, str]:
    """Run a command in a process of its own, killed before change number `kill`: (exit status, changes, stderr)."""
    from olmes_suite.cli.main import run as command

    reader, writer = os.pipe()
    if not (child := os.fork()):
        count, said, status = 0, StringIO(), 1

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if is_change(event, arguments, folder):
                count += 1
                if count == kill:
                    os._exit(KILLED)

        os.environ["OLMES_CACHE"] = str(folder / "cache")
        sys.addaudithook(hook)
        try:
            with redirect_stdout(StringIO()), redirect_stderr(said):
                status = command([one.replace("OUT", str(folder / "out")) for one in arguments])
        except BaseException as error:
            said.write(repr(error))
        os.write(writer, f"{count} {said.getvalue()[-500:]}".encode())
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        changes, _, said_there = pipe.read().partition(" ")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(changes or 0), said_there


def made(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main(folder: Path, step: int, arguments: list[str]) -> None:
    """Kill and resume a command before every `step`-th change."""
    from olmes_suite.cli.main import run as command

    whole, counted = folder / "whole", folder / "counted"
    os.environ["OLMES_CACHE"] = str(whole / "cache")
    with redirect_stdout(StringIO()):  # here, so that the processes need not load the packages again
        assert command([one.replace("OUT", str(whole / "out")) for one in arguments]) == 0
    counted.mkdir()
    _, total, _ = run(arguments, counted)
    expected, wrong = made(whole / "out"), {}
    for number in range(1, total + 1, step):
        here = folder / str(number)
        here.mkdir()
        killed, _, _ = run(arguments, here, number)
        status, _, error = run([*arguments, "--resume"], here)
        found = {"killed": killed, "status": status, "error": error, "left": sorted(os.listdir(here))}
        if found != {"killed": KILLED, "status": 0, "error": "", "left": ["cache", "out"]}:
            wrong[number] = found
        elif made(here / "out") != expected:
            wrong[number] = {"bytes": sorted(set(made(here / "out").items()) ^ set(expected.items()))}
        shutil.rmtree(here)
    print(json.dumps({"changes": total, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
