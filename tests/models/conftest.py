"""Fixtures of the backends' tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def checkpoint_copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may break."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))
