"""Identification of a judge's checkpoint, before the candidate model is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from olmes_suite.errors import ModelError
from olmes_suite.models.local.checkpoint import check_name, is_hub_id
from olmes_suite.models.local.fingerprint import fingerprint_of, hub_commit


def digest_of(model: str) -> str:
    """Hash a checkpoint: SHA-256 of its files, or of its Hub id and commit.

    The configuration of a Hub checkpoint is fetched if it is not cached.

    Raises ModelError for a folder without a checkpoint and for a Hub checkpoint that cannot be reached.
    """
    if is_hub_id(model):
        if hub_commit(model) is None:
            check_name(model)
            _fetch_config(model)
    elif not (Path(model).expanduser() / "config.json").is_file():
        raise ModelError(f"{model}: is not a checkpoint folder (it has no config.json); give a folder or a Hub id")
    return fingerprint_of(model).digest


def _fetch_config(model: str) -> None:
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(model, "config.json")
    except Exception as error:  # the Hub's client raises many types, which all mean that the file is unavailable
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        reason = "HF_HUB_OFFLINE is set" if offline else type(error).__name__
        raise ModelError(f"{model}: is not on this machine and cannot be fetched ({reason}); give a folder") from None
