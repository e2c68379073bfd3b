"""Measurements of a running program: waiting time, memory, files; and the removal of its files."""

from __future__ import annotations

import contextlib
import os
import shutil


def waited(pid: int) -> float:
    """Return the seconds that a process waited for a busy processor; 0 where the kernel does not report them."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as handle:
            return int(handle.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def resident(pid: int | None) -> int:
    """Return the resident bytes of a process, or of all processes of this jail except the server."""
    try:
        pids = [str(pid)] if pid else [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return 0
    total = 0
    for name in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            if name != str(os.getpid()):
                with open(f"/proc/{name}/statm", encoding="ascii") as handle:
                    total += int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


def size(folder: str, initial: set[str]) -> int:
    """Return the bytes on disk of what a folder holds beside the initial names, inodes included."""
    total = 0
    for place, folders, names in os.walk(folder):
        if place == folder:
            folders[:] = [name for name in folders if name not in initial]
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512 + 1024
    return total


def emptied(folder: str, initial: set[str]) -> bool:
    """Remove what a folder holds beside the initial names, and return whether that worked."""
    for name in set(os.listdir(folder)) - initial:
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if os.path.isdir(path) and not os.path.islink(path):
                for place, inner, _ in os.walk(path):
                    for each in (place, *(os.path.join(place, one) for one in inner)):
                        with contextlib.suppress(OSError):
                            if not os.path.islink(each):
                                os.chmod(each, 0o700)
                shutil.rmtree(path)
            else:
                os.unlink(path)
    return set(os.listdir(folder)) <= initial
