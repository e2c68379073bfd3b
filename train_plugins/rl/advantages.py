"""The arithmetic of RLVR: scores, token rewards, advantages and the value loss, as pure functions of tensors.

B responses of up to T tokens; `mask` (B, T) is 1 on a response's tokens, including its end-of-text, and 0 on the
padding after them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
Sum: TypeAlias = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""


def score(fraction: float | None, ended: bool, reward: float, unended: float | None) -> float | None:
    """Return a response's score: `reward` times its verified fraction, or `unended` if it has no end-of-text.

    None (the verifier has no verdict) stays None, and the row is skipped. Tülu 3, §6.2, uses 10 and −10.
    """
    if fraction is None:
        return None
    return unended if unended is not None and not ended else reward * fraction


def token_rewards(scores: Tensor, policy: Tensor, reference: Tensor | None, mask: Tensor, beta: float) -> Tensor:
    """Return (B, T): −β (log π − log π_ref) on each token, plus the score (B) on the last one."""
    rewards = torch.zeros_like(policy) if reference is None else -beta * (policy - reference) * mask
    last = (mask.sum(dim=1).long() - 1).clamp(min=0)
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores * mask.any(dim=1)
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return (advantages, returns), each (B, T): generalised advantage estimation (Schulman et al. 2016, equation 16).

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
    """Normalise to mean 0 and variance 1 over the masked entries of all processes; other entries become 0.

    The variance is computed in a second pass, which avoids cancellation.
    """
    count, summed = total(torch.stack([mask.sum(), (values * mask).sum()]))
    centred = (values - summed / count.clamp(min=1)) * mask
    variance = total((centred * centred).sum()) / count.clamp(min=1)
    return centred * torch.rsqrt(variance + 1e-8)


def value_errors(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Return (B, T): half the larger squared error of the value and of the value clipped around the old one (PPO2)."""
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2) * mask


def without_signal(scores: Tensor, size: int) -> float:
    """Return the share of groups of `size` responses to one prompt with equal scores; NaN marks a skipped response."""
    return 1.0 - float(spread(scores.view(-1, size)).float().mean())


def spread(groups: Tensor) -> Tensor:
    """Return (N): whether the scores of a group, a row of (N, G), differ; NaN marks a skipped response."""
    skipped = groups.isnan()
    low = groups.masked_fill(skipped, torch.inf).amin(dim=1)
    high = groups.masked_fill(skipped, -torch.inf).amax(dim=1)
    return high > low


def kl(policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return (B): log π − log π_ref summed over a response's tokens, in nats; its mean estimates the KL divergence."""
    return ((policy - reference) * mask).sum(dim=1)
