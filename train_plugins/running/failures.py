"""Conversion of errors while a model is loaded, trained and saved, each to one line."""

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

from olmes_suite.errors import ModelError, OlmesError, StageRefused, StorageError, UsageError, one_line
from train_plugins.checkpoints import lineage

_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR}
)
RESTORES = frozenset(
    {
        "_load_optimizer_and_scheduler", "_load_rng_state", "_load_from_checkpoint", "_load_scaler", "load_from_json",
        "compare_trainer_and_checkpoint_args",
    }
)  # fmt: skip
"""Functions of transformers that read a checkpoint when training resumes."""
HEAD = "score."
"""Prefix of the tensors of a sequence classifier's head."""


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Convert errors while a trainer is created from the checkpoint `model`. Raises ModelError or StageRefused.

    transformers initialises tensors missing from the files at random and only prints a report. Here the report is an
    error, except for a reward head, for which the stages have the key `fresh_head`.
    """
    report = modeling_utils.log_state_dict_report
    modeling_utils.log_state_dict_report = _strict(report)
    try:
        yield
    except OlmesError:
        raise
    except torch.OutOfMemoryError:
        raise _out_of_memory() from None
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"{model}: cannot be loaded for training: {one_line(error)}") from None
    finally:
        modeling_utils.log_state_dict_report = report


def _strict(report: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap transformers' loading report to raise ModelError for tensors that are missing or have another shape."""

    def checked(*, pretrained_model_name_or_path: str, loading_info: Any, **more: Any) -> Any:
        missing = {name for name in loading_info.missing_keys if not name.startswith(HEAD)}
        mismatched = {key if isinstance(key, str) else key[0] for key in loading_info.mismatched_keys}
        for names, what in ((missing, "lack"), (mismatched, "have the wrong shape for")):
            if names:
                raise ModelError(
                    f"{pretrained_model_name_or_path}: its weight files {what} {len(names)} of the model's tensors "
                    f"({min(names)}); copy it again"
                )
        return report(pretrained_model_name_or_path=pretrained_model_name_or_path, loading_info=loading_info, **more)

    return checked


@contextmanager
def training(output: Path, start: Path | None = None) -> Iterator[None]:
    """Convert errors while a stage, resumed from the checkpoint `start`, trains and saves to `output`.

    Raises StageRefused, StorageError, or UsageError for a checkpoint whose content cannot be restored.
    """
    try:
        yield
    except OlmesError:
        raise
    except torch.OutOfMemoryError:
        raise _out_of_memory() from None
    except Exception as error:
        if start is not None and _restoring(error):
            raise UsageError(
                f"--resume: {start} is damaged ({type(error).__name__}: {one_line(error, 120)}); remove it to resume "
                "from an earlier checkpoint, or start again with another --output"
            ) from None
        if not isinstance(error, OSError | RuntimeError | SafetensorError):
            raise
        _storage(output, error)


def _restoring(error: BaseException) -> bool:
    """Return whether an error was raised while transformers restored a checkpoint's state."""
    trace, names = error.__traceback__, set()
    while trace is not None:
        names.add(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return bool(names & RESTORES)


def _storage(output: Path, error: BaseException) -> None:
    """Raise StorageError if a file of `output` could not be written, otherwise the error itself."""
    reason = disk_error(error)
    if reason is None:
        raise error
    raise StorageError(
        f"cannot write {output}: {reason}; {lineage.last_good(output)}; free some space and continue with --resume"
    ) from None


def disk_error(error: BaseException) -> str | None:
    """Return why a file could not be written (errors of the system, safetensors or torch), or None."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _DISK else None
    message = str(error)
    if match := re.search(r"\(os error (\d+)\)", message):  # safetensors
        return os.strerror(int(match[1])) if int(match[1]) in _DISK else None
    if (
        "PytorchStreamWriter failed" in message or "inline_container" in message
    ):  # torch does not pass on the system's reason
        return "the disk is full, or the file size exceeds a limit"
    return None


def _out_of_memory() -> StageRefused:
    return StageRefused(
        "out of memory; lower trainer.per_device_train_batch_size at the same batch_size and continue with --resume; "
        "or, in another --output, lower trainer.max_length or use more processes"
    )
