"""Detection of a GPU."""

from __future__ import annotations


def has_gpu() -> bool:
    """Tell whether torch can use a GPU in this process. Imports torch."""
    import torch

    return bool(torch.cuda.is_available())
