"""Kills a training outright (SIGKILL) at the place that $KILL names: a plugin of the stages, and a call for tasks.

`sft:checkpoint-2`: that stage has just saved that checkpoint. `eval`, `prepare`: see `at`. Killed is the process of the
command line ($KILL_COMMAND, such as "train run") alone; all others must end by themselves, or the test hangs.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from olmes_suite.hooks import hookimpl

ENTRY = "[olmes]\nkiller = killer\n"


def install(folder: Path) -> str:
    """Write what makes this plugin known to processes with this PYTHONPATH, which is returned."""
    metadata = folder / "killer-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: killer\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY)
    return os.pathsep.join([str(folder), str(Path(__file__).parent), str(Path(__file__).parents[2])])


@hookimpl
def olmes_after_checkpoint(stage: Any, checkpoint: Path) -> None:
    """A stage has saved a checkpoint."""
    at(f"{stage.kind}:{checkpoint.name}")


def at(place: str) -> None:
    """Kill the command if this is the place."""
    if os.environ.get("KILL") == place:
        os.kill(command(), signal.SIGKILL)
        time.sleep(30)
        raise AssertionError(f"process {os.getpid()} went on without its command")


def command() -> int:
    """The process of the command line, the topmost whose arguments hold $KILL_COMMAND."""
    wanted, number, found = os.environ["KILL_COMMAND"].replace(" ", "\0").encode(), os.getpid(), 0
    while number > 1:
        if wanted in Path(f"/proc/{number}/cmdline").read_bytes():
            found = number
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    assert found
    return found
