"""A process that ends with the one that started it, be that killed outright: it must not go on writing alone."""

from __future__ import annotations

import ctypes
import signal
import sys

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # bound here: a forked child only calls it


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Linux: have the kernel send the signal `number` to this process when its parent dies. For `preexec_fn` too."""
    if _prctl is not None:
        _prctl(_SET_DEATH_SIGNAL, int(number))
