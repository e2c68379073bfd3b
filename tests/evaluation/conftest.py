"""Fixtures of the tests that make runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import write_gsm8k


@pytest.fixture(scope="session")
def gsm8k_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with 40 GSM8K documents of our own; read only."""
    return write_gsm8k(tmp_path_factory.mktemp("mirror"))
