"""Fixtures of the training stages' tests: folders to train in, with copies of checkpoints that are made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rlvr_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiny`, a policy that soon ends its text, and `reward`, a reward model; read only."""
    from rlvr_fixture import make_models

    folder = tmp_path_factory.mktemp("rlvr")
    make_models(folder)
    return folder


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages run without the plugins that are installed on this machine."""
    monkeypatch.setattr("pluggy.PluginManager.load_setuptools_entrypoints", lambda *_: 0)


@pytest.fixture
def train_folder(tmp_path: Path, tiny_checkpoint: Path, no_plugins: None, hash_cache: Path) -> Path:
    """A folder with a copy of the tiny checkpoint in `tiny`, for stages without plugins."""
    shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    return tmp_path


@pytest.fixture
def rlvr_folder(tmp_path: Path, rlvr_checkpoints: Path, no_plugins: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies of the RLVR checkpoints, for stages without plugins whose verifiers toss coins."""
    from rlvr_fixture import Coin

    monkeypatch.setattr("train_plugins.rl.rollouts.Verifiers", Coin)
    return Path(shutil.copytree(rlvr_checkpoints, tmp_path, dirs_exist_ok=True))
