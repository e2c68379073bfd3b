"""The forms of training rows: which one a row has, and the same row in the columns that the stages read.

A stage reads `messages`, or `chosen` and `rejected`; for rewards also `prompt`. Everything else about a row, such as
the order of its turns, is checked there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from olmes_suite.training_rows.names import PAIRS, PROMPT, RESPONSE, first
from train_plugins.config.recipe import Form
from train_plugins.data.fields import REASONING, TOOL_COLUMNS, Row, holds
from train_plugins.data.messages import check_answer_columns, check_columns, check_no_tools
from train_plugins.data.tool_calls import calls_of, from_hermes, is_hermes, tools_of, with_schema
from train_plugins.data.turns import (
    Turn,
    conversation_column,
    is_llamafactory,
    is_sharegpt,
    listed,
    text,
    turns,
    with_system,
)

Reads = Literal["conversation", "pair", "prompt"]
"""What a stage trains on: a conversation, two answers, or a prompt alone."""
CONTEXT = "prompt_turns"
"""Key of a converted row: the number of its assistant turns that belong to the prompt and are not trained on."""
_SPOKEN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
_HISTORY = "a 'history' that is not a list of questions and answers"
_FORMS = "messages, ShareGPT, Alpaca, prompt and completion, LLaMA-Factory, Hermes, xLAM"


def converted(row: Row, reads: Reads, form: Form | None) -> tuple[Form, dict[str, Any]]:
    """Return the form of a row, `form` or the detected one, and the row in the columns that its stage reads.

    Raises ValueError with what is wrong with the row.
    """
    check_columns(row)
    if reads == "prompt":
        check_no_tools(row)
        return _for_rewards(row, form)
    if reads == "pair":
        return _pair(row, form)
    name = form or _detected(row)
    return name, {**row, CONTEXT: None, **_CONVERSATIONS[name](row)}


def _detected(row: Row) -> Form:
    column = conversation_column(row)
    if column is not None:
        return _conversation_form(row, column)
    if _said(row.get("query")) and _said(row.get("answers")) and _said(row.get("tools")):
        return "xlam"
    if row.get("instruction") is not None:
        return "alpaca"
    if _column(row, PROMPT) and _column(row, RESPONSE):
        return "prompt"
    if any(_said(row.get(chosen)) for chosen, _ in PAIRS):
        raise ValueError("no 'messages': it is a pair of answers, for dpo or rm")
    if _column(row, PROMPT) and (empty := first(row, RESPONSE)):
        raise ValueError(f"nothing in the column {empty!r}")
    columns = ", ".join(map(str, row)) or "none"
    raise ValueError(f"no 'messages', and no other known form (columns: {columns:.200}; forms: {_FORMS})")


def _conversation_form(row: Row, column: str) -> Form:
    """Return the form of a column that holds a conversation."""
    if is_llamafactory(row[column]):
        return "llamafactory"
    found = listed(row[column])
    if found and "<tool_call>" in str(found):
        tools = [row.get(name) for name in TOOL_COLUMNS]
        if is_hermes(_readable(row, column), next(filter(holds, tools), None)):
            return "hermes"
    return "sharegpt" if is_sharegpt(row[column]) else "messages"


def _readable(row: Row, column: str) -> list[Turn]:
    """Return the turns of a column; none where they cannot be read, which the form's reader says."""
    try:
        return with_system(row, turns(row[column], column))
    except ValueError:
        return []


def _column(row: Row, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if _said(row.get(name))), None)


def _said(value: Any) -> bool:
    """Return whether there is a value; NaN is what pandas writes for none."""
    return value is not None and value == value


def _messages(row: Row) -> dict[str, Any]:
    column = conversation_column(row)
    if column is None:
        raise ValueError("no 'messages'")
    return {"messages": with_system(row, turns(row[column], column))}


def _hermes(row: Row) -> dict[str, Any]:
    """Return the conversation with the calls, results and tools that its texts hold as fields."""
    found, tools = from_hermes(_messages(row)["messages"])
    given = any(holds(row.get(name)) for name in TOOL_COLUMNS)
    return {"messages": found, **({"tools": tools} if tools and not given else {})}


def _xlam(row: Row) -> dict[str, Any]:
    """Return a question and the tool calls that answer it."""
    asked = _text(row, "query")
    if asked is None:
        raise ValueError("no 'query'")
    calls = calls_of(row.get("answers"), "'answers'")
    if not calls:
        raise ValueError("no call in 'answers'")
    before = with_system(row, [{"role": "user", "content": asked}])
    tools = [with_schema(tool) for tool in tools_of(row.get("tools"), "'tools'")]
    return {"messages": [*before, {"role": "assistant", "content": "", "tool_calls": calls}], "tools": tools}


def _alpaca(row: Row) -> dict[str, Any]:
    answer = _column(row, RESPONSE)
    if answer is None:
        raise ValueError("no 'output'")
    check_answer_columns(row)
    return {"messages": [*_instruction(row), _answered(row, _text(row, answer) or "")]}


def _answered(row: Row, said: str) -> Turn:
    """Return the assistant's turn of a row whose answer is a column, with the reasoning in another."""
    thoughts = {name: row[name] for name in REASONING if holds(row.get(name))}
    return {"role": "assistant", "content": said, **thoughts}


def _instruction(row: Row) -> list[Turn]:
    """Return the turns before the answer of an Alpaca row: the instruction, a blank line and the input."""
    asked = _text(row, "instruction")
    if asked is None:
        raise ValueError("no 'instruction'")
    around = [said for name in ("input", "context") if (said := _text(row, name)) is not None]
    rounds = row.get("history") if _said(row.get("history")) else None
    if not isinstance(rounds, list | tuple | None):
        raise ValueError(_HISTORY)
    history = [turn for pair in rounds or () for turn in _round(pair)]
    return with_system(row, [*history, {"role": "user", "content": "\n\n".join([asked, *around])}])


def _round(pair: Any) -> list[Turn]:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(said, str) for said in pair):
        raise ValueError(_HISTORY)
    return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


def _text(row: Row, column: str) -> str | None:
    try:
        return text(row.get(column))
    except ValueError as error:
        raise ValueError(f"a column {column!r} with {error}") from None


def _prompt(row: Row) -> dict[str, Any]:
    """Return prompt and completion as one conversation, of which only the completion is trained."""
    asked, answered = _column(row, PROMPT), _column(row, RESPONSE)
    if asked is None or answered is None:
        raise ValueError("no 'prompt'" if asked is None else "no 'completion'")
    check_answer_columns(row)
    before = with_system(row, _turns_or_text(row, asked, "user"))
    context = sum(turn["role"] == "assistant" for turn in before)
    answer = _turns_or_text(row, answered, "assistant")
    if not isinstance(row[answered], list | tuple | Mapping):
        answer = [_answered(row, answer[0]["content"])]
    whole = {"messages": [*before, *answer]}
    return {**whole, CONTEXT: context} if context else whole


def _turns_or_text(row: Row, column: str, role: str) -> list[Turn]:
    if isinstance(row[column], list | tuple | Mapping):
        return turns(row[column], column)
    return [{"role": role, "content": _text(row, column) or ""}]


def _transcript(row: Row) -> dict[str, Any]:
    column = _column(row, ("text", "transcript"))
    if column is None:
        raise ValueError("no 'text'")
    return {"messages": spoken(str(row[column]), column)}


_CONVERSATIONS: Mapping[Form, Callable[[Row], dict[str, Any]]] = {
    "messages": _messages, "sharegpt": _messages, "alpaca": _alpaca, "prompt": _prompt, "transcript": _transcript,
    "llamafactory": _messages, "hermes": _hermes, "xlam": _xlam,
}  # fmt: skip


def spoken(said: str, column: str) -> list[Turn]:
    """Return the turns of a transcript: paragraphs that begin with `Human:` or `Assistant:`. Raises ValueError."""
    marks = list(_SPOKEN.finditer(said.strip()))
    if not marks or marks[0].start() != 0:
        raise ValueError(f"{column!r} is text without a 'prompt', and no transcript of Human: and Assistant:")
    ends = [*(mark.start() for mark in marks[1:]), len(said.strip())]
    return [
        {"role": "user" if mark[1] == "Human" else "assistant", "content": said.strip()[mark.end() : end].strip()}
        for mark, end in zip(marks, ends, strict=True)
    ]


def _pair(row: Row, form: Form | None) -> tuple[Form, dict[str, Any]]:
    sides = next((names for names in PAIRS if all(row.get(name) is not None for name in names)), None)
    if sides is None:
        missing = next((name for name in PAIRS[0] if row.get(name) is None), "chosen")
        raise ValueError(f"no {missing!r} (columns: {', '.join(map(str, row)) or 'none':.200})")
    answers = [_answer(row, name) for name in sides]
    whole = next((name for name in sides if is_sharegpt(row[name])), None)
    if form is None and all(answer[0]["role"] != "assistant" for answer in answers if answer):
        parts = any(is_llamafactory(row[name]) for name in sides)
        found: Form = "llamafactory" if parts else "sharegpt" if whole else "messages"
        return found, {**row, "prompt": None, **_sides(with_system(row, a) for a in answers)}
    name = form or _pair_form(row, sides[0])
    if name == "transcript":
        return name, {**row, "prompt": None, **_sides(spoken(str(row[side]), side) for side in sides)}
    return name, {**row, "prompt": _before(row, name), **_sides(answers)}


def _sides(answers: Any) -> dict[str, Any]:
    return dict(zip(("chosen", "rejected"), answers, strict=True))


def _answer(row: Row, column: str) -> list[Turn]:
    return _turns_or_text(row, column, "assistant")


def _pair_form(row: Row, chosen: str) -> Form:
    if row.get("prompt") is not None:
        return "prompt"
    if conversation_column(row) is not None:
        return "sharegpt" if is_sharegpt(row[str(conversation_column(row))]) else "messages"
    if row.get("instruction") is not None:
        return "alpaca"
    if _column(row, PROMPT):
        return "prompt"
    return "transcript" if isinstance(row[chosen], str) else "messages"


def _before(row: Row, form: Form) -> list[Turn] | None:
    """Return the turns before both answers of a pair; None where the answers are whole conversations."""
    if form == "alpaca":
        return _instruction(row)
    if form == "prompt":
        column = _column(row, PROMPT)
        if column is None:
            raise ValueError("no 'prompt'")
        return with_system(row, _turns_or_text(row, column, "user"))
    column = conversation_column(row)
    return None if column is None else with_system(row, turns(row[column], column))


def _for_rewards(row: Row, form: Form | None) -> tuple[Form, dict[str, Any]]:
    """Bring the turns of a reward row's prompt to one form; its other columns belong to the verifier."""
    column = conversation_column(row)
    if column is not None and listed(row[column]) is not None and form != "prompt":
        found: Form = "sharegpt" if is_sharegpt(row[column]) else "messages"
        return form or found, {**row, "messages": turns(row[column], column)}
    if listed(row.get("prompt")) is not None and not isinstance(row["prompt"], str):
        return form or "prompt", {**row, "prompt": turns(row["prompt"], "prompt")}
    return form or "prompt", dict(row)
