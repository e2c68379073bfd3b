"""The arithmetic of RLVR: scores, rewards of tokens, advantages, the value loss. Pure functions of tensors.

B responses of up to T tokens; `mask` (B, T) is 1 on a response's tokens, its end-of-text included, and 0 on padding
behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
Sum: TypeAlias = Callable[[Tensor], Tensor]
"""Adds a tensor over all processes."""


def score(fraction: float | None, ended: bool, reward: float, unended: float | None) -> float | None:
    """A response's score: `reward` times its verified fraction, `unended` instead where it has no end-of-text.

    None (the verifier has no verdict) stays None: the row is skipped. Tülu 3, §6.2: 10, and −10 in place of it.
    """
    if fraction is None:
        return None
    return unended if unended is not None and not ended else reward * fraction


def token_rewards(scores: Tensor, policy: Tensor, reference: Tensor | None, mask: Tensor, beta: float) -> Tensor:
    """(B, T): −β (log π − log π_ref) on each token, and the score (B) on the last one."""
    found = torch.zeros_like(policy) if reference is None else -beta * (policy - reference) * mask
    last = (mask.sum(dim=1).long() - 1).clamp(min=0)
    found[torch.arange(len(found), device=found.device), last] += scores * mask.any(dim=1)
    return found


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """(advantages, returns), each (B, T), of generalised advantage estimation (Schulman et al. 2016, equation 16).

    `values[:, t]` is the value before token t; a response ends after its last token, where the value is 0.
    """
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    following = torch.zeros_like(running)
    for t in reversed(range(values.size(1))):
        here = mask[:, t]
        running = (rewards[:, t] + gamma * following - values[:, t] + gamma * lam * running) * here
        following = values[:, t] * here
        advantages[:, t] = running
    return advantages, (advantages + values) * mask


def whiten(values: Tensor, mask: Tensor, total: Sum) -> Tensor:
    """Mean 0 and variance 1 over the masked entries of all processes; 0 elsewhere. In two passes: no cancellation."""
    count, summed = total(torch.stack([mask.sum(), (values * mask).sum()]))
    centred = (values - summed / count.clamp(min=1)) * mask
    variance = total((centred * centred).sum()) / count.clamp(min=1)
    return centred * torch.rsqrt(variance + 1e-8)


def value_errors(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """(B, T): half the larger squared error of the value and of the value clipped around the old one (PPO2)."""
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2) * mask


def without_signal(scores: Tensor, size: int) -> float:
    """Share of groups of `size` responses to one prompt whose scores are all equal; NaN is a skipped response."""
    groups = scores.view(-1, size)
    skipped = groups.isnan()
    low = groups.masked_fill(skipped, torch.inf).amin(dim=1)
    high = groups.masked_fill(skipped, -torch.inf).amax(dim=1)
    return float((high <= low).float().mean())


def kl(policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """(B): the sum over a response's tokens of log π − log π_ref, in nats; its mean estimates the KL divergence."""
    return ((policy - reference) * mask).sum(dim=1)
