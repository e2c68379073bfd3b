"""Attention with shared prefixes, whose keys and values are stored once and read once for all rows.

The parts of a row's attention (to each shared prefix, and to the row's own tokens) are computed separately and merged
by their log-sum-exp (Juravsky et al. 2024, "Hydragen", arXiv 2402.05099, section 3.2). Shapes: B rows, T new tokens,
H heads, K key-value heads, G = H / K, D dimensions of a head, S tokens of a prefix, W tokens of the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "olmes_shared"
"""The name under which the attention function is registered with transformers."""
MOST_SCORES = 4_000_000
"""The largest number of attention scores in memory at one time; more queries are split."""

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values, one pair per layer."""


@dataclass(slots=True)
class Prefix:
    """The keys and values [K, S, D] of a shared prefix, and the rows of the pass that have it."""

    layers: Layers
    start: int
    """The position of the first token."""
    rows: torch.Tensor | None
    """Row numbers; None: all rows."""


@dataclass(slots=True)
class Pass:
    """One forward pass through the model, with the keys and values besides those of the new tokens.

    Without `store` the new tokens of a row attend to each other as far as `visible` (B, T, T; None: causal) allows.
    With it their keys and values are written into the rows' store at `places` (B, 1), and they attend to the store.
    """

    positions: torch.Tensor
    """(B, T) positions in the rows' sequences."""
    prefixes: Sequence[Prefix] = ()
    visible: torch.Tensor | None = None
    record: bool = False
    """Whether to record the new tokens' keys and values in `recorded`."""
    recorded: Layers = field(default_factory=list)
    store: Layers | None = None
    """(rows of the store, K, W, D) per layer; the rows of the pass are its first rows."""
    places: torch.Tensor | None = None
    starts: torch.Tensor | None = None
    """(B, 1) positions of the first token in the store."""
    width: int = 0
    calls: int = 0
    """The number of attention layers that have run."""
    windows: int = 0
    """The number of attention layers with a sliding window that have run."""


_LEAST: float = torch.finfo(torch.float32).min
"""Replaces minus infinity: a part of which a row sees no token gets no weight and causes no NaN."""

_current: Pass | None = None


class running:
    """A context in which the model's attention uses a pass."""

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
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, *,
    scaling: float | None = None, sliding_window: int | None = None, softcap: float | None = None, **rest: object,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Compute attention by transformers' interface: query (B, H, T, D), key and value (B, K, T, D) to (B, T, H, D)."""
    state = _current
    if state is None:
        raise RuntimeError("shared attention was called outside a pass")
    state.calls += 1
    state.windows += sliding_window is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if state.record:
        state.recorded.append((key, value))
    if state.store is None and not (state.prefixes or state.visible is not None or sliding_window or softcap):
        groups = query.shape[1] // key.shape[1]
        key, value = (_repeat(tensor, groups) for tensor in (key, value))
        output = scaled_dot_product_attention(query, key, value, is_causal=query.shape[2] > 1, scale=scale)
        return output.transpose(1, 2).contiguous(), None
    layer = state.calls - 1
    keys, values = _row_keys_and_values(state, layer, key, value)
    b, h, t, d = query.shape
    grouped = (query * scale).view(b, key.shape[1], h // key.shape[1], t, d)
    longest = max([keys.shape[2], *(prefix.layers[layer][0].shape[1] for prefix in state.prefixes)])
    step = max(16, MOST_SCORES // (b * h * longest))
    parts = []
    for first in range(0, t, step):
        span = slice(first, min(first + step, t))
        queries = grouped[:, :, :, span]
        parts.append(
            _merged(state, layer, queries, keys=keys, values=values, span=span, window=sliding_window, softcap=softcap)
        )
    merged = parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)
    return merged.reshape(b, h, t, d).transpose(1, 2).contiguous().to(query.dtype), None


def _repeat(tensor: torch.Tensor, times: int) -> torch.Tensor:
    if times == 1:
        return tensor
    b, k, t, d = tensor.shape
    return tensor[:, :, None].expand(b, k, times, t, d).reshape(b, k * times, t, d)


def _row_keys_and_values(
    state: Pass, layer: int, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys and values of the rows' own tokens, after adding the new ones to the store where there is one."""
    if state.store is None:
        return key, value
    stored_keys, stored_values = state.store[layer]
    assert state.places is not None
    rows = torch.arange(key.shape[0], device=key.device)
    stored_keys[rows, :, state.places[:, 0]] = key[:, :, 0]
    stored_values[rows, :, state.places[:, 0]] = value[:, :, 0]
    b, w = key.shape[0], state.width
    return stored_keys[:b, :, :w], stored_values[:b, :, :w]


def _merged(
    state: Pass, layer: int, query: torch.Tensor, *, keys: torch.Tensor, values: torch.Tensor, span: slice,
    window: int | None, softcap: float | None,
) -> torch.Tensor:  # fmt: skip
    """Compute the attention (B, K, G, T, D) of the queries in `span` to the rows' own tokens and to all prefixes."""
    b, k, g, t, d = query.shape
    positions, visible = state.positions[:, span], state.visible
    if state.store is None:
        end = span.stop if visible is None else keys.shape[2]
        keys, values = keys[:, :, :end], values[:, :, :end]
        if visible is None:
            line = torch.arange(end, device=query.device)
            mask = line[None, None, :] <= torch.arange(span.start, span.stop, device=query.device)[None, :, None]
        else:
            mask = visible[:, span]
        key_positions = state.positions[:, :end]
    else:
        assert visible is not None and state.starts is not None
        mask = visible
        key_positions = state.starts + torch.arange(state.width, device=query.device)
    if window:
        mask = mask & (positions[:, :, None] - key_positions[:, None, :] < window)
    scores = torch.matmul(query.reshape(b, k, g * t, d), keys.transpose(2, 3)).view(b, k, g, t, -1)
    weights, top, total = _weighed(_capped(scores, softcap).masked_fill_(~mask[:, None, None], _LEAST))
    output = torch.matmul(weights.view(b, k, g * t, -1).to(values.dtype), values).view(b, k, g, t, d).float()
    for prefix in state.prefixes:
        _add(prefix, layer, query, positions, (output, top, total), window=window, softcap=softcap)
    return output / total


def _add(
    prefix: Prefix, layer: int, query: torch.Tensor, positions: torch.Tensor,
    sums: tuple[torch.Tensor, torch.Tensor, torch.Tensor], *, window: int | None, softcap: float | None,
) -> None:  # fmt: skip
    """Merge the rows' attention to a shared prefix into `sums` (weighted values, largest score, weights), in place."""
    keys, values = prefix.layers[layer]
    rows = prefix.rows
    selected = query if rows is None else query[rows]
    b, k, g, t, d = selected.shape
    folded = selected.permute(1, 0, 2, 3, 4).reshape(k, b * g * t, d)
    scores = _capped(torch.matmul(folded, keys.transpose(1, 2)), softcap)
    if window:
        key_positions = prefix.start + torch.arange(keys.shape[1], device=query.device)
        query_positions = positions if rows is None else positions[rows]
        hidden = query_positions[:, :, None] - key_positions >= window
        if bool(hidden.any()):
            shaped = scores.view(k, b, g, t, -1).masked_fill_(hidden[None, :, None], _LEAST)
            scores = shaped.view(k, b * g * t, -1)
    weights, top, total = _weighed(scores)
    output = torch.matmul(weights.to(values.dtype), values)

    def unfold(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view(k, b, g, t, -1).permute(1, 0, 2, 3, 4)

    output, top, total = unfold(output.float()), unfold(top), unfold(total)
    before = sums if rows is None else tuple(tensor[rows] for tensor in sums)
    highest = torch.maximum(before[1], top)
    old, new = torch.exp(before[1] - highest), torch.exp(top - highest)
    merged = (before[0] * old + output * new, highest, before[2] * old + total * new)
    for target, tensor in zip(sums, merged, strict=True):
        if rows is None:
            target.copy_(tensor)
        else:
            target[rows] = tensor


def _capped(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Return the scores in float32, soft-capped as in Gemma 2 (arXiv 2408.00118, section 2)."""
    scores = scores.float()
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


def _weighed(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return exp(scores - top), top and the sum of the weights, along the last dimension."""
    top = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    return weights, top, weights.sum(dim=-1, keepdim=True)


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
