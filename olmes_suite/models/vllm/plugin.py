"""A plugin that ends vLLM's processes with their run (entry point `vllm.general_plugins`).

A run that is killed cannot end its engine, which would keep the device's memory from the run that continues.
"""

from __future__ import annotations

import os
import threading
import time

OWNER = "OLMES_VLLM_OWNER"
"""The variable with the id of the engine's owner. Without it, as under `vllm serve`, nothing is watched."""
EVERY = 1.0
"""Seconds between checks."""


def end_with_owner() -> None:
    """End this process when its parent or the owner has ended. Does nothing in the owner."""
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
