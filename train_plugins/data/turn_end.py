"""The end of an assistant's turn: the token by which a trained model stops, checked before anything is trained."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import Any

from olmes_suite.errors import UsageError
from train_plugins.data.encoding import render, token_ids

PROBE = ({"role": "user", "content": "Say seven."}, {"role": "assistant", "content": "seven"})
"""A conversation that any chat template renders."""


def set_eos(tokenizer: Any, eos_token: str | None) -> None:
    """Make a token of the vocabulary the tokenizer's end-of-text token. Raises UsageError for one that it lacks."""
    if eos_token is None:
        return
    vocabulary = tokenizer.get_vocab()
    if eos_token not in vocabulary:
        near = difflib.get_close_matches(eos_token, [str(token) for token in tokenizer.all_special_tokens], n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"eos_token {eos_token!r}: not a token of the tokenizer{hint}")
    tokenizer.eos_token = eos_token


def end_ids(tokenizer: Any, model: str) -> list[int]:
    """Ids at which generation ends: the tokenizer's, and those of the checkpoint's generation_config where it is here.

    The tokenizer's comes first.
    """
    from transformers import GenerationConfig

    try:
        named = GenerationConfig.from_pretrained(model).eos_token_id
    except (OSError, ValueError):  # none, or one that transformers does not read: the tokenizer decides
        named = None
    listed = named if isinstance(named, list) else [named]
    return list(dict.fromkeys(int(number) for number in (tokenizer.eos_token_id, *listed) if number is not None))


def check_turn_end(tokenizer: Any, ends: Collection[int], masked: bool) -> None:
    """Raise UsageError unless the last token that is trained in an assistant's turn ends generation.

    White space behind it, as in ChatML, is passed over. `masked`: the template marks the trained tokens; otherwise
    all that follows the prompt is trained.
    """
    messages = list(PROBE)
    if masked:
        ids, mask = render(tokenizer, messages)
        trained = [token for token, kept in zip(ids, mask, strict=True) if kept]
    else:
        trained = token_ids(tokenizer, messages)[len(token_ids(tokenizer, messages[:-1], prompt=True)) :]
    while trained and not tokenizer.decode([trained[-1]]).strip():
        trained.pop()
    if trained and trained[-1] in ends:
        return
    end = _turn_end(tokenizer, messages)
    eos = tokenizer.eos_token
    if end is None:
        raise UsageError(
            f"the chat template writes no end-of-text token after an assistant's turn, so the model would not learn to "
            f"stop; say `chat_template: tulu`, or name a Jinja file that ends the turn in {eos}"
        )
    if trained and trained[-1] == end:
        name = tokenizer.convert_ids_to_tokens(end)
        raise UsageError(
            f"the chat template ends an assistant's turn in {name}, which is not an end-of-text token of this "
            f'checkpoint ({eos} is), so the trained model would not stop; say `eos_token: "{name}"` in the recipe'
        )
    raise UsageError(
        f"the chat template writes {tokenizer.convert_ids_to_tokens(end)} behind {{% endgeneration %}}, so the model "
        "would not learn to stop; move it before that mark, or say `chat_template: tulu`"
    )


def _turn_end(tokenizer: Any, messages: Sequence[dict[str, str]]) -> int | None:
    """The first special or added token behind the last turn's content; None where there is none."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False)
    tail = text[text.rindex(messages[-1]["content"]) + len(messages[-1]["content"]) :]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
    return next((int(token) for token in ids if token in special), None)
