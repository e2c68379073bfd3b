"""Every module can be imported, in a process of its own, with whatever releases are installed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import ROOT, environment

PROGRAM = """
import importlib, pkgutil, sys
for name in ("olmes_suite", "train_plugins", "decontam", "leaderboard"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if module.name.rpartition(".")[2] == "__main__" or "._tasks." in module.name or ".inside." in module.name:
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            if getattr(error, "name", None) in ("wandb", "mlflow", "trackio", "tensorboard"):
                continue  # a tracker's client, in an extra of its own
            print(f"{module.name}: {type(error).__name__}: {error}")
"""


@pytest.mark.long
def test_every_module_can_be_imported(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
