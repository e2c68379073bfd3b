"""Several processes for one stage: the same command line, started by accelerate; errors stay one line."""

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
from olmes_suite.plugins import install
from olmes_suite.processes import end_with_parent
from olmes_suite.tasks.index import nearest

SHIPPED = Path(__file__).parent.parent / "launchers"
STATUS = "OLMES_LAUNCH_STATUS"
"""Set for a launched process: the file in which the first one that fails says why."""
LAUNCHERS = ("accelerate",)


@dataclass(frozen=True, slots=True)
class Launch:
    """How a stage is started."""

    launcher: str = "accelerate"
    processes: int = 1
    config: Path | None = None
    """A configuration file of accelerate; None: data parallel (DDP)."""

    def options(self) -> list[str]:
        """As they stand on the command line."""
        found = ["--launcher", self.launcher, "--num-processes", str(self.processes)]
        return found + (["--launch-config", str(self.config)] if self.config else [])


class Launched(OlmesError):
    """What a launched process ended with, told by the process that started it."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.exit_code = status


def read(launcher: str | None, processes: int | None, config: str | None) -> Launch | None:
    """The launch that the options ask for; None for this very process. Raises UsageError."""
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
    """This process is one of those that a launcher started."""
    return STATUS in os.environ


def start(launch: Launch, arguments: Sequence[str]) -> None:
    """Run `olmes train …` (`arguments`) in the processes of `launch`, to their end.

    Raises Launched with the line and the exit status of the first process that failed.
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
        except ImportError as error:  # DeepSpeed, where the configuration asks for it
            raise UsageError(f"--launch-config: {one_line(error)}") from None
        except (Exception, SystemExit) as error:  # each launcher has its own way to say that a process failed
            if type(error).__name__ == "SignalException":
                raise KeyboardInterrupt from None
            _tell(file, error)
        finally:
            del os.environ[STATUS]


def _options(launch: Launch, arguments: Sequence[str]) -> list[str]:
    kind = ["--config_file", str(launch.config)] if launch.config else ["--dynamo_backend", "no"]
    if not launch.config and launch.processes > 1:
        kind.append("--multi_gpu")  # on a machine without one, gloo
    return [
        *kind, "--num_processes", str(launch.processes), "--num_machines", "1", "--mixed_precision", "no",
        "--main_process_port", str(_free_port()), "-m", "olmes_suite.cli.main", "train", *arguments,
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tell(file: Path, error: BaseException) -> None:
    """Raise what the failed process said, or KeyboardInterrupt where it was interrupted."""
    if not file.is_file():
        if isinstance(error, SystemExit) and not error.code:
            return
        raise Launched(f"a process of the launcher ended without a word: {one_line(error)}", 1)
    said = json.loads(file.read_text(encoding="utf-8"))
    if said["status"] == 130:
        raise KeyboardInterrupt
    raise Launched(said["line"], said["status"])


def reporting(work: Callable[[], int]) -> int:
    """Run `work` in a launched process; an error goes to the launcher's file, not to the terminal of every process.

    The status is not 0 then, so that the launcher ends the other processes, which may wait for this one.
    """
    end_with_parent(signal.SIGKILL)  # torch starts it in a session of its own, where no signal to the group arrives
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
        if Path(os.environ[STATUS]).is_file():  # another process has said why it ended, and took the connection with it
            return 1
        raise
