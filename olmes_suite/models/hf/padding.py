"""A test whether prompts of unequal length can share a batch: some models read the padding of shorter prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from olmes_suite.models.hf.reuse import late_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHORT, MORE = 4, 20
"""The number of tokens of the test's shorter row, and the number that the other row has more."""
MOST = 4096
"""A setting that takes effect after fewer tokens than this lengthens the short row beyond them."""
TOLERANCE = {torch.float32: 1e-3}
"""The allowed difference of the logits as a share of the largest; 0.05 in other dtypes."""


def respects_mask(model: PreTrainedModel, device: torch.device) -> bool:
    """Return whether a prompt's next token is the same alone and after masked padding, as `generate` pads it."""
    config = model.config.get_text_config(decoder=True)
    late = [value for value in late_settings(config).values() if isinstance(value, int) and value < MOST]
    short = max([0, *late]) + SHORT
    length = short + MORE
    long = torch.arange(length, device=device) * 7 % config.vocab_size
    ids = torch.stack([long.flip(0), long])
    mask = torch.ones_like(ids)
    mask[0, :MORE] = 0
    try:
        unpadded = _logits(model, ids[:1, MORE:], mask[:1, MORE:])[0]
        padded = _logits(model, ids, mask)[0]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
        return False  # with two rows; single rows may still work
    share = (unpadded - padded).abs().max() / unpadded.abs().max().clamp_min(1e-6)
    return bool(share <= TOLERANCE.get(model.dtype, 0.05))


def _logits(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the [rows, vocabulary] logits of the first new tokens."""
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=1,
            do_sample=False,
            num_beams=1,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    logits: torch.Tensor = output.logits[0].float()
    return logits
