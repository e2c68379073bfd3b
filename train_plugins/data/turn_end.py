"""The end of an assistant's turn: the token with which a trained model stops, checked before training."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from olmes_suite.errors import UsageError
from train_plugins.data.encoding import render, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = ({"role": "user", "content": "Say seven."}, {"role": "assistant", "content": "seven"})
"""A conversation that any chat template renders."""


def set_eos(tokenizer: PreTrainedTokenizerBase, eos_token: str | None) -> None:
    """Set the tokenizer's end-of-text token. Raises UsageError for a token that is not in the vocabulary."""
    if eos_token is None:
        return
    vocabulary = tokenizer.get_vocab()
    if eos_token not in vocabulary:
        near = difflib.get_close_matches(eos_token, [str(token) for token in tokenizer.all_special_tokens], n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"eos_token {eos_token!r}: not a token of the tokenizer{hint}")
    tokenizer.eos_token = eos_token


def end_ids(tokenizer: PreTrainedTokenizerBase, model: str) -> list[int]:
    """Return the ids that end generation: the tokenizer's first, then those of the checkpoint's generation_config.

    A generation_config that is not on this machine is ignored.
    """
    from transformers import GenerationConfig

    try:
        named = GenerationConfig.from_pretrained(model).eos_token_id
    except (OSError, ValueError):  # missing or unreadable: the tokenizer decides
        named = None
    listed = named if isinstance(named, list) else [named]
    return list(dict.fromkeys(int(number) for number in (tokenizer.eos_token_id, *listed) if number is not None))


def check_turn_end(tokenizer: PreTrainedTokenizerBase, ends: Collection[int], masked: bool) -> None:
    """Raise UsageError unless the last trained token of an assistant's turn ends generation.

    White space after that token, as in ChatML, is ignored. `masked`: the template marks the trained tokens; otherwise
    everything after the prompt is trained.
    """
    messages = list(PROBE)
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template may raise anything; encoding the rows names the reason
        return
    if messages[-1]["content"] not in text:
        raise UsageError("the chat template leaves out the messages' text; name another in `chat_template`")
    if masked:
        ids, mask = render(tokenizer, messages)
        trained = [token for token, inside in zip(ids, mask, strict=True) if inside]
        _check_marks(tokenizer.decode(trained), messages)
    else:
        trained = token_ids(tokenizer, messages)[len(token_ids(tokenizer, messages[:-1], prompt=True)) :]
    while trained and not tokenizer.decode([trained[-1]]).strip():
        trained.pop()
    if trained and trained[-1] in ends:
        return
    end = _turn_end(tokenizer, text.rpartition(messages[-1]["content"])[2])
    eos = tokenizer.eos_token
    if end is None:
        raise UsageError(
            f"the chat template writes no end-of-text token after an assistant's turn, so the model would not learn to "
            f"stop; set `chat_template: tulu`, or name a Jinja file that ends the turn in {eos}"
        )
    if trained and trained[-1] == end:
        name = tokenizer.convert_ids_to_tokens(end)
        raise UsageError(
            f"the chat template ends an assistant's turn in {name}, which is not an end-of-text token of this "
            f'checkpoint ({eos} is), so the trained model would not stop; set `eos_token: "{name}"` in the recipe'
        )
    if end in trained:
        raise UsageError(
            f"the chat template writes more text after {tokenizer.convert_ids_to_tokens(end)} in an assistant's turn, "
            "so the model would learn to continue; end the turn there, or set `chat_template: tulu`"
        )
    raise UsageError(
        f"the chat template writes {tokenizer.convert_ids_to_tokens(end)} after {{% endgeneration %}}, so the model "
        "would not learn to stop; move it before that mark, or set `chat_template: tulu`"
    )


def _check_marks(trained: str, messages: Sequence[Mapping[str, str]]) -> None:
    """Raise UsageError unless the template's generation marks enclose the assistant's turn and no other."""
    if messages[0]["content"] in trained:
        raise UsageError(
            "the chat template's {% generation %} marks enclose the user's turns too; mark only the assistant's, or "
            "set `chat_template: tulu`"
        )
    if not trained:
        raise UsageError(
            "the chat template's {% generation %} marks do not enclose the assistant's turns; mark them, or set "
            "`chat_template: tulu`"
        )


def _turn_end(tokenizer: PreTrainedTokenizerBase, tail: str) -> int | None:
    """Return the first special or added token in the text after the last turn's content; None if there is none."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
    return next((int(token) for token in ids if token in special), None)
