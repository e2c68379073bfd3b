"""The preference losses, as pure functions of log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["dpo_norm", "dpo", "simpo"]


def rewards(kind: Kind, log_probs: Any, reference: Any, lengths: Any, beta: float) -> Any:
    """Implicit rewards of answers, shape (B,): what the loss compares, and what is logged.

    `log_probs`, `reference`: sums over each answer's tokens, in nats; `lengths`: their number. All have shape (B,).

    dpo_norm   β/|y| · log π(y|x)/π_ref(y|x)      Tülu 3, equation 6
    dpo        β · log π(y|x)/π_ref(y|x)          Rafailov et al. 2023, equation 5
    simpo      β/|y| · log π(y|x)                 Meng et al. 2024, equation 4; takes no reference
    """
    if kind == "simpo":
        return beta * log_probs / lengths
    ratio = beta * (log_probs - reference)
    return ratio / lengths if kind == "dpo_norm" else ratio


def preference(chosen: Any, rejected: Any, margin: float = 0.0) -> Any:
    """−log σ(chosen − rejected − margin) for each pair, from rewards of shape (B,).

    `margin` is SimPO's γ (equation 6 there), 0 for DPO.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(chosen - rejected - margin)


@dataclass(frozen=True, slots=True)
class DpoKeys:
    """Keys under `dpo`."""

    loss: Kind = "dpo_norm"
    beta: float = 5.0
    """5 is the paper's for dpo_norm; vanilla DPO is used with about 0.1, SimPO with 2 to 10."""
    gamma: float = 0.0
    """SimPO's margin between the rewards."""
    separate_forward: bool = False
    """Chosen and rejected in two forward passes of half the size, for less memory; the same loss."""
