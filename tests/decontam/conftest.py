"""Fixtures of the decontamination's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from decontam_fixture import Decontam

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of this folder in one worker: compiling what they scan with takes half a minute, once."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("decontam"))


@pytest.fixture
def decontam(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Decontam:
    """Runs decontam commands in the test's folder, against an evaluation of two items."""
    return Decontam(tmp_path, capfd)
