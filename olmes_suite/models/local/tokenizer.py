"""The interface of tokenizers that the engines use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """The part of transformers' tokenizers that the engines use."""

    chat_template: str | None
    bos_token: str | None
    eos_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    all_special_ids: list[int]
    added_tokens_decoder: Mapping[int, Any]

    def __call__(
        self, text: list[str], *, add_special_tokens: bool = True, return_attention_mask: bool | None = None
    ) -> Mapping[str, list[list[int]]]:
        """Encode texts; `input_ids` holds their token ids."""

    def encode(self, text: str) -> list[int]:
        """Encode one text with special tokens."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Decode token ids."""

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        *,
        chat_template: str | None = None,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        **arguments: Any,
    ) -> str | list[int]:
        """Render messages as text, or as token ids; `chat_template` takes the place of the tokenizer's.

        `arguments` are further arguments of the template.
        """
