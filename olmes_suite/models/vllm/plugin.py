"""Loaded by vLLM in each of its processes (entry point `vllm.general_plugins`): they end when their run does.

A run that is killed cannot end its engine, which would hold the device's memory against the run that takes over.
"""

from __future__ import annotations

import os
import threading
import time

OWNER = "OLMES_VLLM_OWNER"
"""Environment: the process whose engine this is. Without it, as under `vllm serve`, nothing is watched."""
EVERY = 1.0
"""Seconds between looks."""


def end_with_owner() -> None:
    """Watch this process's parent, and end when it has ended; nothing in the owner itself."""
    owner = os.environ.get(OWNER)
    if owner is None or owner == str(os.getpid()):
        return
    threading.Thread(target=_watch, args=(os.getppid(), int(owner)), daemon=True).start()


def _watch(parent: int, owner: int) -> None:
    while os.getppid() == parent and _exists(owner):  # the parent may have ended before this was loaded
        time.sleep(EVERY)
    os._exit(1)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
