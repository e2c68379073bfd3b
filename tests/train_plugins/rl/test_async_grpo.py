"""TRL's asynchronous trainer in the places where its releases have it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

pytest.importorskip("trl")
from train_plugins.rl import rollouts  # noqa: F401 - imports TRL before it is replaced


class Config:
    """A stand-in."""


class Trainer:
    """A stand-in."""


@pytest.mark.parametrize("place", ["trl", "trl.experimental.async_grpo"])
def test_the_trainer_is_found_in_either_place(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = {name: ModuleType(name) for name in ("trl", "trl.experimental", "trl.experimental.async_grpo")}
    for name, stand_in in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    vars(stand_ins[place]).update(AsyncGRPOConfig=Config, AsyncGRPOTrainer=Trainer)
    spec = importlib.util.find_spec("train_plugins.rl.async_grpo")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_plugins.rl.async_grpo", module)
    spec.loader.exec_module(module)
    assert module.AsyncGRPOConfig is Config
    assert issubclass(module.AsyncGrpo, Trainer)
