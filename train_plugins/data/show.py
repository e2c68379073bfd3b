"""Encoded rows as text in which the trained tokens are marked, to be read before a training."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olmes_suite import wording
from train_plugins.data.encoding import IGNORED, Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GREEN, PLAIN = "\x1b[32m", "\x1b[0m"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that would drive a terminal."""
OPEN, CLOSE = "[[", "]]"
"""Marks of trained text where there are no colours."""
BREAK = "⏎"
"""Stands for each line break at the end of trained text, where a mark on the next line would be hard to read."""


def lines(
    encoded: Encoded, tokenizer: PreTrainedTokenizerBase, ends: Collection[int], *, count: int, colour: bool,
    kwargs: Mapping[str, Any] | None = None,
) -> list[str]:  # fmt: skip
    """Return the first `count` rows as lines: a heading, the text with what is trained marked, and how it ends.

    `ends` are the ids of the tokens that end generation, `kwargs` the trainer's arguments of the chat template, with
    which it renders prompts.
    """
    marks = (GREEN, PLAIN) if colour else (OPEN, CLOSE)
    shown = []
    for number, row in enumerate(encoded.rows.select(range(min(count, len(encoded.rows))))):
        place = f" (row {encoded.origin[number]} of the data)" if len(encoded.origin) else ""
        for name, ids, trained in _texts(row, tokenizer, kwargs or {}):
            heading = f"--- row {number}{place}{name}: {wording.count(len(ids), 'token')}"
            if "chosen_ids" in row and "prompt_ids" not in row:  # a reward model reads all of a conversation
                shown += ["", heading, marked(tokenizer, ids, [False] * len(ids), marks), _read_at(tokenizer, ids)]
                continue
            shown += ["", f"{heading}, {sum(trained)} trained", marked(tokenizer, ids, trained, marks)]
            if any(trained):
                shown.append(ending(tokenizer, ids, trained, ends) + _after_end(tokenizer, ids, trained, ends))
    if shown and {"chosen_ids"} == {"chosen_ids", "prompt_ids"} & set(encoded.rows.column_names):
        return [f"a reward model reads whole conversations; {wording.count(len(encoded.rows), 'row')}", *shown]
    legend = f"{marks[0]}trained{marks[1]} text is marked"
    legend += f", {BREAK} is a trained line break" if any(BREAK + marks[1] in one for one in shown) else ""
    return [f"{legend}; {wording.count(len(encoded.rows), 'row')}", *shown]


def _read_at(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return f"the reward is read at the last token, {tokenizer.decode(ids[-1:])!r}"


def _texts(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, kwargs: Mapping[str, Any]
) -> Iterable[tuple[str, Sequence[int], Sequence[bool]]]:
    """Yield the texts of an encoded row: what each is called, its token ids, and which of them are trained."""
    if "labels" in row:
        yield "", row["input_ids"], [label != IGNORED for label in row["labels"]]
        return
    if "chosen_ids" in row:
        prompt = list(row.get("prompt_ids") or [])
        for side in ("chosen", "rejected"):
            answer = list(row[f"{side}_ids"])
            yield f", {side}", prompt + answer, [False] * len(prompt) + [True] * len(answer)
        return
    if isinstance(row.get("prompt"), list):
        given = tokenizer.apply_chat_template(row["prompt"], return_dict=True, add_generation_prompt=True, **kwargs)
        yield ", prompt", list(given["input_ids"]), [False] * len(given["input_ids"])


def marked(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], trained: Sequence[bool], marks: tuple[str, str]
) -> str:
    """Return the text of token ids with a mark before and after each run of trained ones."""
    text, start = "", 0
    for end in range(1, len(ids) + 1):
        if end < len(ids) and trained[end] == trained[start]:
            continue
        piece = _UNPRINTABLE.sub(lambda match: repr(match[0])[1:-1], tokenizer.decode(ids[start:end]))
        text += _with_breaks(piece, marks, last=end == len(ids)) if trained[start] else piece
        start = end
    return text


def _with_breaks(piece: str, marks: tuple[str, str], last: bool) -> str:
    """Mark a trained text; line breaks at its end become visible, and follow the mark so that lines stay lines."""
    said = piece.rstrip("\n")
    breaks = len(piece) - len(said)
    return f"{marks[0]}{said}{BREAK * breaks}{marks[1]}" + ("" if last else "\n" * breaks)


def _after_end(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], trained: Sequence[bool], ends: Collection[int]
) -> str:
    """Say that white space behind the token that ends generation is trained, in pairs as TRL's DPO does; or nothing."""
    last = max(place for place, inside in enumerate(trained) if inside)
    rest = last
    while rest > 0 and trained[rest] and ids[rest] not in ends and not tokenizer.decode([ids[rest]]).strip():
        rest -= 1
    if rest == last or ids[rest] not in ends:
        return ""
    said = tokenizer.decode(ids[rest + 1 : last + 1])
    return f"; the {said!r} that the chat template writes behind it is trained too, as TRL does"


def ending(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], trained: Sequence[bool], ends: Collection[int]
) -> str:
    """Say with which token each run of trained ones ends, and whether generation ends there."""
    last = _last_said(tokenizer, ids, trained)
    stops = [token for token in last if token in ends]
    names = sorted({str(tokenizer.convert_ids_to_tokens(token)) for token in stops})
    if len(stops) == len(last):
        turns = f"{len(last)} of {wording.count(len(last), 'turn')}"
        return f"end of turn: {', '.join(names)} is trained and ends generation ({turns})"
    return (
        f"end of turn: {len(stops)} of {len(last)} trained parts end in a token that ends generation; the others are "
        "cut off at the length limit, or their template has no such token"
    )


def _last_said(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], trained: Sequence[bool]) -> list[int]:
    """Return the last token of each trained run that is not white space."""
    found: list[int] = []
    last: int | None = None
    for token, inside in zip([*ids, 0], [*trained, False], strict=True):
        if inside and (last is None or tokenizer.decode([token]).strip()):
            last = token
        elif not inside and last is not None:
            found.append(last)
            last = None
    return found
