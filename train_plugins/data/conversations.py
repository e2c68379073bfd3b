"""Conversations as rows of token ids and labels: the assistant's turns are trained, everything else is context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError, one_line
from olmes_suite.wording import count
from train_plugins.data import masks
from train_plugins.data.control_tokens import BREAK, encoded
from train_plugins.data.encoding import IGNORED, Encoded, check_rendered, encode, render
from train_plugins.data.fields import EXTRA, read
from train_plugins.data.rendering import Renderer, has_markers

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SWITCHES = {"preserve_thinking": True, "truncate_history_thinking": False, "clear_thinking": False}
"""Arguments with which chat templates keep the reasoning of earlier turns (Qwen 3.6, Nemotron 3, GLM 4.7)."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the conversations of a set are rendered and masked."""

    facts: masks.Facts
    reasoning: masks.Reasoning | None
    """What becomes of the reasoning of earlier turns; None: as the template has it, see `masks.parts`."""
    ends: tuple[str, ...]
    """The tokens that end generation."""
    pieces: bool
    """Whether the tokens of a text's pieces are those of the text."""
    kwargs: tuple[tuple[str, Any], ...] = ()
    """Arguments of the chat template for all rows."""
    notes: tuple[str, ...] = ()


def way(tokenizer: PreTrainedTokenizerBase, reasoning: masks.Reasoning | None, ends: Sequence[str]) -> Way:
    """Decide how conversations are rendered; with `keep`, the tokenizer may get TRL's training template.

    Raises UsageError if reasoning is to be kept and the template always drops it.
    """
    found, pieces = masks.facts(tokenizer, ends), whole_from_pieces(tokenizer)
    if reasoning != "keep" or not found.drops:
        return Way(found, reasoning, tuple(ends), pieces)
    for name, value in SWITCHES.items():
        if name in str(tokenizer.chat_template) and not masks.history(Renderer(tokenizer, None, {name: value}))[0]:
            said = f"{name}: {str(value).lower()}"
            note = f"reasoning: keep: rows are rendered with {said}; give it to the chat template at inference too"
            return Way(found, reasoning, tuple(ends), pieces, ((name, value),), (note,))
    if (template := training_template(tokenizer)) and not masks.history(Renderer(tokenizer, template=template))[0]:
        tokenizer.chat_template = template
        note = (
            "reasoning: keep: the chat template drops the reasoning of earlier turns, so TRL's training template "
            "replaces it, in the checkpoint too"
        )
        return Way(masks.facts(tokenizer, ends), reasoning, tuple(ends), pieces, (), (note,))
    raise UsageError(
        "sft.reasoning keep: the chat template drops the reasoning of earlier turns and has no argument to keep it; "
        "use per_turn, or name a template that keeps it in `chat_template`"
    )


def training_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return TRL's training template for the tokenizer's chat template, byte for byte; None if it has none."""
    try:
        from trl.chat_template_utils import get_training_chat_template

        template = get_training_chat_template(tokenizer)
    except Exception:  # TRL raises ValueError for an unknown template, and the template itself may raise anything
        return None
    return template if isinstance(template, str) and has_markers(template) else None


def encode_conversations(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, found: Way, *, limit: int | None, processes: int | None
) -> Encoded:
    """Encode conversations as {"input_ids", "labels"}; one may become several rows.

    Rows without a trained token within the limit are left out. Raises DataError where the template cannot render a
    row, or leaves out a part of it.
    """
    done = encode(rows, conversation_rows, _teaches, tokenizer, limit=limit, processes=processes, more={"found": found})
    proved = () if found.facts.marked else (
        f"masks: derived from the chat template, which has no generation markers; {count(done.turns, 'turn')} in "
        f"{count(len(done.rows), 'row')} passed the prefix test and the text test",
    )  # fmt: skip
    return replace(done, notes=(*found.notes, *proved))


def _teaches(row: dict[str, Any], limit: int | None) -> bool:
    return any(label != IGNORED for label in row["labels"])


def check(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, found: Way) -> None:
    """Render a conversation as it will be encoded. Raises ValueError where that fails or leaves something out."""
    if _plain(row, found):
        check_rendered(row, tokenizer)
    else:
        _parts(row, tokenizer, found)


def conversation_rows(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, limit: int | None, found: Way
) -> list[dict[str, Any]]:
    """Return the rows {"input_ids", "labels", "full", …} that a conversation becomes, cut at `limit` tokens."""
    if _plain(row, found):
        return [{**sft_row(row, tokenizer, limit), "row": row.get("row", 0)}]
    try:
        parts = _parts(row, tokenizer, found)
    except Exception as error:  # a template may raise anything
        raise ValueError(f"row {row.get('row', '?')}: {one_line(error, 300)}") from None
    encode_part = _encoded if found.pieces else _by_offsets
    return [{**encode_part(part, tokenizer, limit), "row": row.get("row", 0)} for part in parts]


def _parts(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, found: Way) -> list[masks.Part]:
    conversation = read(row)
    if found.kwargs:
        conversation = replace(conversation, kwargs={**dict(found.kwargs), **(conversation.kwargs or {})})
    return masks.parts(tokenizer, conversation, found.reasoning, found.ends)


def _plain(row: dict[str, Any], found: Way) -> bool:
    """Whether the template's own markers suffice: no turn of the row reads differently once others follow it."""
    if row.get(EXTRA) or found.kwargs or not (found.facts.marked and found.facts.whole):
        return False
    if found.reasoning in ("per_turn", "last"):
        return False
    return not (found.facts.drops and any("</think>" in turn["content"] for turn in row["messages"]))


def _encoded(part: masks.Part, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> dict[str, Any]:
    """Return the token ids of a rendered conversation, encoded piece by piece at the borders of its trained parts.

    At inference the prompt is encoded alone too, so no token spans its end.
    """
    ids: list[int] = []
    labels: list[int] = []
    at = 0
    for start, end in sorted((span.start, span.end) for span in part.spans):
        before, said = encoded(tokenizer, part.text[at:start]), encoded(tokenizer, part.text[start:end])
        ids += before + said
        labels += [IGNORED] * len(before) + said
        at = end
    rest = encoded(tokenizer, part.text[at:])
    ids, labels = ids + rest, labels + [IGNORED] * len(rest)
    return _row(ids, labels, limit, turns=part.turns, empty=part.empty_thoughts)


def whole_from_pieces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokens of a text's pieces are those of a text; SentencePiece puts a space before each piece."""
    pieces = ("Say seven.\n", "seven", " or eight", "\n")
    together = [token for piece in pieces for token in encoded(tokenizer, piece)]
    return bool(tokenizer.decode(together) == tokenizer.decode(encoded(tokenizer, "".join(pieces))))


def _by_offsets(part: masks.Part, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> dict[str, Any]:
    """Return the token ids of the whole text; a token is trained if it lies within a trained part.

    Raises ValueError for a tokenizer that does not say where its tokens lie.
    """
    if BREAK in part.text:  # control tokens can only be encoded as plain text in pieces
        return _encoded(part, tokenizer, limit)
    if not tokenizer.is_fast:
        raise ValueError("the tokenizer does not say where its tokens lie in a text; use its fast version")
    whole = tokenizer(part.text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [int(token) for token in whole["input_ids"]]
    spans = [(span.start, span.end) for span in part.spans]
    labels = [
        token if any(start <= first < last <= end for start, end in spans) else IGNORED
        for token, (first, last) in zip(ids, whole["offset_mapping"], strict=True)
    ]
    return _row(ids, labels, limit, turns=part.turns, empty=part.empty_thoughts)


def _row(ids: list[int], labels: list[int], limit: int | None, turns: int, empty: int) -> dict[str, Any]:
    return {
        "input_ids": ids[:limit],
        "labels": labels[:limit],
        "full": len(ids),
        "tokens": len(ids[:limit]),
        "largest": max(ids[:limit], default=0),
        "turns": turns,
        "empty": empty,
    }


def sft_row(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, limit: int | None) -> dict[str, Any]:
    """Return {"input_ids", "labels", "full"} of a conversation, cut at `limit` tokens; `full` is the uncut length.

    The template's markers say what is trained. The first `prompt_turns` assistant turns belong to the prompt and are
    not trained on.
    """
    check_rendered(row, tokenizer)
    ids, mask = render(tokenizer, row["messages"])
    count, answers = row.get("prompt_turns") or 0, sum(turn["role"] == "assistant" for turn in row["messages"])
    if count:
        mask = _without_turns(mask, count, answers)
    labels = [token if trained else IGNORED for token, trained in zip(ids, mask, strict=True)]
    return _row(ids, labels, limit, turns=answers - count, empty=0)


def _without_turns(mask: list[int], count: int, turns: int) -> list[int]:
    """Return the mask without its first `count` runs of ones, one run for each of the conversation's turns."""
    starts = [place for place, (one, last) in enumerate(zip(mask, [0, *mask], strict=False)) if one and not last]
    if len(starts) != turns:
        raise ValueError(f"{len(starts)} trained parts for {turns} assistant turns, so the prompt cannot be told apart")
    return [0] * starts[count] + mask[starts[count] :]
