"""What can go wrong while a model is loaded, trained and saved, each in one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from olmes_suite.errors import ModelError, OlmesError, StageRefused, StorageError
from train_plugins import lineage

_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR}
)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """A trainer is made from the checkpoint `model`. Raises ModelError or StageRefused."""
    try:
        yield
    except OlmesError:
        raise
    except torch.OutOfMemoryError:
        raise _no_room() from None
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"{model}: cannot be loaded for training: {_short(error)}") from None


@contextmanager
def training(output: Path) -> Iterator[None]:
    """A stage trains and saves into `output`. Raises StageRefused or StorageError, which name what is left."""
    try:
        yield
    except OlmesError:
        raise
    except torch.OutOfMemoryError:
        raise _no_room() from None
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = disk_error(error)
        if reason is None:
            raise
        raise StorageError(
            f"cannot write {output}: {reason}; {lineage.last_good(output)}; free some space, then go on with --resume"
        ) from None


def disk_error(error: BaseException) -> str | None:
    """Why a file could not be written, as the system, safetensors or torch say it; None for any other error."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _DISK else None
    said = str(error)
    if found := re.search(r"\(os error (\d+)\)", said):  # safetensors
        return os.strerror(int(found[1])) if int(found[1]) in _DISK else None
    if "PytorchStreamWriter failed" in said or "inline_container" in said:  # torch keeps the system's reason to itself
        return "the disk is full, or files may not be that large"
    return None


def _no_room() -> StageRefused:
    return StageRefused(
        "out of memory; lower trainer.per_device_train_batch_size or trainer.max_length, or use more processes"
    )


def _short(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
