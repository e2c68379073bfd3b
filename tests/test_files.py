"""Locks that one process holds at a time, and the folder of caches."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

from olmes_suite.errors import RunLocked, StorageError
from olmes_suite.files import RunLock, cache_folder, storage
from olmes_suite.runs import baseline


def test_the_holder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs/.unfinished/mine.lock"
    with RunLock(path):
        line = rf"^run mine is being written by process {os.getpid()} on \S+ since 2\d{{3}}-.*; .* another --runs$"
        for _ in range(2):  # who is refused does not wipe the holder's name out
            with pytest.raises(RunLocked, match=line):
                RunLock(path).__enter__()
        with pytest.raises(RunLocked, match=r"^stage s is being written .* another --output$"):
            RunLock(path, "stage s", "--output").__enter__()
    assert not path.exists()
    with pytest.raises(ValueError, match="mine"), RunLock(path):
        raise ValueError("mine")
    assert not path.exists()
    with RunLock(path):
        assert path.is_file()


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from olmes_suite.files import RunLock\n"
        "lock = RunLock(Path(sys.argv[1])); lock.__enter__(); print('held', flush=True); time.sleep(600)"
    )
    path = tmp_path / "mine.lock"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, env=environment)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(RunLocked, match=f"written by process {child.pid} on"):
            RunLock(path).__enter__()
    finally:
        child.kill()
        child.wait()
    with RunLock(path):
        assert str(os.getpid()) in path.read_text()


def test_a_lock_on_a_removed_file_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has opened the file when the first leaves and removes it: a third must still be refused."""
    path = tmp_path / "mine.lock"
    first, second, third = RunLock(path), RunLock(path), RunLock(path)
    first.__enter__()
    leaving, flock = [first], fcntl.flock

    def late(handle: Any, operation: int) -> None:
        if leaving:
            leaving.pop().__exit__(None, None, None)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with second:
        assert not leaving
        with pytest.raises(RunLocked, match=f"process {os.getpid()}"):
            third.__enter__()


def test_a_file_that_two_processes_change_has_both_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins while the first has read the file and not yet written it: it has to wait."""
    write = baseline.write_json
    second = threading.Thread(target=baseline.name_baseline, args=("b", tmp_path / "two", tmp_path))

    def late(path: Path, value: Any) -> None:
        if second.ident is None:
            second.start()
            second.join(0.5)
        write(path, value)

    monkeypatch.setattr(baseline, "write_json", late)
    baseline.name_baseline("a", tmp_path / "one", tmp_path)
    second.join()
    assert baseline.named(tmp_path) == {"a": "one", "b": "two"}
    assert [path.name for path in tmp_path.iterdir()] == ["baselines.json"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        RunLock(tmp_path / "file/sub/mine.lock").__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system's own folder")
def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OLMES_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("OLMES_CACHE", "")
    assert cache_folder() == tmp_path / "xdg/olmes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/olmes"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some space or give another folder"),
        (errno.EACCES, "give a folder that you may write to"),
        (errno.ENOTDIR, "a file is in the place of a folder"),
        (errno.ENAMETOOLONG, "give a shorter path"),
    ],
)
def test_the_advice_fits_the_reason(number: int, words: str) -> None:
    line = f"cannot write here: .*; {words}.*, then repeat the command"
    with pytest.raises(StorageError, match=line), storage(Path("here")):
        raise OSError(number, "no")
