"""The rungs of isolation: how a jail starts on each rung, and the rungs that this machine supports."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from olmes_suite.errors import MissingData
from olmes_suite.sandbox.interpreter import SYSTEM, SYSTEM_FILES, Interpreter

Rung = Literal["bubblewrap", "landlock", "unsafe"]
INSIDE = Path(__file__).parent / "inside"
_DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
_KERNEL_FILES = ["/proc/cpuinfo", "/proc/meminfo", "/proc/filesystems", "/sys/devices/system/cpu"]
SCRATCH = ("/dev/shm", "/tmp")
"""Folders that programs may write to under bubblewrap."""
_SCRATCH_SIZE = 256 * 2**20
_BOOT = (
    "import sys,importlib.util as u;sys.path[:]=[p for p in sys.path if p];"
    "s=u.spec_from_file_location('inside',sys.argv[1]+'/__init__.py',submodule_search_locations=[sys.argv[1]]);"
    "m=u.module_from_spec(s);sys.modules['inside']=m;"
    "import inside.server;inside.server.main(int(sys.argv[2]))"
)
REFUSAL = (
    "model-written code runs only in a sandbox, and this machine has none ({why}): install bubblewrap, use a Linux "
    "kernel with Landlock (5.13 or later), or pass --unsafe-code to run the code without isolation"
)


@dataclass(frozen=True, slots=True)
class Start:
    """The command that starts a jail, and the first message to its server."""

    command: list[str]
    setup: dict[str, Any]
    scratch: str | None = None
    """A folder of this machine that belongs to the jail and is deleted with it."""
    environment: dict[str, str] = field(default_factory=dict)


def start(rung: Rung, python: Interpreter, preload: Sequence[str], control: int) -> Start:
    """Prepare the start of a jail whose server reaches the host through the file descriptor `control`."""
    setup: dict[str, Any] = {"rung": rung, "uid": None, "preload": list(preload), "site": list(python.site)}
    if rung == "bubblewrap":
        if os.geteuid() == 0:
            setup["uid"] = free_uid()
        setup["scratch"] = list(SCRATCH)
        command = [*bubblewrap(python), *_python(python, "/olmes/inside", control)]
        return Start(command, setup, None, _environment("/tmp"))
    scratch = tempfile.mkdtemp(prefix="olmes-sandbox-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)
    readable, listable = allowed(python)
    if rung == "landlock" and os.geteuid() == 0 and all(map(_open_to_all, [*readable, scratch])):
        setup["uid"] = free_uid()
        os.chown(scratch, setup["uid"], setup["uid"])
    setup |= {"scratch": [scratch], "readable": readable, "listable": listable, "devices": _DEVICES}
    return Start(_python(python, str(INSIDE), control), setup, scratch, _environment(scratch))


def _python(python: Interpreter, inside: str, control: int) -> list[str]:
    # Not -I, which would ignore the hash seed; we set the environment, and _BOOT takes the working folder off the path.
    return [python.executable, "-s", "-B", "-X", "utf8", "-c", _BOOT, inside, str(control)]


def _environment(scratch: str) -> dict[str, str]:
    """Return the environment of a program. A fixed hash seed makes verdicts repeatable."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": scratch, "TMPDIR": scratch, "LANG": "C.UTF-8", "TZ": "UTC",
        "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        "MPLBACKEND": "Agg", "MPLCONFIGDIR": scratch,
    }  # fmt: skip


def bubblewrap(python: Interpreter) -> list[str]:
    """Return the bwrap command: new namespaces, read-only folders of the system and the interpreter, private /tmp."""
    root = os.geteuid() == 0
    command = [shutil.which("bwrap") or "bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--as-pid-1", "--new-session", "--cap-drop", "ALL"]
    # Root needs no user namespace; the server becomes an unused user, for which it needs these two capabilities.
    command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user"]
    for path in SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            command += ["--ro-bind", path, path]
    for path in SYSTEM_FILES:
        command += ["--ro-bind-try", path, path]
    # Before the shown folders are bound: an interpreter may lie below /tmp.
    command += ["--proc", "/proc", "--dev", "/dev"]
    for path in SCRATCH:
        command += ["--perms", "1777", "--size", str(_SCRATCH_SIZE), "--tmpfs", path]
    # The parents of shown folders: bwrap would make them accessible to root alone.
    parents = {str(parent) for path in (python.base, *python.shown, "/olmes/inside") for parent in Path(path).parents}
    # Those in /tmp would belong to the user whom the programs run as: what one writes there, later ones would import.
    closed = sorted(path for path in parents if not _below(path, [python.base]) and os.path.dirname(path) in SCRATCH)
    for path in sorted(
        path for path in parents if path not in ("/", "/tmp") and not _below(path, [*SYSTEM, python.base])
    ):
        command += ["--perms", "0755", "--tmpfs" if path in closed else "--dir", path]
    if not _below(python.base, SYSTEM):
        command += ["--ro-bind", python.base, python.base]
    for path in hidden(python):
        command += ["--tmpfs", path]
    for path in python.shown:
        command += ["--ro-bind", path, path]
    for path in (*hidden(python), *closed):
        command += ["--remount-ro", path]
    command += ["--ro-bind", str(INSIDE), "/olmes/inside"]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]


def hidden(python: Interpreter) -> list[str]:
    """Return the hidden folders inside shown ones: other packages, the user's home, data and working folder."""
    mirrors = [part for part in os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep) if part]
    personal = [os.path.realpath(path) for path in (os.getcwd(), str(Path.home()), *mirrors)]
    roots = [*SYSTEM, python.base, *python.shown]
    private = [
        path for path in personal
        if _below(path, roots) and not any(_below(needed, [path]) for needed in (python.base, *python.shown, *roots))
    ]  # fmt: skip
    return sorted({*(path for path in python.hidden if _below(path, roots) and os.path.isdir(path)), *private})


def allowed(python: Interpreter) -> tuple[list[str], list[str]]:
    """Return (paths that may be read, folders that may be listed) for rungs that cannot mount over hidden folders."""
    readable: list[str] = [*SYSTEM_FILES, *_KERNEL_FILES, *python.shown, str(INSIDE)]
    listable: list[str] = list(python.site)
    hidden_paths = hidden(python)

    def walk(path: str) -> None:
        if path in hidden_paths:
            listable.append(path)
        elif any(_below(part, [path]) for part in hidden_paths):
            listable.append(path)
            for child in sorted(os.scandir(path), key=lambda entry: entry.name):
                walk(child.path)
        else:
            readable.append(path)

    for root in [path for path in SYSTEM if os.path.isdir(path)] + [python.base]:
        walk(os.path.realpath(root))
    return sorted({path for path in readable if os.path.exists(path)}), sorted(set(listable))


def _below(path: str, folders: Sequence[str]) -> bool:
    """Return whether the path is one of the folders or below one."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _open_to_all(path: str) -> bool:
    """Return whether other users can reach the path."""
    try:
        return all(os.stat(parent).st_mode & 0o001 for parent in Path(path).parents)
    except OSError:
        return False


def free_uid() -> int:
    """Return a user id that no account has and no process runs under. Raises MissingData."""
    running = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            running.add(os.stat(f"/proc/{name}").st_uid)
        except OSError:
            continue
    for number in range(40000):
        uid = 20000 + (os.getpid() * 31 + number * 7 + next(_turns)) % 40000
        try:
            pwd.getpwuid(uid)
        except KeyError:
            if uid not in running:
                return uid
    raise MissingData("the sandbox has no unused user id from 20000 to 59999: free one of them")


_turns = itertools.count()


def candidates(unsafe: bool) -> list[Rung]:
    """Return the rungs to try on this machine, best first. Raises MissingData on other systems than Linux."""
    if unsafe:
        return ["unsafe"]
    if sys.platform != "linux":
        raise MissingData(
            REFUSAL.format(why=f"{sys.platform} is not Linux; run it on Linux, for example in a container")
        )
    return ["bubblewrap", "landlock"] if shutil.which("bwrap") else ["landlock"]
