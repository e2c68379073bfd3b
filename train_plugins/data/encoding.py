"""From conversations to token ids: the chat template, the mask of the assistant's turns, and what is too long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError, UsageError, one_line
from olmes_suite.records import Message

TEMPLATES = Path(__file__).parent.parent / "templates"
IGNORED = -100
"""Label of a token that takes no part in the loss (PyTorch's ignore_index)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A training set in token ids, and what became of its rows."""

    rows: Any
    """A `datasets.Dataset`."""
    read: int
    """Rows before."""
    cut: int
    """Rows whose end was cut off at the length limit."""
    dropped: int
    """Rows that the limit leaves nothing to learn of; they are not in `rows`."""
    tokens: int
    """Tokens of `rows`, both answers of a pair counted."""
    equal: int = 0
    """Pairs whose two answers are equal in token ids; they are not in `rows` either."""
    longest: int = 0
    """Tokens of the longest row."""
    largest_id: int = 0
    """The largest token id in `rows`."""


def template_text(name: str | None) -> str | None:
    """The text of a template: `tulu` is shipped, anything else is a Jinja file. Raises UsageError."""
    if name is None:
        return None
    file = TEMPLATES / f"{name}.jinja" if (TEMPLATES / f"{name}.jinja").is_file() else Path(name)
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        shipped = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
        raise UsageError(f"chat_template {name}: neither a shipped template ({shipped}) nor a Jinja file") from None


def prepare_tokenizer(tokenizer: Any, template: str | None, masked: bool) -> Any:
    """The tokenizer with its chat template and a padding token. `masked`: the template must mark assistant turns.

    Raises UsageError where there is no template, no end-of-text token, or no marker.
    """
    if template is not None:
        tokenizer.chat_template = template
    if not isinstance(tokenizer.chat_template, str):
        raise UsageError("the tokenizer has no chat template; say `chat_template: tulu`, or name a Jinja file")
    if masked and not any(f"{{%{dash} generation" in tokenizer.chat_template for dash in ("", "-")):
        raise UsageError(
            "the chat template does not mark the assistant's turns with {% generation %} … {% endgeneration %}, so the "
            "loss cannot be put on them; say `chat_template: tulu`, or name a Jinja file that does"
        )
    if tokenizer.eos_token is None:
        raise UsageError("the tokenizer has no end-of-text token; set `eos_token` in its tokenizer_config.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pad_apart(tokenizer: Any) -> None:
    """Give the tokenizer a padding token that is no end-of-text: transformers' classifiers read the last token that is
    not padding, which were the one before the end-of-text.

    Any special token will do that no conversation ends in: one that is named for it, the unknown one, a reserved one,
    the beginning of text. Raises UsageError where there is none.
    """
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    wanted = [
        *(token for token in special if "pad" in token.lower()), tokenizer.unk_token,
        *(token for token in special if "reserved" in token.lower()), tokenizer.bos_token,
    ]  # fmt: skip
    free = [token for token in wanted if token and token != tokenizer.eos_token]
    if not free:
        raise UsageError(
            "the tokenizer pads with its end-of-text token, so the reward would be read at the token before it; set "
            "`pad_token` in its tokenizer_config.json to another special token"
        )
    tokenizer.pad_token = free[0]


def render(tokenizer: Any, messages: list[Message]) -> tuple[list[int], list[int]]:
    """(token ids, mask) of a conversation; mask 1: a token of an assistant's turn, its end-of-text included."""
    done = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return list(done["input_ids"]), list(done["assistant_masks"])


def token_ids(tokenizer: Any, messages: list[Message], prompt: bool = False) -> list[int]:
    """Token ids of a conversation; with `prompt`, up to where the assistant's answer starts."""
    done = tokenizer.apply_chat_template(messages, return_dict=True, add_generation_prompt=prompt)
    return list(done["input_ids"])


def sft_row(row: dict[str, Any], tokenizer: Any, limit: int | None) -> dict[str, Any]:
    """{"input_ids", "labels", "full"} of a conversation, cut at `limit` tokens; `full` is its length before."""
    ids, mask = render(tokenizer, row["messages"])
    labels = [token if kept else IGNORED for token, kept in zip(ids, mask, strict=True)]
    return {
        "input_ids": ids[:limit],
        "labels": labels[:limit],
        "full": len(ids),
        "tokens": len(ids[:limit]),
        "largest": max(ids[:limit], default=0),
    }


def pair_row(row: dict[str, Any], tokenizer: Any, limit: int | None) -> dict[str, Any]:
    """{"prompt_ids", "chosen_ids", "rejected_ids", "full", "tokens"} of a preference pair.

    The answers start where the longest common start of prompt and conversations ends; both together with the prompt
    are cut at `limit` tokens.
    """
    prompt = token_ids(tokenizer, row["chosen"][:-1], prompt=True)
    chosen, rejected = (token_ids(tokenizer, row[side]) for side in ("chosen", "rejected"))
    start = min(_shared(prompt, chosen), _shared(prompt, rejected))
    kept = [chosen[start:limit], rejected[start:limit]]
    return {
        "prompt_ids": prompt[:start],
        "chosen_ids": kept[0],
        "rejected_ids": kept[1],
        "full": max(len(chosen), len(rejected)),
        "tokens": 2 * start + len(kept[0]) + len(kept[1]),
        "largest": max(*prompt[:start], *kept[0], *kept[1], 0),
        "equal": kept[0] == kept[1],
    }


def whole_pair_row(row: dict[str, Any], tokenizer: Any, limit: int | None) -> dict[str, Any]:
    """{"chosen_ids", "rejected_ids", "full", "tokens"} of a preference pair for a reward model, never cut."""
    chosen, rejected = (token_ids(tokenizer, row[side]) for side in ("chosen", "rejected"))
    full = max(len(chosen), len(rejected))
    return {
        "chosen_ids": chosen,
        "rejected_ids": rejected,
        "full": full,
        "tokens": len(chosen) + len(rejected),
        "largest": max(*chosen, *rejected, 0),
        "equal": chosen == rejected,
    }


def encode(
    rows: Any, row_to_ids: Callable[..., dict[str, Any]], teaches: Callable[[dict[str, Any], int | None], bool],
    tokenizer: Any, limit: int | None, processes: int | None = None,
) -> Encoded:  # fmt: skip
    """Encode all rows and drop those that teach nothing. Raises DataError where none is left, or a template fails."""
    try:
        done = rows.map(
            row_to_ids,
            fn_kwargs={"tokenizer": tokenizer, "limit": limit},
            remove_columns=rows.column_names,
            num_proc=processes,
        )
    except Exception as error:  # Jinja's and the tokenizer's errors have many types
        raise DataError(f"the chat template cannot render the data: {one_line(error)}") from None
    fits = done.filter(teaches, fn_kwargs={"limit": limit}, num_proc=processes)
    if len(fits) == 0:
        raise DataError(f"all {len(rows)} rows are longer than max_length {limit}; raise trainer.max_length")
    pairs = "equal" in fits.column_names
    kept = fits.filter(_differs, num_proc=processes) if pairs else fits
    if len(kept) == 0:
        raise DataError(f"in all {len(fits)} pairs, chosen and rejected are equal in tokens: nothing to prefer")
    facts = kept.with_format("numpy")
    lengths = facts["full"]
    cut = 0 if limit is None else int(sum(length > limit for length in lengths))
    return Encoded(
        kept.remove_columns(["full", "tokens", "largest", *(["equal"] if pairs else [])]),
        len(rows),
        cut,
        len(rows) - len(kept),
        int(sum(facts["tokens"])),
        equal=len(fits) - len(kept),
        longest=int(max(lengths) if limit is None else min(max(lengths), limit)),
        largest_id=int(max(facts["largest"])),
    )


def _differs(row: dict[str, Any]) -> bool:
    return not row["equal"]


def _shared(first: list[int], second: list[int]) -> int:
    for number, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return number
    return min(len(first), len(second))
