"""Pools of processes: what they leave and print when they, or the process that began them, are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, environment
from worker_runs import alive

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from olmes_suite.processes import in_processes

def work(job):
    try:  # Ctrl-C may come as soon as the file is there
        Path(f"{job}.{os.getpid()}").touch()
        time.sleep(60 if job != "killed" else 0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    finally:
        Path(f"{job}.ended").touch()

if __name__ == "__main__":
    from olmes_suite.cli.main import fail
    from olmes_suite.errors import OlmesError
    try:
        list(in_processes(work, 3)(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted", 130))
    except OlmesError as error:
        sys.exit(fail(str(error), error.exit_code))
"""
pytestmark = pytest.mark.long


def started(tmp: Path, *jobs: str) -> subprocess.Popen[str]:
    (tmp / "script.py").write_text(SCRIPT)
    env = environment(tmp, PYTHONPATH=str(ROOT))
    return subprocess.Popen(
        [sys.executable, "script.py", *jobs], cwd=tmp, env=env, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def workers(tmp: Path, count: int) -> list[int]:
    """Wait for that many processes that work, and return their numbers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [int(path.suffix[1:]) for path in tmp.iterdir() if path.suffix[1:].isdigit()]
        if len(found) == count:
            return found
        time.sleep(0.02)
    raise TimeoutError


@pytest.mark.parametrize("wait", [0.3, 0.6, None], ids=["early", "later", "at work"])
def test_ctrl_c_is_one_line_and_jobs_end_as_by_an_exception(tmp_path: Path, wait: float | None) -> None:
    with started(tmp_path, *"abcdefghi") as process:  # the pool hands out more of them than it has processes
        if wait is None:
            workers(tmp_path, 3)
        else:  # the processes are still starting
            time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert "SystemExit" not in error and "spawn" not in error
    if wait is None:
        assert (process.returncode, error) == (130, "olmes: interrupted\n")
        assert len(list(tmp_path.glob("*.ended"))) == len(list(tmp_path.glob("*.[0-9]*"))) == 3


def test_processes_of_a_command_that_ignores_ctrl_c_ignore_it_too(tmp_path: Path) -> None:
    """As those of a command in a script's background, which Ctrl-C of the script does not end."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = started(tmp_path, "a", "b")
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        numbers = workers(tmp_path, 2)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None and all(map(alive, numbers)) and not list(tmp_path.glob("*.ended"))
        os.killpg(process.pid, signal.SIGKILL)


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    with started(tmp_path, "a", "b") as process:
        numbers = workers(tmp_path, 2)
        process.kill()
    deadline = time.monotonic() + 10
    while any(map(alive, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [number for number in numbers if alive(number)]


def test_a_killed_process_is_one_line(tmp_path: Path) -> None:
    with started(tmp_path, "killed", "killed", "a", "b") as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 1 and "a process of the command was killed, perhaps for lack of memory" in error
    assert error.count("\n") == 1
