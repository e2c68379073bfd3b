"""The preference losses, as pure functions of log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["dpo_norm", "dpo", "simpo"]


def rewards(kind: Kind, log_probs: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
    """Return the implicit rewards of answers, shape (B,), which the loss compares and the trainer logs.

    `log_probs` and `reference` are sums over each answer's tokens, in nats, and `lengths` the numbers of tokens. All
    have shape (B,).

    dpo_norm   β/|y| · log π(y|x)/π_ref(y|x)      Tülu 3, equation 6
    dpo        β · log π(y|x)/π_ref(y|x)          Rafailov et al. 2023, equation 5
    simpo      β/|y| · log π(y|x)                 Meng et al. 2024, equation 4; takes no reference
    """
    if kind == "simpo":
        return beta * log_probs / lengths
    ratio = beta * (log_probs - reference)
    return ratio / lengths if kind == "dpo_norm" else ratio


def preference(chosen: Tensor, rejected: Tensor, margin: float = 0.0) -> Tensor:
    """Return −log σ(chosen − rejected − margin) for each pair, from rewards of shape (B,).

    `margin` is SimPO's γ (equation 6 of its paper), 0 for DPO.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(chosen - rejected - margin)


@dataclass(frozen=True, slots=True)
class DpoKeys:
    """Keys under `dpo`."""

    loss: Kind = "dpo_norm"
    """dpo_norm: length-normalised DPO, as in the paper. dpo: the original loss. simpo: without a reference model."""
    beta: float = 5.0
    """Factor of the rewards: 5 in the Tülu 3 paper (dpo_norm), about 0.1 for vanilla DPO, 2 to 10 for SimPO."""
    gamma: float = 0.0
    """SimPO's margin between the rewards."""
    separate_forward: bool = False
    """Compute chosen and rejected in two forward passes of half the size, with less memory and the same loss."""
