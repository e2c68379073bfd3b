"""Switching dropout off in a model, so that forward passes that are compared use the same network."""

from __future__ import annotations

from typing import Any

from torch import nn


def switch_off(model: nn.Module) -> None:
    """Set every dropout probability of a model to 0, so that training mode has no dropout either.

    TRL's `disable_dropout` reaches only dropout layers. Many models (Llama's attention among them) store the
    probability as a number on a module, or read it from the configuration in each pass.
    """
    configs = {
        id(config): config for module in model.modules() if hasattr(config := getattr(module, "config", 0), "__dict__")
    }
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _zero(module)
    for config in configs.values():
        _zero(config)


def _zero(owner: Any) -> None:
    """Set each float attribute of a module or configuration that is named after dropout to 0."""
    for name, value in list(vars(owner).items()):
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(owner, name, 0.0)
