"""A causal language model that computes shared prefixes once, by `shared_attention`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from olmes_suite.errors import first_line
from olmes_suite.models.hf.prefix_tree import Node, Tokens, common
from olmes_suite.models.hf.shared_attention import NAME, Layers, Pass, Prefix, running

PROBE_TOKENS, PROBE_SHARED = 12, 7
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""The allowed difference of the logits in the probe, with and without sharing, as a share of the largest logit."""
REMEMBERED, WORTH = 2, 32
"""The number of root prefixes cached between calls, and the smallest number of shared tokens to reuse one."""
LAYER_KINDS = frozenset({"full_attention", "sliding_attention"})
LATE = re.compile(r"window|chunk|compress|keep_|index_(topk|block|local)|floor_scale")
PASSED = re.compile(r"sliding_window|max_window_layers")
"""LATE: settings by which attention changes after more tokens than the probe has. PASSED: those of them that
transformers passes to the attention function."""

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class SharedModel:
    """A transformers model with the keys and values of shared prefixes."""

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        self.model, self.device = model, device
        self._picks: torch.Tensor | None = None
        self._remembered: list[tuple[Tokens, Layers]] = []
        self.token_bytes = 0
        """Bytes of one token's keys and values in all layers, measured by the probe."""

    def forget(self) -> None:
        """Free the prefixes cached for later calls."""
        self._remembered.clear()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use the shared attention in the model's layers within this context, and restore the model afterwards."""
        before = self.model.config._attn_implementation
        hook = self.model.get_output_embeddings().register_forward_pre_hook(self._pick)
        try:
            self.model.set_attn_implementation(NAME)
            with torch.inference_mode():
                yield
        finally:
            hook.remove()
            self.model.set_attn_implementation(before)

    def _pick(self, module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pass only the picked positions to the output layer, since the vocabulary is large."""
        if self._picks is None:
            return inputs
        rows = torch.arange(inputs[0].shape[0], device=inputs[0].device)[:, None]
        return (inputs[0][rows, self._picks], *inputs[1:])

    def logits(self, tokens: torch.Tensor, state: Pass, picks: torch.Tensor) -> torch.Tensor:
        """Return the (B, W, vocabulary) logits at `picks` (B, W) of new tokens (B, T)."""
        self._picks = picks
        try:
            with running(state):
                logits: torch.Tensor = self.model(
                    input_ids=tokens, position_ids=state.positions, attention_mask=None, use_cache=False
                ).logits
        finally:
            self._picks = None
        return logits

    def prefixes(self, nodes: Sequence[Node | None]) -> list[Prefix]:
        """Return the shared prefixes of a pass whose rows have these nodes, computing those that are missing."""
        rows: dict[int, list[int]] = {}
        by_id: dict[int, Node] = {}
        for row, node in enumerate(nodes):
            for member in node.path() if node else ():
                rows.setdefault(id(member), []).append(row)
                by_id[id(member)] = member
        prefixes = []
        for key, node in by_id.items():
            index = None if len(rows[key]) == len(nodes) else torch.tensor(rows[key], device=self.device)
            prefixes.append(Prefix(self._layers(node), node.start, index))
        return prefixes

    def _layers(self, node: Node) -> Layers:
        if node.cache is None:
            cached = self._cached(node) if node.start == 0 else []
            start = node.start + (cached[0][0].shape[1] if cached else 0)
            above = [Prefix(self._layers(member), member.start, None) for member in node.path()[:-1]]
            if cached:
                above.append(Prefix(cached, 0, None))
            node.cache = _joined(cached, self._encoded(node.tokens[start - node.start :], start, above))
            if node.start == 0:
                self._remembered = [(node.tokens, node.cache), *self._remembered][:REMEMBERED]
        layers: Layers = node.cache
        return layers

    def _encoded(self, tokens: Tokens, start: int, above: Sequence[Prefix]) -> Layers:
        """Compute the keys and values [K, S, D] of tokens after the prefixes `above`."""
        if not tokens:
            return []
        positions = torch.arange(start, start + len(tokens), device=self.device)[None]
        state = Pass(positions, above, record=True)
        last = torch.tensor([[len(tokens) - 1]], device=self.device)
        self.logits(torch.tensor([tokens], device=self.device), state, last)
        return [(key[0].contiguous(), value[0].contiguous()) for key, value in state.recorded]

    def _cached(self, node: Node) -> Layers:
        """Return the longest equal start of a root prefix from an earlier call, or [] where it is short."""
        same, layers = max(
            ((common(tokens, node.tokens), layers) for tokens, layers in self._remembered),
            key=lambda candidate: candidate[0],
            default=(0, []),
        )
        if same < WORTH:
            return []
        return [(key[:, :same].contiguous(), value[:, :same].contiguous()) for key, value in layers]

    def why_not(self) -> str | None:
        """Return the reason why the model cannot use the shared attention; None where a probe shows that it can."""
        config = self.model.config.get_text_config(decoder=True)
        if not getattr(self.model, "_supports_attention_backend", False):
            return "its attention cannot be replaced"
        if self.model.get_output_embeddings() is None:
            return "it has no output layer of the usual type"
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds <= LAYER_KINDS or hasattr(config, "attention_chunk_size"):
            return "its layers store more than keys and values"
        if late := late_settings(config):
            return (
                f"its setting {next(iter(late))} changes the attention of long prompts, which a short probe cannot show"
            )
        if _rotates_by_length(config):
            return "its rotary positions depend on the longest prompt"
        try:
            return self._probe(config)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            return f"the shared attention fails ({first_line(error)})"

    def _probe(self, config: PretrainedConfig) -> str | None:
        """Compare the logits with and without sharing, on two short sequences with the same start."""
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
            return "not all of its layers are attention layers"
        if _slides(config) and not state.windows:
            return "its sliding window is not passed to the attention function"
        share = (plain - shared).abs().max() / plain.abs().max().clamp_min(1e-6)
        if not float(share) <= TOLERANCE.get(self.model.dtype, 0.25):
            return "its answers would change"
        return None


def _joined(first: Layers, rest: Layers) -> Layers:
    """Join the keys and values of tokens and of the tokens after them."""
    if not first or not rest:
        return first or rest
    return [
        (torch.cat([keys, more_keys], dim=1), torch.cat([values, more_values], dim=1))
        for (keys, values), (more_keys, more_values) in zip(first, rest, strict=True)
    ]


def late_settings(config: PretrainedConfig) -> dict[str, Any]:
    """Return the settings by which attention may change after many tokens in an unknown way."""
    settings: dict[str, Any] = config.to_dict()
    return {
        name: value
        for name, value in settings.items()
        if value and not isinstance(value, bool) and LATE.search(name) and not PASSED.search(name)
    }


def _rotates_by_length(config: PretrainedConfig) -> bool:
    """Return whether the rotation of all keys depends on the longest sequence, as in dynamic NTK and LongRoPE."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    return any(kind.get("rope_type", kind.get("type")) in ("dynamic", "longrope") for kind in kinds)


def _slides(config: PretrainedConfig) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return "sliding_attention" in kinds
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True)
