"""Where workers run: which GPUs, and how many processor threads, each of them sees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from olmes_suite.errors import UsageError

LINE = re.compile(r"^\s*(GPU|MIG) .*\(UUID: ([A-Za-z0-9/-]+)\)")
"""A line of `nvidia-smi -L`."""


def gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs of this machine as `CUDA_VISIBLE_DEVICES` names them; found without importing torch."""
    if (chosen := environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        named = [name.strip() for name in chosen.split(",")]
        return [name for name in named if name and name != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed_gpus(listed)


def listed_gpus(text: str) -> list[str]:
    """The names in the output of `nvidia-smi -L`; a GPU's parts (MIG) stand in its place."""
    found: list[str] = []
    whole = None
    for kind, name in (match.groups() for line in text.splitlines() if (match := LINE.match(line))):
        if kind == "GPU":
            whole = len(found) + 1
            found.append(name)
        elif whole is not None and len(found) == whole and found[-1].startswith("GPU"):
            found[-1] = name
        else:
            found.append(name)
    return found


def assign(
    workers: int, each: int, device: str | None, environ: Mapping[str, str] = os.environ
) -> list[dict[str, str]]:
    """What to set in each worker's environment: `each` GPUs of its own, or its share of the processor.

    Raises UsageError where there are fewer GPUs than that takes, or `device` names one of them.
    """
    if device is not None and device.startswith("cuda:"):
        raise UsageError(f"--device {device}: names one GPU; leave it out: --workers gives each worker its own")
    found = [] if device is not None and device.startswith("cpu") else gpus(environ)
    if not found:
        return [threads(workers, environ)] * workers
    if workers * each > len(found):
        groups = f"{each} for each worker" if each > 1 else "one for each worker"
        raise UsageError(f"--workers {workers}: needs {workers * each} GPUs, {groups}; there are {len(found)}")
    shares = [found[each * worker : each * (worker + 1)] for worker in range(workers)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]


def threads(workers: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The share of the processor that a worker's matrix products may use, unless the user said.

    vLLM would bind each engine to the same processors, the machine's first.
    """
    wanted = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // workers))}
    if workers > 1:
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    return {name: value for name, value in wanted.items() if name not in environ}
