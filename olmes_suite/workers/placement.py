"""Placement of workers: the GPUs that each worker sees and the processor threads that it uses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from olmes_suite.errors import UsageError

LINE = re.compile(r"^\s*(GPU|MIG) .*\(UUID: ([A-Za-z0-9/-]+)\)")
"""Matches a line of `nvidia-smi -L`."""


def gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return this machine's GPUs by their names in `CUDA_VISIBLE_DEVICES`, without importing torch."""
    if (chosen := environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in chosen.split(",")]
        return [name for name in names if name and name != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        output = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed_gpus(output)


def listed_gpus(text: str) -> list[str]:
    """Return the names in the output of `nvidia-smi -L`. The parts of a GPU (MIG) replace the GPU."""
    names: list[str] = []
    whole = None
    for kind, name in (match.groups() for line in text.splitlines() if (match := LINE.match(line))):
        if kind == "GPU":
            whole = len(names) + 1
            names.append(name)
        elif whole is not None and len(names) == whole and names[-1].startswith("GPU"):
            names[-1] = name
        else:
            names.append(name)
    return names


def assign(
    workers: int, each: int, device: str | None, environ: Mapping[str, str] = os.environ
) -> list[dict[str, str]]:
    """Return the variables of each worker's environment: `each` GPUs for each worker, or its share of the processor.

    Raises UsageError where the machine has too few GPUs, or `device` names one of them.
    """
    if device is not None and device.startswith("cuda:"):
        raise UsageError(
            f"--device {device}: names one GPU; leave it out, since --workers gives each worker its own GPU"
        )
    names = [] if device is not None and device.startswith("cpu") else gpus(environ)
    if not names:
        return [threads(workers, environ)] * workers
    if workers * each > len(names):
        groups = f"{each} for each worker" if each > 1 else "one for each worker"
        raise UsageError(f"--workers {workers}: needs {workers * each} GPUs, {groups}; there are {len(names)}")
    shares = [names[each * worker : each * (worker + 1)] for worker in range(workers)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]


def threads(workers: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for a worker's share of the processor, except those that the user has set.

    Without them vLLM would bind every engine to the same processors, the first of the machine.
    """
    variables = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // workers))}
    if workers > 1:
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    return {name: value for name, value in variables.items() if name not in environ}
