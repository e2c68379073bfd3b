"""Whether prompts of unequal length can be computed side by side: some models read what pads the shorter ones."""

from __future__ import annotations

from typing import Any

import torch

from olmes_suite.models.hf.reuse import late_settings

SHORT, MORE = 4, 20
"""Tokens of the shorter row of the trial, and how many the other has more."""
MOST = 4096
"""The short row is longer than what a setting takes effect after, if that is less than this."""
TOLERANCE = {torch.float32: 1e-3}
"""How far the logits may lie apart, as a share of the largest; 0.05 in other dtypes."""


def heeds_mask(model: Any, device: torch.device) -> bool:
    """Whether a short prompt's next token is the same alone and behind masked tokens, as `generate` pads it."""
    config = model.config.get_text_config(decoder=True)
    late = [value for value in late_settings(config).values() if isinstance(value, int) and value < MOST]
    short = max([0, *late]) + SHORT
    length = short + MORE
    long = torch.arange(length, device=device) * 7 % config.vocab_size
    ids = torch.stack([long.flip(0), long])
    mask = torch.ones_like(ids)
    mask[0, :MORE] = 0
    try:
        alone = _logits(model, ids[:1, MORE:], mask[:1, MORE:])[0]
        beside = _logits(model, ids, mask)[0]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
        return False  # of two rows at least: one at a time may still do
    share = (alone - beside).abs().max() / alone.abs().max().clamp_min(1e-6)
    return bool(share <= TOLERANCE.get(model.dtype, 0.05))


def _logits(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[rows, vocabulary] logits of the first new tokens."""
    with torch.inference_mode():
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=1,
            do_sample=False,
            num_beams=1,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    logits: torch.Tensor = found.logits[0].float()
    return logits
