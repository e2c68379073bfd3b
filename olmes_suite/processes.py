"""Processes that end with their parent, also where the parent is killed, so that none keeps writing files."""

from __future__ import annotations

import ctypes
import signal
import sys

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_prctl = (
    ctypes.CDLL(None).prctl if sys.platform == "linux" else None
)  # looked up here because a forked child may only call it


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Make the kernel send the signal `number` to this process when its parent dies. Linux only.

    Can be used as `preexec_fn`.
    """
    if _prctl is not None:
        _prctl(_SET_DEATH_SIGNAL, int(number))
