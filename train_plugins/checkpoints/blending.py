"""Weighted means of tensors, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal["linear", "slerp"]
METHODS: tuple[Method, ...] = ("linear", "slerp")
PARALLEL = 0.9995
"""Cosine above which two tensors count as parallel, so that the arc between them is a line."""


def linear(tensors: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """Return Σ wᵢ·xᵢ in 32 bits, for weights that sum to 1 (Wortsman et al. 2022). Reads one tensor at a time."""
    total: Tensor | None = None
    for tensor, weight in zip(tensors, weights, strict=True):
        part = tensor.float() * weight
        total = part if total is None else total.add_(part)
    if total is None:
        raise ValueError("no tensors")
    return total


def slerp(tensors: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the point on the arc from the first tensor to the second, in 32 bits (Shoemake 1985).

    With t the second weight and θ the angle between the tensors, taken as vectors, it is
    sin((1−t)θ)/sin θ · x₁ + sin(tθ)/sin θ · x₂. Parallel tensors and tensors of zeros are joined linearly.
    """
    import torch

    first, second = (tensor.float() for tensor in tensors)
    share = weights[1]
    norms = [float(torch.linalg.vector_norm(one, dtype=torch.float64)) for one in (first, second)]
    if not all(norms):
        return linear((first, second), weights)
    cosine = float((first * second).sum(dtype=torch.float64)) / (norms[0] * norms[1])
    if abs(cosine) > PARALLEL:
        return linear((first, second), weights)
    angle = math.acos(cosine)
    return (math.sin((1 - share) * angle) * first + math.sin(share * angle) * second) / math.sin(angle)


Blend: TypeAlias = Callable[[Iterable["Tensor"], Sequence[float]], "Tensor"]
BLENDS: dict[Method, Blend] = {"linear": linear, "slerp": slerp}
