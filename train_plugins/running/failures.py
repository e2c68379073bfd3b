"""What can go wrong while a model is loaded, trained and saved, each in one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import modeling_utils

from olmes_suite.errors import ModelError, OlmesError, StageRefused, StorageError, one_line
from train_plugins.checkpoints import lineage

_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR}
)
HEAD = "score."
"""Tensors of the head of a sequence classifier."""


@contextmanager
def loading(model: str) -> Iterator[None]:
    """A trainer is made from the checkpoint `model`. Raises ModelError or StageRefused.

    transformers draws tensors that the files lack at random, prints it, and goes on: here its report is an error, but
    for a reward head, which the stages ask for by a key of their own.
    """
    report = modeling_utils.log_state_dict_report
    modeling_utils.log_state_dict_report = _strict(report)
    try:
        yield
    except OlmesError:
        raise
    except torch.OutOfMemoryError:
        raise _no_room() from None
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"{model}: cannot be loaded for training: {one_line(error)}") from None
    finally:
        modeling_utils.log_state_dict_report = report


def _strict(report: Callable[..., Any]) -> Callable[..., Any]:
    """The report of what was loaded, which raises ModelError for tensors that are missing or have another shape."""

    def told(*, pretrained_model_name_or_path: str, loading_info: Any, **more: Any) -> Any:
        missing = {name for name in loading_info.missing_keys if not name.startswith(HEAD)}
        mismatched = {key if isinstance(key, str) else key[0] for key in loading_info.mismatched_keys}
        for names, what in ((missing, "lack"), (mismatched, "have the wrong shape for")):
            if names:
                raise ModelError(
                    f"{pretrained_model_name_or_path}: its weight files {what} {len(names)} of the model's tensors "
                    f"({min(names)}); copy it again"
                )
        return report(pretrained_model_name_or_path=pretrained_model_name_or_path, loading_info=loading_info, **more)

    return told


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
