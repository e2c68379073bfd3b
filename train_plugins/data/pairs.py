"""Preference pairs as token ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from train_plugins.data.control_tokens import encoded
from train_plugins.data.encoding import check_rendered, token_ids
from train_plugins.data.fields import EXTRA, read
from train_plugins.data.rendering import CURE, Renderer, left_out, neutral, unsaid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pair_row(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, limit: int | None) -> dict[str, Any]:
    """Return {"prompt_ids", "chosen_ids", "rejected_ids", "full", "tokens"} of a preference pair.

    The answers start where the longest common prefix of prompt and conversations ends. Each answer is cut so that it
    has at most `limit` tokens together with the prompt.
    """
    prompt, chosen, rejected = _sides(row, tokenizer)
    start = min(_shared(prompt, chosen), _shared(prompt, rejected))
    answers = [chosen[start:limit], rejected[start:limit]]
    return {
        "prompt_ids": prompt[:start],
        "chosen_ids": answers[0],
        "rejected_ids": answers[1],
        "full": max(len(chosen), len(rejected)),
        "tokens": 2 * start + len(answers[0]) + len(answers[1]),
        "largest": max(*prompt[:start], *answers[0], *answers[1], 0),
        "equal": answers[0] == answers[1],
    }


def whole_pair_row(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, limit: int | None) -> dict[str, Any]:
    """Return {"chosen_ids", "rejected_ids", "full", "tokens"} of a preference pair for a reward model, never cut."""
    _, chosen, rejected = _sides(row, tokenizer)
    full = max(len(chosen), len(rejected))
    return {
        "chosen_ids": chosen,
        "rejected_ids": rejected,
        "full": full,
        "tokens": len(chosen) + len(rejected),
        "largest": max(*chosen, *rejected, 0),
        "equal": chosen == rejected,
    }


def check(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Render a pair as it will be encoded. Raises ValueError where that fails or leaves something out."""
    _sides(row, tokenizer)


def _sides(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int], list[int]]:
    """Return the token ids of the prompt and of both conversations. Raises ValueError for what is not rendered."""
    if not row.get(EXTRA):
        for side in ("chosen", "rejected"):
            check_rendered(row, tokenizer, side)
        prompt = token_ids(tokenizer, row["chosen"][:-1], prompt=True)
        return prompt, token_ids(tokenizer, row["chosen"]), token_ids(tokenizer, row["rejected"])
    texts = []
    for side in ("chosen", "rejected"):
        given = neutral(read(row, side), tokenizer)
        render = Renderer(tokenizer, given.tools, given.kwargs)
        prompt_text, text = render.text(given.messages[:-1], prompt=True), render.text(given.messages)
        said = text[len(prompt_text) :] if text.startswith(prompt_text) else text
        missing = left_out(given, text, len(given.messages) - 1) or render.ignored(given.messages, text)
        missing = missing or unsaid(given.messages[-1], said)
        if missing:
            raise ValueError(f"row {row.get('row', '?')}: it leaves out {missing} of {side!r}; {CURE}")
        texts.append((prompt_text, text))
    ids = [encoded(tokenizer, text) for text in (texts[0][0], texts[0][1], texts[1][1])]
    return ids[0], ids[1], ids[2]


def _shared(first: list[int], second: list[int]) -> int:
    for number, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return number
    return min(len(first), len(second))
