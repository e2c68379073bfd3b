"""Several processes for one stage: accelerate starts the same command line; errors stay one line."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmes_suite.errors import OlmesError, UsageError, one_line
from olmes_suite.extras import install
from olmes_suite.processes import end_with_parent
from olmes_suite.tasks.index import nearest

SHIPPED = Path(__file__).parent.parent / "launchers"
STATUS = "OLMES_LAUNCH_STATUS"
"""Variable of launched processes: the file to which the first failing one writes its error."""
LAUNCHERS = ("accelerate",)


@dataclass(frozen=True, slots=True)
class Launch:
    """The launcher of a stage, with its processes and configuration."""

    launcher: str = "accelerate"
    processes: int = 1
    config: Path | None = None
    """A configuration file of accelerate; None: data parallel training (DDP)."""

    def options(self) -> list[str]:
        """Return the launch as command-line options."""
        options = ["--launcher", self.launcher, "--num-processes", str(self.processes)]
        return options + (["--launch-config", str(self.config)] if self.config else [])


class Launched(OlmesError):
    """The error of a launched process, raised in the process that started it."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.exit_code = status


def read(launcher: str | None, processes: int | None, config: str | None) -> Launch | None:
    """Return the launch that the options describe; None to train in this process. Raises UsageError."""
    if launcher is None:
        if processes is not None or config is not None:
            raise UsageError("--num-processes and --launch-config need --launcher accelerate")
        return None
    if launcher not in LAUNCHERS:
        raise UsageError(f"--launcher {launcher}: known: {', '.join(LAUNCHERS)}")
    if processes is None or processes < 1:
        raise UsageError("--launcher accelerate needs --num-processes, 1 or more")
    return Launch(launcher, processes, None if config is None else _config(config))


def _config(name: str) -> Path:
    file, shipped = Path(name), SHIPPED / f"{name}.yaml"
    if file.is_file():
        return file
    if shipped.is_file():
        return shipped
    names = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    raise UsageError(f"--launch-config {name}: no such file{nearest(name, names)}; shipped: {', '.join(names)}")


def launched() -> bool:
    """Return whether a launcher started this process."""
    return STATUS in os.environ


def start(launch: Launch, arguments: Sequence[str]) -> None:
    """Run `olmes train` with `arguments` in the processes of `launch`, and wait for them.

    Raises Launched with the error line and exit status of the first process that failed.
    """
    try:
        from accelerate.commands.launch import launch_command, launch_command_parser
    except ImportError as error:
        raise UsageError(f"--launcher needs accelerate ({error}): {install('train')}") from None
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="olmes-launch-") as folder:
        file = Path(folder) / "status.json"
        os.environ[STATUS] = str(file)
        try:
            launch_command(launch_command_parser().parse_args(_options(launch, arguments)))
        except KeyboardInterrupt:
            raise
        except ImportError as error:  # DeepSpeed, if the configuration needs it
            raise UsageError(f"--launch-config: {one_line(error)}") from None
        except (Exception, SystemExit) as error:  # launchers report a failed process in different ways
            if type(error).__name__ == "SignalException":
                raise KeyboardInterrupt from None
            _reraise(file, error)
        finally:
            del os.environ[STATUS]


def _options(launch: Launch, arguments: Sequence[str]) -> list[str]:
    kind = ["--config_file", str(launch.config)] if launch.config else ["--dynamo_backend", "no"]
    if not launch.config and launch.processes > 1:
        kind.append("--multi_gpu")  # without GPUs accelerate uses gloo
    return [
        *kind, "--num_processes", str(launch.processes), "--num_machines", "1", "--mixed_precision", "no",
        "--main_process_port", str(_free_port()), "-m", "olmes_suite.cli.main", "train", *arguments,
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _reraise(file: Path, error: BaseException) -> None:
    """Raise the error that the failed process reported, or KeyboardInterrupt if it was interrupted."""
    if not file.is_file():
        if isinstance(error, SystemExit) and not error.code:
            return
        raise Launched(f"a process of the launcher ended without reporting an error: {one_line(error)}", 1)
    report = json.loads(file.read_text(encoding="utf-8"))
    if report["status"] == 130:
        raise KeyboardInterrupt
    raise Launched(report["line"], report["status"])


def reporting(work: Callable[[], int]) -> int:
    """Run `work` in a launched process; an error goes to the launcher's file, not to every process's terminal.

    After an error the status is not 0, so that the launcher ends the other processes, which may wait for this one.
    """
    end_with_parent(signal.SIGKILL)  # torch starts a new session, which signals to the group do not reach
    try:
        return work()
    except (OlmesError, KeyboardInterrupt) as error:
        status = 130 if isinstance(error, KeyboardInterrupt) else error.exit_code
        try:
            with Path(os.environ[STATUS]).open("x", encoding="utf-8") as file:
                json.dump({"line": str(error), "status": status}, file)
        except OSError:
            pass  # another process was first
        return status
    except Exception:
        if Path(os.environ[STATUS]).is_file():  # another process has reported its error and closed the connection
            return 1
        raise
