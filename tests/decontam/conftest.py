"""Fixtures of the decontamination's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from decontam_fixture import Decontam


@pytest.fixture
def decontam(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Decontam:
    """Runs decontam commands in the test's folder, against an evaluation of two items."""
    return Decontam(tmp_path, capfd)
