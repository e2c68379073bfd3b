"""Control tokens of a tokenizer in the text of training rows, where they would end or begin turns.

A text that contains `<|im_end|>` is encoded to the token that ends a turn, whoever wrote it. Such rows are found before
training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BREAK = "\ufdd0"
"""A code point that is no character, put inside a control token: the text is encoded in the parts between."""
_TAG = re.compile(r"</?\w+>")
_SPACE = re.compile(r"\s*")


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Return what matches the tokenizer's control tokens; None if it has none.

    These are its special tokens, and other added tokens that the chat template writes. Tags of thoughts and tools
    (`<think>`, `</tool_call>`) that are not special tokens are part of an answer.
    """
    template = str(tokenizer.chat_template or "")
    found = {
        str(token.content)
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in template and not _TAG.fullmatch(token.content))
    }
    found |= set(map(str, tokenizer.all_special_tokens))
    named = sorted((one for one in found if len(one) > 1 and not _SPACE.fullmatch(one)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, named))) if named else None


def texts(value: Any) -> Iterator[str]:
    """Yield all texts in a value, without the keys of its mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts(one)


def first_token(value: Any, tokens: re.Pattern[str]) -> str | None:
    """Return the first control token in the texts of a value; None for none."""
    return next((match[0] for text in texts(value) if (match := tokens.search(text))), None)


def broken(value: Any, tokens: re.Pattern[str]) -> Any:
    """Return the value with `BREAK` after the first character of each control token in its texts."""
    if isinstance(value, str):
        return tokens.sub(lambda match: match[0][0] + BREAK + match[0][1:], value)
    if isinstance(value, Mapping):
        return {key: broken(one, tokens) for key, one in value.items()}
    return [broken(one, tokens) for one in value] if isinstance(value, list | tuple) else value


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a rendered text; a control token with `BREAK` inside becomes plain text."""
    return [
        int(token)
        for part in text.split(BREAK)
        if part
        for token in tokenizer(part, add_special_tokens=False)["input_ids"]
    ]
