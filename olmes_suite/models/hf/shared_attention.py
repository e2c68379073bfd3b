"""Attention to keys and values that many rows share, which are stored once and read once for all of them.

The parts of a row's attention (each shared prefix, its own tokens) are computed apart and merged by their log-sum-exp
(Juravsky et al. 2024, "Hydragen", arXiv 2402.05099, section 3.2). Shapes: B rows, T new tokens, H heads, K key-value
heads, G = H / K, D dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "olmes_shared"
"""Under which transformers knows the attention function."""
MOST_SCORES = 4_000_000
"""Attention scores in memory at one time; more queries are done in turns."""

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values, one pair per layer."""


@dataclass(slots=True)
class Prefix:
    """Keys and values [K, S, D] of a shared prefix, and the rows of the pass that it belongs to."""

    layers: Layers
    start: int
    """Position of its first token."""
    rows: torch.Tensor | None
    """Row numbers; None: all rows."""


@dataclass(slots=True)
class Pass:
    """One forward pass through the model: what its rows look at besides their new tokens.

    Without `own` the rows' new tokens see each other, as far as `visible` (B, T, T; None: causal) allows. With it
    their keys and values are written into the rows' own store at `places` (B, 1), and the store is looked at.
    """

    positions: torch.Tensor
    """(B, T) positions in the rows' sequences."""
    prefixes: Sequence[Prefix] = ()
    visible: torch.Tensor | None = None
    keep: bool = False
    """Keep the new tokens' keys and values in `kept`."""
    kept: Layers = field(default_factory=list)
    own: Layers | None = None
    """Per layer (rows of the store, K, W, D); the pass's rows are its first ones."""
    places: torch.Tensor | None = None
    starts: torch.Tensor | None = None
    """(B, 1) position of the first token in the store."""
    width: int = 0
    calls: int = 0
    """Attention layers that were run through; `windows`: those of them with a sliding window."""
    windows: int = 0


_current: Pass | None = None


class running:
    """Within it, the model's attention follows this pass."""

    def __init__(self, state: Pass) -> None:
        self.state = state

    def __enter__(self) -> Pass:
        global _current
        _current = self.state
        return self.state

    def __exit__(self, *args: object) -> None:
        global _current
        _current = None


def attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    scaling: float | None = None, sliding_window: int | None = None, softcap: float | None = None, **rest: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """transformers' attention interface: query (B, H, T, D), key and value (B, K, T, D) to (B, T, H, D)."""
    state = _current
    if state is None:
        raise RuntimeError("shared attention outside a pass")
    state.calls += 1
    state.windows += sliding_window is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if state.keep:
        state.kept.append((key, value))
    if state.own is None and not (state.prefixes or state.visible is not None or sliding_window or softcap):
        groups = query.shape[1] // key.shape[1]
        key, value = (_repeat(tensor, groups) for tensor in (key, value))
        out = scaled_dot_product_attention(query, key, value, is_causal=query.shape[2] > 1, scale=scale)
        return out.transpose(1, 2).contiguous(), None
    layer = state.calls - 1
    keys, values, visible = _own(state, layer, key, value)
    b, h, t, d = query.shape
    grouped = (query * scale).view(b, key.shape[1], h // key.shape[1], t, d)
    longest = max([keys.shape[2], *(prefix.layers[layer][0].shape[1] for prefix in state.prefixes)])
    step = max(16, MOST_SCORES // (b * h * longest))
    parts = []
    for first in range(0, t, step):
        span = slice(first, min(first + step, t))
        some = grouped[:, :, :, span]
        parts.append(_merged(state, layer, some, keys, values, visible, span, sliding_window, softcap))
    merged = parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)
    return merged.reshape(b, h, t, d).transpose(1, 2).contiguous().to(query.dtype), None


def _repeat(tensor: torch.Tensor, times: int) -> torch.Tensor:
    if times == 1:
        return tensor
    b, k, t, d = tensor.shape
    return tensor[:, :, None].expand(b, k, times, t, d).reshape(b, k * times, t, d)


def _own(
    state: Pass, layer: int, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The rows' own keys and values, new ones included, and (B, T, S) which may be seen; None: causal."""
    if state.own is None:
        return key, value, state.visible
    stored_keys, stored_values = state.own[layer]
    assert state.places is not None
    rows = torch.arange(key.shape[0], device=key.device)
    stored_keys[rows, :, state.places[:, 0]] = key[:, :, 0]
    stored_values[rows, :, state.places[:, 0]] = value[:, :, 0]
    b, w = key.shape[0], state.width
    return stored_keys[:b, :, :w], stored_values[:b, :, :w], state.visible


def _merged(
    state: Pass, layer: int, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor,
    visible: torch.Tensor | None, span: slice, window: int | None, softcap: float | None,
) -> torch.Tensor:  # fmt: skip
    """(B, K, G, T, D) of the queries in `span`."""
    b, k, g, t, d = query.shape
    positions = state.positions[:, span]
    if state.own is None:
        end = span.stop if visible is None else keys.shape[2]
        keys, values = keys[:, :, :end], values[:, :, :end]
        if visible is None:
            line = torch.arange(end, device=query.device)
            seen = line[None, None, :] <= torch.arange(span.start, span.stop, device=query.device)[None, :, None]
        else:
            seen = visible[:, span]
        at = state.positions[:, :end]
    else:
        assert visible is not None and state.starts is not None
        seen = visible
        at = state.starts + torch.arange(state.width, device=query.device)
    if window:
        seen = seen & (positions[:, :, None] - at[:, None, :] < window)
    scores = torch.matmul(query.reshape(b, k, g * t, d), keys.transpose(2, 3)).view(b, k, g, t, -1)
    out, top, total = _weighed(_capped(scores, softcap).masked_fill_(~seen[:, None, None], _least(scores)))
    out = torch.matmul(out.view(b, k, g * t, -1).to(values.dtype), values).view(b, k, g, t, d).float()
    for prefix in state.prefixes:
        _add(prefix, layer, query, positions, window, softcap, (out, top, total))
    return out / total


def _add(
    prefix: Prefix, layer: int, query: torch.Tensor, positions: torch.Tensor, window: int | None,
    softcap: float | None, so_far: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:  # fmt: skip
    """Add the rows' attention to a shared prefix to what there is of theirs, in place."""
    keys, values = prefix.layers[layer]
    rows = prefix.rows
    mine = query if rows is None else query[rows]
    b, k, g, t, d = mine.shape
    folded = mine.permute(1, 0, 2, 3, 4).reshape(k, b * g * t, d)
    scores = _capped(torch.matmul(folded, keys.transpose(1, 2)), softcap)
    if window:
        at = prefix.start + torch.arange(keys.shape[1], device=query.device)
        where = positions if rows is None else positions[rows]
        hidden = where[:, :, None] - at >= window
        if bool(hidden.any()):
            shaped = scores.view(k, b, g, t, -1).masked_fill_(hidden[None, :, None], _least(scores))
            scores = shaped.view(k, b * g * t, -1)
    weights, top, total = _weighed(scores)
    out = torch.matmul(weights.to(values.dtype), values)

    def back(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(k, b, g, t, -1).permute(1, 0, 2, 3, 4)

    out, top, total = back(out.float()), back(top), back(total)
    before = so_far if rows is None else tuple(tensor[rows] for tensor in so_far)
    highest = torch.maximum(before[1], top)
    old, new = torch.exp(before[1] - highest), torch.exp(top - highest)
    merged = (before[0] * old + out * new, highest, before[2] * old + total * new)
    for target, tensor in zip(so_far, merged, strict=True):
        if rows is None:
            target.copy_(tensor)
        else:
            target[rows] = tensor


def _capped(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """In float32; logits soft-capped as in Gemma 2 (arXiv 2408.00118, section 2)."""
    scores = scores.float()
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


def _least(scores: torch.Tensor) -> float:
    """A finite stand-in for minus infinity: a row that sees nothing of a part gives it no weight, and no NaN."""
    return torch.finfo(torch.float32).min


def _weighed(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """exp(scores - top), top and the sum, along the last dimension."""
    top = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    return weights, top, weights.sum(dim=-1, keepdim=True)


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
