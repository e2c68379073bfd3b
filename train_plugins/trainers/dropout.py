"""Dropout switched off in a model: the passes that are compared with each other must see the same network."""

from __future__ import annotations

from typing import Any

from torch import nn


def switch_off(model: Any) -> None:
    """No dropout in any layer, whatever the mode.

    TRL's `disable_dropout` reaches layers of their own only. Many models (Llama's attention among them) keep the
    probability as a number on a module, or read it from the configuration in each pass.
    """
    configs = {
        id(found): found for module in model.modules() if hasattr(found := getattr(module, "config", 0), "__dict__")
    }
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _zero(module)
    for config in configs.values():
        _zero(config)


def _zero(owner: Any) -> None:
    """Set each number whose name speaks of dropout to 0."""
    for name, value in list(vars(owner).items()):
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(owner, name, 0.0)
