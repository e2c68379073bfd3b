"""Checks of the encoded rows against the checkpoint's limits on token ids and positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from olmes_suite.errors import UsageError
from train_plugins.data.encoding import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROTARY = ("rope_theta", "rope_parameters", "rope_scaling", "alibi", "rotary_dim", "rotary_pct", "rotary_emb_base")
"""Settings of models with computed positions, on which rows beyond the trained positions run nevertheless."""


def check_fits(model: str, encoded: Encoded, tokenizer: PreTrainedTokenizerBase, length_key: str) -> list[str]:
    """Raise UsageError for token ids without an embedding, or rows with more tokens than learned positions.

    Returns a note if rows are longer than the positions that the model was trained on. `length_key` is the recipe key
    that limits the rows.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config()
    except (OSError, ValueError):  # loading the model reports what is wrong
        return []
    embeddings = getattr(config, "vocab_size", None)
    used = max(encoded.largest_id, tokenizer.pad_token_id or 0)
    if isinstance(embeddings, int) and used >= embeddings:
        raise UsageError(
            f"{model}: the rows hold the token {tokenizer.convert_ids_to_tokens(used)!r} (id {used}), but the model "
            f"has {embeddings} embeddings; use the model's own tokenizer, or resize the model first "
            "(model.resize_token_embeddings)"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or encoded.longest <= positions:
        return []
    if not any(getattr(config, name, None) is not None for name in ROTARY):
        raise UsageError(
            f"{model}: rows have up to {encoded.longest} tokens, but the model has {positions} positions; "
            f"set {length_key} to {positions} at most"
        )
    return [f"note: rows of up to {encoded.longest} tokens exceed the {positions} positions of {model}"]


def length_keys(limit: str) -> str:
    """Return the keys that limit a text by the name of the stage's own; in RLVR a response follows the prompt."""
    return f"{limit} and trainer.max_completion_length together" if "." in limit else f"trainer.{limit}"
