"""Chat data: checks of conversations, and preference pairs in one form. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from olmes_suite.records import Message

Row = Mapping[str, Any]
REASONING = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoning_details")
CALLS = ("tool_calls", "tool_call_id", "function_call", "function_calls")
TOOLS = ("tools", "functions")
"""Columns of a row, or fields of a turn, with the tools that its prompt offers."""
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
"""Columns of a row, or fields of a turn, with what is not text."""
RENDERED = (*REASONING, *CALLS, *TOOLS, *MEDIA)
"""Fields of a turn that chat templates render besides role and content; no stage trains on them."""
WEIGHTS = ("weight", "loss_weight", "train", "trainable", "loss", "loss_mask")
"""Fields that say whether, or how much, a turn is trained on."""
EMPTY: tuple[Any, ...] = (None, [], {}, "", "[]", "{}", "null")


def conversation(row: Row) -> dict[str, Any]:
    """Return {"messages"} of an SFT row, and `prompt_turns` where earlier assistant turns are not trained on.

    Raises ValueError with what is wrong with the row.
    """
    check_columns(row)
    context = row.get("prompt_turns")
    return {
        "messages": check(turns_of(row.get("messages"), "messages")),
        **({"prompt_turns": context} if isinstance(context, int) else {}),
    }


def preference(row: Row) -> dict[str, Any]:
    """Return {"chosen", "rejected"} of a preference row: two conversations that differ only in the last turn.

    Accepts whole conversations, or `prompt` (text or messages) with answers that are text or a single assistant turn.
    A text `prompt` beside whole conversations, as in the Tülu 3 sets, repeats their first turn and is ignored.
    Raises ValueError with what is wrong with the row.
    """
    check_columns(row)
    prompt = row.get("prompt")
    start = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    pair = {}
    for side in ("chosen", "rejected"):
        answer = row.get(side)
        turns = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else turns_of(answer, side)
        if start and turns and turns[0]["role"] == "assistant":
            turns = [*turns_of(start, "prompt"), *turns]
        pair[side] = check(turns)
    if pair["chosen"][:-1] != pair["rejected"][:-1]:
        raise ValueError("chosen and rejected differ before the last turn")
    return pair


def check_columns(row: Row) -> None:
    """Raise ValueError for columns that a chat template would render but no stage passes to it."""
    for columns, what in ((TOOLS, "tools"), (MEDIA, "images, videos and sounds")):
        for column in columns:
            if _holds(row.get(column)):
                raise ValueError(
                    f"a column {column!r}: {what} are not trained on; remove the column to train without them"
                )


def _holds(value: Any) -> bool:
    """Return whether a value says anything; a list of nulls, as tables have them, does not."""
    if isinstance(value, list | tuple):
        return any(_holds(one) for one in value)
    return not (value in EMPTY or (isinstance(value, float) and value != value))


def check_answer_columns(row: Row) -> None:
    """Raise ValueError for columns beside an answer's that say how it came about, or how much it weighs."""
    for column in (*REASONING, *CALLS):
        if _holds(row.get(column)):
            raise ValueError(f"a column {column!r}, which is not trained on; remove the column to train without it")
    for column in WEIGHTS[:2]:
        if row.get(column) not in (None, 1):
            raise ValueError(f"a column {column!r} with {row[column]!r:.20}: all rows weigh the same here")


def check_turns(found: Any, rendered: Set[str]) -> None:
    """Raise ValueError for a field of a turn that the chat template reads, but that no stage passes to it."""
    for turn in found if isinstance(found, list) else ():
        for name in sorted(rendered & turn.keys()) if isinstance(turn, Mapping) else ():
            if name not in ("role", "content") and _holds(turn[name]):
                raise ValueError(f"a turn with {name!r}, which the chat template renders but no stage trains on")


def check(turns: list[Message]) -> list[Message]:
    """Return the turns if their order is right: an optional system turn, then user and assistant alternately.

    The last turn must be the assistant's. Raises ValueError.
    """
    spoken = turns[1:] if turns and turns[0]["role"] == "system" else turns
    roles = [turn["role"] for turn in spoken]
    expected = ["user" if number % 2 == 0 else "assistant" for number in range(len(roles))]
    if roles != expected or not roles or roles[-1] != "assistant":
        short = " ".join(role[:20] for role in roles[:6]) + (" …" if len(roles) > 6 else "")
        raise ValueError(f"wrong turn order ({short or 'no turns'}; expected user, assistant, …, ending in assistant)")
    if any(turn["role"] == "assistant" and not turn["content"].strip() for turn in spoken):
        raise ValueError("an empty assistant turn")
    return turns


def turns_of(value: Any, column: str) -> list[Message]:
    """Return the turns in a column as {"role", "content"}. Raises ValueError if the column holds anything else."""
    if value is None or (not isinstance(value, str) and len(value) == 0):
        raise ValueError(f"no {column!r}")
    try:
        turns = [{"role": str(turn["role"]), "content": turn["content"]} for turn in value]
    except (TypeError, KeyError):
        raise ValueError(f"{column!r} that are not a list of role and content") from None
    for turn in value:
        _check_fields(turn, column)
        _check_weights(turn, column)
    if any(not isinstance(turn["content"], str) for turn in turns):
        raise ValueError(f"{column!r} with a content that is not text")
    return turns


def _check_fields(turn: Mapping[str, Any], column: str) -> None:
    """Raise ValueError for a field with a meaning beyond role and content, which would be dropped silently."""
    for name in RENDERED:
        if _holds(turn.get(name)):
            raise ValueError(f"a turn in {column!r} with {name!r}, which is not trained on; remove the field")


def _check_weights(turn: Mapping[str, Any], column: str) -> None:
    """Raise ValueError for weights other than ours: 1 on assistant turns, and none on the others.

    OpenAI's `weight` is defined for assistant turns alone, so its value elsewhere says nothing.
    """
    own = turn["role"] == "assistant"
    for name in WEIGHTS:
        value = turn.get(name)
        if value is None or value == (1 if own else 0) or (not own and name == "weight" and value == 1):
            continue
        why = "all assistant turns weigh the same here" if own else "only assistant turns are trained on"
        raise ValueError(f"a turn in {column!r} with {name!r} {value!r:.20}: {why}")
