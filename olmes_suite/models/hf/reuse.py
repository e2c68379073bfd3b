"""A causal language model whose shared prefixes are computed once, by way of `shared_attention`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from olmes_suite.errors import first_line
from olmes_suite.models.hf.prefix_tree import Node, Tokens, common
from olmes_suite.models.hf.shared_attention import NAME, Layers, Pass, Prefix, running

PROBE_TOKENS, PROBE_SHARED = 12, 7
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""How far the logits of the two ways may lie apart in the probe, as a share of the largest logit."""
REMEMBERED, WORTH = 2, 32
"""Beginnings of prompts that are kept from one call to the next, and tokens in common that make one of use."""
LAYER_KINDS = frozenset({"full_attention", "sliding_attention"})
LATE = re.compile(r"window|chunk|compress|keep_|index_(topk|block|local)|floor_scale")
TOLD = re.compile(r"sliding_window|max_window_layers")
"""Settings by which attention changes after more tokens than the probe has, and those of them that are told to it."""


class SharedModel:
    """Runs a transformers model with keys and values that are stored here, prefix by prefix."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self.device = model, device
        self._picks: torch.Tensor | None = None
        self._remembered: list[tuple[Tokens, Layers]] = []
        self.token_bytes = 0
        """Bytes of one token's keys and values in all layers, as the probe found them."""

    def forget(self) -> None:
        """Let go of what is kept for later calls: memory ran out, or the model is not needed any more."""
        self._remembered.clear()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it, the model's layers use the shared attention; it is as it was afterwards."""
        before = self.model.config._attn_implementation
        hook = self.model.get_output_embeddings().register_forward_pre_hook(self._pick)
        try:
            self.model.set_attn_implementation(NAME)
            with torch.inference_mode():
                yield
        finally:
            hook.remove()
            self.model.set_attn_implementation(before)

    def _pick(self, module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Only the positions that are asked for go through the output layer: the vocabulary is large."""
        if self._picks is None:
            return inputs
        rows = torch.arange(inputs[0].shape[0], device=inputs[0].device)[:, None]
        return (inputs[0][rows, self._picks], *inputs[1:])

    def logits(self, tokens: torch.Tensor, state: Pass, picks: torch.Tensor) -> torch.Tensor:
        """(B, W, vocabulary) logits at `picks` (B, W) of new tokens (B, T)."""
        self._picks = picks
        try:
            with running(state):
                found: torch.Tensor = self.model(
                    input_ids=tokens, position_ids=state.positions, attention_mask=None, use_cache=False
                ).logits
        finally:
            self._picks = None
        return found

    def prefixes(self, nodes: Sequence[Node | None]) -> list[Prefix]:
        """The shared prefixes of a pass whose rows have these nodes; what is not there yet is computed."""
        rows: dict[int, list[int]] = {}
        known: dict[int, Node] = {}
        for row, node in enumerate(nodes):
            for one in node.path() if node else ():
                rows.setdefault(id(one), []).append(row)
                known[id(one)] = one
        found = []
        for key, node in known.items():
            everyone = len(rows[key]) == len(nodes)
            index = None if everyone else torch.tensor(rows[key], device=self.device)
            found.append(Prefix(self._layers(node), node.start, index))
        return found

    def _layers(self, node: Node) -> Layers:
        if node.cache is None:
            known = self._known(node) if node.start == 0 else []
            start = node.start + (known[0][0].shape[1] if known else 0)
            above = [Prefix(self._layers(one), one.start, None) for one in node.path()[:-1]]
            if known:
                above.append(Prefix(known, 0, None))
            node.cache = _joined(known, self._encoded(node.tokens[start - node.start :], start, above))
            if node.start == 0:
                self._remembered = [(node.tokens, node.cache), *self._remembered][:REMEMBERED]
        layers: Layers = node.cache
        return layers

    def _encoded(self, tokens: Tokens, start: int, above: Sequence[Prefix]) -> Layers:
        """Keys and values [K, S, D] of tokens behind others."""
        if not tokens:
            return []
        positions = torch.arange(start, start + len(tokens), device=self.device)[None]
        state = Pass(positions, above, keep=True)
        last = torch.tensor([[len(tokens) - 1]], device=self.device)
        self.logits(torch.tensor([tokens], device=self.device), state, last)
        return [(key[0].contiguous(), value[0].contiguous()) for key, value in state.kept]

    def _known(self, node: Node) -> Layers:
        """What an earlier call left of a prompt's beginning: the longest part that is the same; [] if it is short."""
        same, layers = max(
            ((common(tokens, node.tokens), layers) for tokens, layers in self._remembered),
            key=lambda found: found[0],
            default=(0, []),
        )
        if same < WORTH:
            return []
        return [(key[:, :same].contiguous(), value[:, :same].contiguous()) for key, value in layers]

    def why_not(self) -> str | None:
        """Why this model cannot be run in this way; None where it can, which is tried."""
        config = self.model.config.get_text_config(decoder=True)
        if not getattr(self.model, "_supports_attention_backend", False):
            return "its attention cannot be replaced"
        if self.model.get_output_embeddings() is None:
            return "it has no output layer of the usual kind"
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds <= LAYER_KINDS or hasattr(config, "attention_chunk_size"):
            return "its layers keep more than keys and values"
        if late := late_settings(config):
            return f"its setting {next(iter(late))} changes what tokens see, which a short trial cannot show"
        if _rotates_by_length(config):
            return "its rotary positions depend on the longest prompt"
        try:
            return self._probe(config)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            return f"it does not take our attention ({first_line(error)})"

    def _probe(self, config: Any) -> str | None:
        """Both ways, on two short sequences that share their start."""
        least = min(config.vocab_size, 50)
        ids = torch.arange(2 * PROBE_TOKENS, device=self.device).view(2, PROBE_TOKENS) * 7 % least
        ids[1, :PROBE_SHARED] = ids[0, :PROBE_SHARED]
        with torch.inference_mode():
            plain = self.model(input_ids=ids, use_cache=False).logits[:, PROBE_SHARED:].float()
        node = Node(0, PROBE_SHARED, tuple(ids[0, :PROBE_SHARED].tolist()))
        positions = torch.arange(PROBE_SHARED, PROBE_TOKENS, device=self.device).expand(2, -1)
        with self.active():
            state = Pass(positions, self.prefixes([node, node]))
            picks = torch.arange(PROBE_TOKENS - PROBE_SHARED, device=self.device).expand(2, -1)
            shared = self.logits(ids[:, PROBE_SHARED:], state, picks).float()
        self.token_bytes = sum(
            tensor.shape[0] * tensor.shape[2] * tensor.element_size() for pair in node.cache for tensor in pair
        )
        if state.calls != config.num_hidden_layers:
            return "not all of its layers are attention"
        if _slides(config) and not state.windows:
            return "its sliding window is not told to the attention"
        share = (plain - shared).abs().max() / plain.abs().max().clamp_min(1e-6)
        if not float(share) <= TOLERANCE.get(self.model.dtype, 0.25):
            return "its answers would change"
        return None


def _joined(first: Layers, rest: Layers) -> Layers:
    """Keys and values of tokens, and of those behind them."""
    if not first or not rest:
        return first or rest
    return [
        (torch.cat([keys, more_keys], dim=1), torch.cat([values, more_values], dim=1))
        for (keys, values), (more_keys, more_values) in zip(first, rest, strict=True)
    ]


def late_settings(config: Any) -> dict[str, Any]:
    """Settings by which attention may change after many tokens in a way that nobody here knows."""
    settings: dict[str, Any] = config.to_dict()
    return {
        name: value
        for name, value in settings.items()
        if value and not isinstance(value, bool) and LATE.search(name) and not TOLD.search(name)
    }


def _rotates_by_length(config: Any) -> bool:
    """Dynamic NTK and LongRoPE turn all keys anew when a sequence outgrows a length."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [found, *(value for value in found.values() if isinstance(value, dict))]
    return any(kind.get("rope_type", kind.get("type")) in ("dynamic", "longrope") for kind in kinds)


def _slides(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return "sliding_attention" in kinds
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True)
