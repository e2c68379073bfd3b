"""The forms of training data: which columns hold text, and the role of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.errors import DataError
from olmes_suite.training_rows.names import CONVERSATION, PAIRS, PROMPT, RESPONSE, first, role_of, turn_keys

TEXT = "text"
"""Role of text outside turns; it is always compared."""
ROLES = ("user", "assistant", "system", "tool")
"""The roles of turns; other names of them are in `SPEAKERS` and `TOOL_TURNS`."""
_AROUND = ("context", "history")
"""Columns of context and earlier turns: part of the prompt wherever there is one, with any nesting."""
_TEXT = ("text", "content", "document")


@dataclass(frozen=True, slots=True)
class Form:
    """How a row is read."""

    name: str
    """messages, preference, instruction, prompt, text or fields."""
    columns: tuple[tuple[str, str], ...]
    """(column, role); where the column holds turns, each turn has a role of its own."""
    guessed: bool = False
    """Whether the form follows from its being the only column of text, not from the column's name."""

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(column for column, _ in self.columns)})"


class StrangeRole(str):
    """A line about a turn with an unknown role; the row is read, and the turn is not compared."""


class RowError(Exception):
    """A row that cannot be read; the message says why."""


def detect(columns: Collection[str], fields: Sequence[str] = (), strings: Sequence[str] = ()) -> Form:
    """Detect the form of data with these columns; `fields` names the columns to compare instead of a detected form.

    `strings` are the columns that hold text: where no form is known, a single one is used. Raises DataError.
    """
    if fields:
        if absent := [name for name in fields if name not in columns]:
            raise DataError(f"no column {absent[0]!r}; there are {', '.join(columns) or 'none'}")
        return Form("fields", tuple((name, TEXT) for name in fields))
    prompt, response, system = first(columns, PROMPT), first(columns, RESPONSE), first(columns, ("system",))
    around = [(name, "user") for name in _AROUND if name in columns]
    prompt_columns = [*([(system, "system")] if system else []), *([(prompt, "user"), *around] if prompt else [])]
    for sides in PAIRS:
        if set(sides) <= set(columns):
            role = "assistant" if prompt else TEXT
            return Form("preference", (*prompt_columns, *((side, role) for side in sides)))
    if name := first(columns, CONVERSATION):
        return Form("messages", ((name, TEXT),))
    if "instruction" in columns:
        input_column = [("input", "user")] if "input" in columns else []
        answers = [(response, "assistant")] if response else []
        before = [(system, "system")] if system else []
        return Form("instruction", (*before, ("instruction", "user"), *input_column, *around, *answers))
    if prompt:
        return Form("prompt", (*prompt_columns, *([(response, "assistant")] if response else [])))
    if name := first(columns, _TEXT):
        return Form("text", ((name, TEXT),))
    if len(strings) == 1:
        return Form("text", ((strings[0], TEXT),), guessed=True)
    raise DataError(
        f"no text was recognised among the columns {', '.join(columns) or '(none)'}; name them with --train-field"
    )


def strange(name: object) -> StrangeRole | None:
    """Return the line about an unknown role; None for a known one."""
    if name is not None and role_of(name) in ROLES:
        return None
    return StrangeRole(
        f"role {name!r} is not one of {', '.join(ROLES)}: its turns are not compared, in this row and later ones"
    )


def compared(role: str, roles: Collection[str]) -> bool:
    """Whether text of this role is compared."""
    return role == TEXT or role in roles


def parts(
    row: Mapping[str, Any], form: Form, roles: Collection[str], note: Callable[[str], None] = lambda why: None
) -> list[tuple[str, str]]:
    """List (name, text) of a row's compared parts; `note` is called with a line for each unknown role.

    Raises RowError for a value that is neither text nor turns.
    """
    texts: list[tuple[str, str]] = []
    for column, role in form.columns:
        if column not in row:
            raise RowError(f"no column {column!r}")
        value = row[column]
        if isinstance(value, str):
            if compared(role, roles):
                texts.append((column, value))
        elif nested(column, form):
            texts += _nested(column, value, role, roles, note)
        elif isinstance(value, list):
            texts += _turns(column, value, role, roles, note)
        elif value is not None:
            raise RowError(f"column {column!r} is {type(value).__name__}, expected text or turns")
    return texts


def nested(column: str, form: Form) -> bool:
    """Whether the column may hold any nesting of values, whose texts are all compared."""
    return column in _AROUND and form.name != "fields"


def _nested(
    name: str, value: Any, role: str, roles: Collection[str], note: Callable[[str], None]
) -> list[tuple[str, str]]:
    """List all texts of a value; turns keep their roles, and pairs of texts in a list are questions and answers."""
    if isinstance(value, str):
        return [(name, value)] if compared(role, roles) else []
    if isinstance(value, dict) and turn_keys(value):
        return _turns(name, [value], role, roles, note)
    if isinstance(value, dict):
        return [part for key, inner in value.items() for part in _nested(f"{name}.{key}", inner, role, roles, note)]
    if not isinstance(value, list):
        return []
    pairs = all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair) for pair in value)
    if pairs:
        value = [text for pair in value for text in pair]
    whose = (role, "assistant") if pairs else (role,)
    return [
        part
        for i, inner in enumerate(value)
        for part in _nested(f"{name}[{i}]", inner, whose[i % len(whose)], roles, note)
    ]


def _turns(
    column: str, turns: list[Any], role: str, roles: Collection[str], note: Callable[[str], None]
) -> list[tuple[str, str]]:
    texts = []
    for i, turn in enumerate(turns):
        name = f"{column}[{i}]"
        if isinstance(turn, str):
            if compared(role, roles):
                texts.append((name, turn))
            continue
        keys = turn_keys(turn)
        if keys is None:
            raise RowError(f"{name} is not a turn: it needs role and content, or from and value")
        if wrong := strange(turn[keys[0]]):
            note(wrong)
        elif role_of(turn[keys[0]]) in roles:
            texts += _contents(turn[keys[1]], name)
    return texts


def _contents(content: Any, name: str) -> list[tuple[str, str]]:
    """List (name, text) of a turn: a string, or the text pieces of a list of pieces."""
    if content is None:
        return []
    if isinstance(content, str):
        return [(name, content)]
    if isinstance(content, list):
        pieces = [_piece(piece) for piece in content]
        return [(f"{name}.{i}", piece) for i, piece in enumerate(pieces) if isinstance(piece, str)]
    raise RowError(f"{name}: its content is {type(content).__name__}, expected text")


def _piece(piece: Any) -> Any:
    """Return the text of a piece of content: OpenAI's `text`, or LLaMA-Factory's `value` of text and reasoning."""
    if not isinstance(piece, dict):
        return piece
    text = piece.get("text")
    return piece.get("value") if text is None and piece.get("type") in ("text", "reasoning") else text
