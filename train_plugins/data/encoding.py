"""Encode conversations as token ids: the chat template, the mask of the assistant's turns, and the length limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import DataError, UsageError, one_line
from olmes_suite.records import Message
from olmes_suite.wording import count

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent.parent / "templates"
IGNORED = -100
"""Label of a token that the loss ignores (PyTorch's ignore_index)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A training set in token ids, with counts of the rows that were cut or dropped."""

    rows: Dataset
    read: int
    """Number of rows before encoding."""
    cut: int
    """Number of rows cut off at the length limit."""
    dropped: int
    """Number of rows that are not in `rows`, because nothing to learn is left of them."""
    tokens: int
    """Number of tokens in `rows`; both answers of a pair count."""
    equal: int = 0
    """Number of pairs with equal answers in token ids; they are counted in `dropped` too."""
    longest: int = 0
    """Number of tokens of the longest row."""
    largest_id: int = 0
    """The largest token id in `rows`."""
    added: int = 0
    """Number of rows that come from splitting conversations: `read` and these are the rows trained and dropped."""
    turns: int = 0
    """Number of trained turns in `rows`, where the stage counts them."""
    empty_thoughts: int = 0
    """Number of trained turns that begin with an empty thought of the template."""
    origin: Sequence[int] = ()
    """The number in its set of the row that each of `rows` comes from, where the stage keeps it."""
    notes: tuple[str, ...] = ()
    """What else to say about the rows."""


def template_text(name: str | None) -> str | None:
    """Return the text of a chat template: a shipped one (`tulu`, `olmo3`) or a Jinja file. Raises UsageError."""
    if name is None:
        return None
    file = TEMPLATES / f"{name}.jinja" if (TEMPLATES / f"{name}.jinja").is_file() else Path(name)
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        shipped = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
        raise UsageError(f"chat_template {name}: neither a shipped template ({shipped}) nor a Jinja file") from None


COUNTED = ("full", "tokens", "largest", "equal", "turns", "empty", "row")
"""Columns of encoded rows that are counted and not trained on."""
_READ = re.compile(r"""\.get\(\s*["'](\w+)["']|\.(\w+)|\[\s*["'](\w+)["']\s*\]|["'](\w+)["']\s+(?:not\s+)?in\b""")


def fields_read(template: str) -> frozenset[str]:
    """Return the names that a chat template may read of a turn: `turn.name`, `turn["name"]`, `"name" in turn`."""
    return frozenset(name for groups in _READ.findall(template) for name in groups if name)


_OF_TOOLS = frozenset(("name", "id", "type", "arguments", "description", "parameters", "function"))
"""Fields of tools and calls; a template that reads them there need not read them of a turn."""


def turn_fields(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Return the names that the chat template may read of a turn, without those that it only reads of tools and calls.

    A field of tools and calls counts if it changes, or fails, the rendering of a probe.
    """
    found = fields_read(str(tokenizer.chat_template))
    turns = [{"role": role, "content": role.upper()} for role in ("user", "assistant", "user", "assistant")]
    try:
        plain = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # a template may raise anything; encoding the rows names the reason
        return found

    def changes(name: str, place: int) -> bool:
        probe = [{**turn, name: "probe"} if number == place else turn for number, turn in enumerate(turns)]
        try:
            return bool(tokenizer.apply_chat_template(probe, tokenize=False) != plain)
        except Exception:
            return True

    return found - {name for name in found & _OF_TOOLS if not any(changes(name, place) for place in range(len(turns)))}


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, template: str | None) -> PreTrainedTokenizerBase:
    """Set the tokenizer's chat template and a padding token. Raises UsageError without a template or end-of-text."""
    if template is not None:
        tokenizer.chat_template = template
    if not isinstance(tokenizer.chat_template, str):
        raise UsageError("the tokenizer has no chat template; set `chat_template: tulu`, or name a Jinja file")
    if tokenizer.eos_token is None:
        raise UsageError("the tokenizer has no end-of-text token; set `eos_token` in the recipe")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pad_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    """Set a padding token that differs from the end-of-text token.

    transformers' classifiers read the last token that is not padding; if the two were equal, that would be the token
    before the end-of-text. Any special token that no conversation ends with will do: one with "pad" in its name, the
    unknown token, a reserved one, or the beginning-of-text token. Raises UsageError if there is none.
    """
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    candidates = [
        *(token for token in special if "pad" in token.lower()), tokenizer.unk_token,
        *(token for token in special if "reserved" in token.lower()), tokenizer.bos_token,
    ]  # fmt: skip
    free = [token for token in candidates if token and token != tokenizer.eos_token]
    if not free:
        raise UsageError(
            "the tokenizer pads with its end-of-text token, so the reward would be read at the token before it; set "
            "`pad_token` in its tokenizer_config.json to another special token"
        )
    tokenizer.pad_token = free[0]


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> tuple[list[int], list[int]]:
    """Return (token ids, mask) of a conversation; the mask is 1 on assistant turns, including their end-of-text."""
    encoding = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return list(encoding["input_ids"]), list(encoding["assistant_masks"])


def token_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], prompt: bool = False, tools: Any = None
) -> list[int]:
    """Return the token ids of a conversation, which may show tools; with `prompt`, up to where the answer starts."""
    shown = {"tools": tools} if tools else {}
    encoding = tokenizer.apply_chat_template(messages, return_dict=True, add_generation_prompt=prompt, **shown)
    return list(encoding["input_ids"])


def check_rendered(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, column: str = "messages") -> None:
    """Raise ValueError if the chat template leaves out a system turn, or the thought of the last turn.

    Some templates ignore system turns, and some remove thoughts; those of earlier turns are removed on purpose.
    """
    messages = row[column]
    system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    last = messages[-1]["content"].strip() if "</think>" in messages[-1]["content"] else ""
    if not system and not last:
        return
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    for said, what in ((system, "system turns"), (_thought(last), "thoughts")):
        if said not in text:
            raise ValueError(
                f"row {row.get('row', '?')}: it leaves out {what}; remove them from the data, or name another template "
                "in `chat_template`"
            )


def _thought(said: str) -> str:
    return said.partition("</think>")[0].rpartition("<think>")[2].strip()


def encode(
    rows: Dataset, row_to_ids: Callable[..., Any], teaches: Callable[[dict[str, Any], int | None], bool],
    tokenizer: PreTrainedTokenizerBase, *, limit: int | None, processes: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> Encoded:  # fmt: skip
    """Encode all rows, and leave out those that `teaches` denies and pairs whose answers are equal in tokens.

    Raises DataError if none is left, or the template fails. `row_to_ids` returns one row, or, called with the arguments
    `more`, a list of rows that one becomes.
    """
    given = {"tokenizer": tokenizer, "limit": limit, **(more or {})}
    several: dict[str, Any] = {} if more is None else {"batched": True, "batch_size": 100}
    try:
        encoded = rows.map(
            row_to_ids if more is None else _many,
            fn_kwargs=given if more is None else {"row_to_ids": row_to_ids, "given": given},
            remove_columns=rows.column_names,
            num_proc=processes,
            **several,
        )
    except Exception as error:  # Jinja's and the tokenizer's errors have many types
        raise DataError(
            f"the chat template cannot render the data: {one_line(error, 300)}"
            "; `bad_rows: skip` in the data entry leaves such rows out"
        ) from None
    fits = encoded.filter(teaches, fn_kwargs={"limit": limit}, num_proc=processes)
    if len(fits) == 0:
        raise DataError(f"all {len(rows)} rows are longer than max_length {limit}; raise trainer.max_length")
    pairs = "equal" in fits.column_names
    trainable = fits.filter(_differs, num_proc=processes) if pairs else fits
    if len(trainable) == 0:
        raise DataError(
            f"in all {len(fits)} pairs, chosen and rejected are equal in tokens; use pairs whose answers differ"
        )
    facts = trainable.with_format("numpy")
    lengths = facts["full"]
    cut = 0 if limit is None else int(sum(length > limit for length in lengths))
    return Encoded(
        trainable.remove_columns([name for name in COUNTED if name in trainable.column_names]),
        len(rows),
        cut,
        len(encoded) - len(trainable),
        int(sum(facts["tokens"])),
        equal=len(fits) - len(trainable),
        longest=int(max(lengths) if limit is None else min(max(lengths), limit)),
        largest_id=int(max(facts["largest"])),
        added=len(encoded) - len(rows),
        turns=int(sum(facts["turns"])) if "turns" in facts.column_names else 0,
        empty_thoughts=int(sum(facts["empty"])) if "empty" in facts.column_names else 0,
        origin=list(trainable["row"]) if "row" in trainable.column_names else (),
    )


def about(encoded: Encoded) -> list[str]:
    """Describe in lines what became of the rows beside being cut and left out."""
    lines = list(encoded.notes)
    if encoded.added:
        lines.append(
            f"{count(encoded.read, 'conversation')} gave {count(encoded.read + encoded.added, 'row')}: where the chat "
            "template renders earlier turns differently, each assistant turn is a row of its own, after its prompt"
        )
    if encoded.empty_thoughts:
        lines.append(
            f"note: {encoded.empty_thoughts} of {encoded.turns} trained turns begin with an empty thought, which the "
            "chat template writes; where it reads enable_thinking, `chat_template_kwargs: {enable_thinking: false}` in "
            "the data entry makes it part of the prompt"
        )
    return lines


def _many(
    batch: dict[str, list[Any]], row_to_ids: Callable[..., list[dict[str, Any]]], given: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Return the columns of the rows that a batch of rows becomes."""
    names = list(batch)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    made = [one for row in rows for one in row_to_ids(row, **given)]
    return {name: [one[name] for one in made] for name in (made[0] if made else ())}


def _differs(row: dict[str, Any]) -> bool:
    return not row["equal"]
