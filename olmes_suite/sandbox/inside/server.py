"""The server of a jail: it forks a process for every program, watches it, and cleans up after it.

It holds nothing that a program could exploit: tests and programs run in different jails with servers of their own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import types
from typing import Any

from . import asserts, candidate, confine, unittests, usage, wire

_TICK = 0.05
"""Seconds between two checks of a running program's memory and files."""
_OUTPUTS = 2**20
"""Characters of stdout of several runs of a program, after which they are reported: a frame has a largest size."""
_REPORT = 2**18
"""Bytes read of the report of a process of tests."""


def main(control: int) -> None:
    """Serve the host on the socket `control` until it closes."""
    link = socket.socket(fileno=control)
    setup = wire.receive(link)
    try:
        server = Server(link, setup)
    except (OSError, KeyError) as error:
        wire.send(link, {"error": f"{type(error).__name__}: {error}"})
        return
    wire.send(link, {"confined": server.confined})
    with contextlib.suppress(EOFError, ConnectionError):
        server.serve()


class Server:
    """A server that confines itself on creation. Raises OSError where the kernel does not allow it."""

    def __init__(self, link: socket.socket, setup: dict[str, Any]) -> None:
        self.link, self.scratch = link, list(setup["scratch"])
        self.compiled: dict[str, types.CodeType] = {}
        os.umask(0o077)
        confine.first_to_go()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.path[:] = [*sys.path, *setup["site"]]
        for name in setup["preload"]:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self.confined = self._confine(setup)
        # A shown interpreter may lie below /tmp: it is read-only for programs, and cleaning up must not delete it.
        self.initial = {folder: set(os.listdir(folder)) for folder in self.scratch}
        gc.disable()
        gc.freeze()

    def _confine(self, setup: dict[str, Any]) -> dict[str, Any]:
        rung, uid = setup["rung"], setup["uid"]
        if rung == "unsafe":
            self.filter = None
            self.all_mine = self.limited = False
            self.most = 1024
            return {"processes": True, "network": True}
        own_network = rung == "bubblewrap" or confine.enter_namespaces()
        if rung == "landlock" and own_network:
            _continue_in_child()
        confine.no_new_privileges()
        if uid is not None:
            confine.become(uid)
        confine.drop_capabilities()
        confine.hide_memory()
        if rung == "landlock":
            confine.landlock(setup["readable"], setup["listable"], [*self.scratch, *setup["devices"]])
        confine.adopt_orphans()
        # In its own process namespace or as its own user, a jail can count and end all of its processes.
        own_pids, own_user = os.getpid() == 1, uid is not None
        counted = own_user or (own_pids and os.getuid() != 0 and _kernel() >= (5, 14))
        self.all_mine, self.limited = own_pids or own_user, counted
        # Landlock hides /proc, so that memory is limited per process only and the number of processes has to be small.
        self.most = 1024 if rung == "bubblewrap" else 16
        domains = [] if not own_network else [1, 2, 10] if rung == "bubblewrap" else [2, 10]
        self.filter = confine.Filter(
            processes=counted, signals=own_pids, owner=rung == "bubblewrap" or own_user, domains=domains
        )
        return {"processes": counted, "network": False, "own_pids": own_pids, "own_user": own_user}

    def serve(self) -> None:
        """Run one job at a time. Raises EOFError when the host has closed the link."""
        while True:
            job, handles = self._next_job()
            wire.send(self.link, self.run(job, handles))

    def _next_job(self) -> tuple[dict[str, Any], list[int]]:
        """Receive a job's frame, and the file descriptors sent with the one-byte message before it."""
        mark = b"s"
        handles: list[int] = []
        while mark == b"s":  # a stop of a job that had already ended
            mark, handles, _, _ = socket.recv_fds(self.link, 1, 1)
        if not mark:
            raise EOFError
        return wire.receive(self.link), handles

    def run(self, job: dict[str, Any], handles: list[int]) -> dict[str, Any]:
        """Fork a process for the job, watch it, clean up and return its report."""
        if "stdins" in job:
            return self._run_each(job)
        code = self._code(job["tests"]) if job["kind"] == "asserts" else None
        reading, writing = os.pipe()
        ready, confirm = os.pipe()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._child(job, code, handles, writing, confirm)
        for handle in (writing, confirm, *handles):
            os.close(handle)
        problem = os.read(ready, 300)
        os.close(ready)
        watch = Watch(self, pid, reading, job, started)
        watch.until_it_ends()
        clean = self._clean_up(pid)
        os.close(reading)
        # The process's own message is reliable only because it is sent before the program runs.
        return {**watch.report(), "clean": clean, "problem": problem[1:].decode("utf-8", "replace") or None}

    def _run_each(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run a program once for each input, each time in a process of its own, up to the first that does not end well.

        Also stops once the outputs fill a frame; the host asks for the rest.
        """
        runs: list[dict[str, Any]] = []
        for stdin in job["stdins"]:
            runs.append(self.run({**{key: job[key] for key in ("kind", "program", "limits")}, "stdin": stdin}, []))
            last = runs[-1]
            ended_well = last["clean"] and last["problem"] is None and last["ended"] == "exit" and last["status"] == 0
            if not ended_well or sum(len(one["output"]) for one in runs) > _OUTPUTS:
                break
        return {"runs": runs, "clean": runs[-1]["clean"], "problem": runs[-1]["problem"]}

    def _code(self, source: str) -> types.CodeType:
        """Compile tests, or return them from the cache: the tests of a problem check many programs."""
        if source not in self.compiled:
            if len(self.compiled) > 3:
                self.compiled.clear()
            self.compiled[source] = compile(source, "<tests>", "exec")
        return self.compiled[source]

    def _child(
        self, job: dict[str, Any], code: types.CodeType | None, handles: list[int], writing: int, confirm: int
    ) -> None:
        try:
            try:
                self._prepare(job, [writing, confirm, *handles], writing)
            except BaseException as error:
                os.write(confirm, f"!{type(error).__name__}: {error}".encode()[:300])
                return
            os.write(confirm, b".")
            os.close(confirm)
            text = _work(job, code, handles, writing)
            if text:
                _write_all(writing, text.encode("ascii", "replace"))
        finally:
            os._exit(0)

    def _prepare(self, job: dict[str, Any], handles: list[int], writing: int) -> None:
        os.setsid()
        os.chdir(self.scratch[0])
        self._streams(job, writing)
        low = 3
        for handle in sorted(handles):
            os.closerange(low, handle)
            low = handle + 1
        os.closerange(low, 4096)
        confine.limit_resources(job["limits"], min(job["limits"]["processes"], self.most) if self.limited else None)
        if self.filter is not None:
            self.filter.apply()
        _seed_random()
        gc.enable()

    @staticmethod
    def _streams(job: dict[str, Any], writing: int) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        stdin = null
        if job["kind"] == "run":
            stdin = os.open("stdin", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.unlink("stdin")
            _write_all(stdin, job["stdin"].encode("utf-8", "surrogatepass"))
            os.lseek(stdin, 0, os.SEEK_SET)
        os.dup2(stdin, 0)
        os.dup2(writing if job["kind"] == "run" else null, 1)
        os.dup2(null, 2)

    def _clean_up(self, pid: int) -> bool:
        """End the program's processes and empty its folders. Returns False where the jail cannot be used again."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if self.all_mine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, 0 if self.all_mine else os.WNOHANG)[0]:
                    pass
                break
            except ChildProcessError:
                break
        else:
            return False
        try:
            return all([usage.emptied(folder, self.initial[folder]) for folder in self.scratch])
        except (OSError, RecursionError):
            return False


class Watch:
    """The watch over one running program."""

    def __init__(self, server: Server, pid: int, reading: int, job: dict[str, Any], started: float) -> None:
        self.server, self.pid, self.reading, self.limits, self.started = server, pid, reading, job["limits"], started
        self.cap = self.limits["output"] if job["kind"] == "run" else _REPORT
        self.output = bytearray()
        self.ended: str | None = None
        self.status, self.cpu = 0, 0.0

    def until_it_ends(self) -> None:
        """Wait for the end of the program's process; end it when it exceeds a limit or the host stops it."""
        poller = select.poll()
        try:
            handle = os.pidfd_open(self.pid)
            poller.register(handle, select.POLLIN)
        except (AttributeError, OSError):
            handle = -1
        poller.register(self.server.link, select.POLLIN)
        poller.register(self.reading, select.POLLIN)
        wait = _TICK if handle >= 0 else 0.002
        checked_at = self.started
        while not self._is_over():
            ready = dict(poller.poll(wait * 1000))
            if self.reading in ready and not self._read():
                poller.unregister(self.reading)
            if self.server.link.fileno() in ready:
                self._end("stopped")
                if not self.server.link.recv(1, socket.MSG_PEEK):
                    raise EOFError
                self.server.link.recv(1)
                poller.unregister(self.server.link)
            if time.monotonic() - checked_at >= _TICK:
                checked_at = time.monotonic()
                self._check(checked_at - self.started)
        self._drain()
        if handle >= 0:
            os.close(handle)

    def _is_over(self) -> bool:
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.status, self.cpu = status, usage.ru_utime + usage.ru_stime
        return True

    def _read(self) -> bool:
        part = os.read(self.reading, 65536)
        self.output += part
        if len(self.output) > self.cap:
            del self.output[self.cap :]
            self._end("output")
            return False
        return bool(part)

    def _drain(self) -> None:
        """Read the rest of the pipe without waiting for a leftover process that holds the other end."""
        os.set_blocking(self.reading, False)
        with contextlib.suppress(BlockingIOError):
            while len(self.output) <= self.cap and self._read():
                pass

    def _check(self, elapsed: float) -> None:
        if elapsed - usage.waited(self.pid) > self.limits["idle"] or elapsed > self.limits["wall"]:
            self._end("timeout")
        elif usage.resident(self.pid if not self.server.all_mine else None) > self.limits["memory"]:
            self._end("memory")
        elif self._written() > self.limits["scratch"]:
            self._end("files")

    def _written(self) -> float:
        try:
            return sum(usage.size(folder, self.server.initial[folder]) for folder in self.server.scratch)
        except RecursionError:  # folders nested too deeply
            return float("inf")

    def _end(self, reason: str) -> None:
        self.ended = self.ended or reason
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def report(self) -> dict[str, Any]:
        """Return how the program ended: exit, signal, timeout, memory, output, files or stopped (by the host)."""
        ended = self.ended
        signal_number = os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0
        if ended in (None, "stopped") and (signal_number == signal.SIGXCPU or self.cpu >= self.limits["cpu"]):
            ended = "timeout"
        return {
            "ended": ended or ("signal" if signal_number else "exit"),
            "signal": signal_number,
            "status": os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else None,
            "cpu": round(self.cpu, 4),
            "wall": round(time.monotonic() - self.started, 4),
            "output": self.output.decode("utf-8", "replace"),
        }


def _work(job: dict[str, Any], code: types.CodeType | None, handles: list[int], writing: int) -> str:
    """Run a job in its own process and return the text for the host."""
    if job["kind"] == "run":
        _run_program(job["program"])
        return ""
    if job["kind"] == "unittests":
        unittests.run(job, lambda text: _write_all(writing, text.encode("ascii", "replace")))
        return ""
    link = socket.socket(fileno=handles[0])
    if code is not None:
        return asserts.run(job, code, link)
    os.close(writing)
    candidate.serve(job["program"], link)
    return ""


def _run_program(program: str) -> None:
    """Execute a program as a script and end the process with its exit status."""
    status = 0
    try:
        sys.argv = ["program"]
        candidate.load(program, "__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        status = 1
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    os._exit(status & 255)


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _seed_random() -> None:
    """Start every program from the same random state, so that verdicts are repeatable."""
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed(0)


def _continue_in_child() -> None:
    """Fork into the new process namespace; the parent only waits."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        os._exit(0)


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)
