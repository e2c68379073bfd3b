"""Confinement of a process, which cannot be undone: capabilities, files (Landlock), system calls (seccomp), resources.

Everything goes through system calls, since the standard library has no binding of Landlock or seccomp. Numbers and
layouts are those of the kernel's headers (linux/landlock.h, linux/seccomp.h, linux/filter.h).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVS, _SET_DUMPABLE, _DROP_BOUNDING, _SUBREAPER = 38, 4, 24, 36
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_FILE_ACCESS = 0b110 | 1 | 1 << 14 | 1 << 15
"""Rights for a file that is not a folder: execute, write, read, truncate, ioctl."""
_READ = 1 | 1 << 2 | 1 << 3
"""Rights to execute a file, read a file and list a folder."""
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_ALLOW, _EPERM, _ENOSYS, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_NAMESPACES = 0x7E020080
"""The CLONE_NEW* flags of clone(2)."""
_THREAD = 0x00010000


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int = 0) -> None:
    """prctl(2) with one argument. Raises OSError."""
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), f"prctl {option}")


def no_new_privileges() -> None:
    """Prevent programs that this process executes from gaining rights."""
    prctl(_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Prevent other processes of the same user from tracing this process and reading its memory."""
    prctl(_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of processes whose parent ends, so that every process can be ended."""
    prctl(_SUBREAPER, 1)


def first_to_go() -> None:
    """Make the kernel end this process and its children before others where the machine runs out of memory."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as handle:
        handle.write("1000")


def drop_capabilities() -> None:
    """Drop every capability, also for programs that are executed later."""
    for number in range(64):
        with contextlib.suppress(OSError):  # beyond the last capability of this kernel
            prctl(_DROP_BOUNDING, number)
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def become(uid: int) -> None:
    """Become another user without groups."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def enter_namespaces() -> bool:
    """Enter new process, network and IPC namespaces from the next fork on. Returns False where the kernel refuses."""
    uid, gid = os.getuid(), os.getgid()
    flags = 0x20000000 | 0x40000000 | 0x08000000  # processes, network, IPC
    if _libc.unshare(flags if uid == 0 else flags | 0x10000000) != 0:
        return False
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as handle:
                handle.write(text)
    return True


def landlock_version() -> int:
    """Return the kernel's Landlock version, 0 without Landlock."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def landlock(readable: list[str], listable: list[str], writable: list[str]) -> None:
    """Allow only files below the paths, and deny TCP and signals to processes outside. Raises OSError.

    Below `listable` folders can be listed but files cannot be read: Python's imports list the folders that they search.
    """
    version = landlock_version()
    if version < 1:
        raise OSError("this kernel has no Landlock")
    rights = (1 << 13) - 1
    for since, right in ((2, 1 << 13), (3, 1 << 14), (5, 1 << 15)):
        rights |= right if version >= since else 0
    attributes = struct.pack("=QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _check(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0), "Landlock")
    for paths, allowed in ((readable, _READ), (listable, 1 << 3), (writable, rights)):
        for path in paths:
            _allow(ruleset, path, allowed & rights)
    _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "Landlock")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # the path does not exist on this machine
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_ACCESS
        _check(_libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, handle), 0), f"Landlock {path}")
    finally:
        os.close(handle)


def _numbers() -> dict[str, dict[str, int]]:
    column = _ARCHITECTURES[platform.machine()][1]
    groups: dict[str, dict[str, int]] = {}
    with open(os.path.join(os.path.dirname(__file__), "syscalls.txt"), encoding="ascii") as lines:
        for line in lines:
            if line.startswith("["):
                current = groups.setdefault(line.strip(" []\n"), {})
            elif not line.startswith("#"):
                name, *numbers = line.split()
                if numbers[column] != "-":
                    current[name] = int(numbers[column])
    return groups


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", 0x20, 0, 0, offset)


def _jump(code: int, value: int, then: int, otherwise: int) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


def _give(value: int) -> bytes:
    return struct.pack("=HBBI", 0x06, 0, 0, value)


_EQUAL, _ABOVE, _BITS = 0x15, 0x35, 0x45


class Filter:
    """A seccomp filter, built once and applied by every process after its fork."""

    def __init__(self, *, processes: bool, signals: bool, owner: bool, domains: list[int]) -> None:
        """Build the filter. Raises KeyError on an architecture without a table.

        `processes`: whether the program may fork; `signals`: whether it may signal any process that it sees; `owner`:
        whether it may change modes and times of its files; `domains`: allowed address families of sockets.
        """
        self.arch = _ARCHITECTURES[platform.machine()][0]
        self.numbers, self.signals = _numbers(), signals
        denied = list(self.numbers["always"].values())
        denied += [] if processes else list(self.numbers["fork"].values())
        denied += [] if signals else list(self.numbers["signals"].values())
        denied += [] if owner else list(self.numbers["owner"].values())
        special = self.numbers["special"]
        self.head = _load(4) + _jump(_EQUAL, self.arch, 1, 0) + _give(_KILL) + _load(0)
        if platform.machine() == "x86_64":  # the x32 calls have other numbers
            self.head += _jump(_ABOVE, 0x40000000, 0, 1) + _give(_ENOSYS)
        for number in denied:
            self.head += _jump(_EQUAL, number, 0, 1) + _give(_EPERM)
        self.head += _jump(_EQUAL, special["clone3"], 0, 1) + _give(
            _ENOSYS
        )  # a filter cannot read its flags; callers fall back to clone
        flags = _load(16) + _jump(_BITS, _NAMESPACES, 0, 1) + _give(_EPERM)
        flags += b"" if processes else _jump(_BITS, _THREAD, 1, 0) + _give(_EPERM)
        self.head += self._when("clone", flags)
        self.head += self._when("socket", self._only(16, domains))
        # The kernel sends signals to the owner set on a file in the name of this process.
        self.head += self._when("fcntl", self._never(24, [8, 10, 15]))
        self.head += self._when("ioctl", self._never(24, [0x8901, 0x8902, 0x5412]))

    def _when(self, name: str, body: bytes) -> bytes:
        body += _give(_ALLOW)
        return _jump(_EQUAL, self.numbers["special"][name], 0, len(body) // 8) + body

    @staticmethod
    def _only(offset: int, values: list[int]) -> bytes:
        tests = b"".join(_jump(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values))
        return _load(offset) + tests + _give(_EPERM)

    @staticmethod
    def _never(offset: int, values: list[int]) -> bytes:
        tests = b"".join(_jump(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values))
        return _load(offset) + tests + _jump(_EQUAL, values[0], 1, 1) + _give(_EPERM)

    def apply(self) -> None:
        """Apply the filter to this process and every process that it starts. Raises OSError."""
        process_rules = b""
        pid = os.getpid()
        process_rules += self._when("prlimit64", self._only(16, [0, pid]))
        if not self.signals:
            process_rules += self._when("sched_setaffinity", self._only(16, [0, pid]))
            process_rules += self._when("kill", self._only(16, [0, pid])) + self._when("tgkill", self._only(16, [pid]))
        program = self.head + process_rules + _give(_ALLOW)
        buffer = ctypes.create_string_buffer(program, len(program))
        descriptor = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
        no_new_privileges()
        number = self.numbers["special"]["seccomp"]
        _check(_libc.syscall(number, 1, 0, descriptor), "seccomp")


def limit_resources(limits: dict[str, Any], processes: int | None) -> None:
    """Limit the resources of this process and every process that it starts; their number unless it is None."""
    cpu = max(1, int(-(-limits["cpu"] // 1)))
    bounds = [
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, limits["memory"], limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["file_size"], limits["file_size"]),
        (resource.RLIMIT_NOFILE, limits["files"], limits["files"]),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 65536, 65536),
    ]
    if processes is not None:
        bounds.append((resource.RLIMIT_NPROC, processes, processes))
    for which, soft, hard in bounds:
        with contextlib.suppress(ValueError, OSError):  # already lower
            resource.setrlimit(which, (soft, hard))
