"""Chat data: checks of conversations, and preference pairs in one form. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from olmes_suite.records import Message
from train_plugins.data import fields
from train_plugins.data.fields import EMPTY, EXTRA, MEDIA, RENDERED, TOOLS, Row, holds

KEPT = ("role", "content", "name", "tool_call_id", *fields.REASONING, *fields.CALLS, *TOOLS)
"""Fields of a turn that are passed to the chat template, or that have been read by the time it is checked."""


class UnclosedThought(ValueError):
    """A trained turn begins a thought that has no end."""


def conversation(row: Row) -> dict[str, Any]:
    """Return {"messages"} of an SFT row, `prompt_turns` where earlier assistant turns are not trained on, and `fields`.

    `messages` hold role and content alone, as a table can; whatever else the turns and the row say, such as reasoning
    and tool calls, is JSON in `fields`, where it says anything. Raises ValueError with what is wrong with the row.
    """
    check_columns(row)
    context = row.get("prompt_turns")
    turns, tools = fields.rich_turns(row.get("messages"), "messages")
    check(turns)
    context = context if isinstance(context, int) else 0
    answers = [turn for turn in turns if turn["role"] == "assistant"][context:]
    if answers and not any(turn.get(fields.TRAINED, True) for turn in answers):
        raise ValueError("no assistant turn that is trained on: all their weights are 0")
    for turn in answers:
        _check_thought(turn)
    extra = fields.extra({"messages": turns}, fields.tools_of_row(row, tools), fields.kwargs_of_row(row))
    return {
        "messages": fields.plain(turns),
        **({"prompt_turns": context} if isinstance(row.get("prompt_turns"), int) else {}),
        **({EXTRA: extra} if extra else {}),
    }


def preference(row: Row) -> dict[str, Any]:
    """Return {"chosen", "rejected"} of a preference row, two conversations that differ in the last turn, and `fields`.

    Accepts whole conversations, or `prompt` (text or messages) with answers that are text or a single assistant turn.
    A text `prompt` beside whole conversations, as in the Tülu 3 sets, repeats their first turn and is ignored.
    Raises ValueError with what is wrong with the row.
    """
    check_columns(row)
    prompt = row.get("prompt")
    start = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    pair, listed = {}, []
    for side in ("chosen", "rejected"):
        answer = row.get(side)
        turns, tools = fields.rich_turns(
            [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer, side
        )
        if start and turns and turns[0]["role"] == "assistant":
            before, more = fields.rich_turns(start, "prompt")
            turns, tools = [*before, *turns], [*more, *tools]
        pair[side] = check(turns)
        listed.append(tools)
        if not turns[-1].get(fields.TRAINED, True):
            raise ValueError(f"a last turn in {side!r} with weight 0: both answers are trained on")
    pair = {side: [fields.without_weight(turn) for turn in turns] for side, turns in pair.items()}
    if pair["chosen"][:-1] != pair["rejected"][:-1] or listed[0] != listed[1]:
        raise ValueError("chosen and rejected differ before the last turn")
    extra = fields.extra(pair, fields.tools_of_row(row, listed[0]), fields.kwargs_of_row(row))
    return {**{side: fields.plain(turns) for side, turns in pair.items()}, **({EXTRA: extra} if extra else {})}


def check_columns(row: Row) -> None:
    """Raise ValueError for columns with what is not text: no stage trains on it."""
    for column in MEDIA:
        if holds(row.get(column)):
            raise ValueError(
                f"a column {column!r}: images, videos and sounds are not trained on; remove the column to train "
                "without them"
            )


def check_no_tools(row: Row) -> None:
    """Raise ValueError for a column of tools, for a stage that does not offer them."""
    for column in fields.TOOL_COLUMNS:
        if holds(row.get(column)):
            raise ValueError(f"a column {column!r}: tools are not trained on; remove the column to train without them")


def check_answer_columns(row: Row) -> None:
    """Raise ValueError for columns beside an answer's that say how it came about, or how much it weighs."""
    for column in fields.CALLS:
        if holds(row.get(column)):
            raise ValueError(f"a column {column!r}, which is not trained on; remove the column to train without it")
    for column in fields.WEIGHTS[:2]:
        if row.get(column) not in (None, 1):
            raise ValueError(f"a column {column!r} with {row[column]!r:.20}: all rows weigh the same here")


def check_turns(found: Any, rendered: Set[str]) -> None:
    """Raise ValueError for a field of a turn that the chat template reads, but that is not passed to it."""
    for turn in found if isinstance(found, list) else ():
        for name in sorted(rendered & turn.keys()) if isinstance(turn, Mapping) else ():
            passed = name in KEPT and (name != "name" or turn.get("role") == "tool")
            if name not in ("role", "content") and not passed and holds(turn[name]):
                raise ValueError(
                    f"a turn with {name!r}, which the chat template renders but no stage trains on; remove the field"
                )


def check(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the turns if their order is right: an optional system turn, then user and assistant alternately.

    Results of tools may follow an assistant turn, which is then followed by another. The last turn must be the
    assistant's. Raises ValueError.
    """
    spoken = turns[1:] if turns and turns[0]["role"] == "system" else turns
    roles = [turn["role"] for turn in spoken]
    if not roles or roles[-1] != "assistant" or not all(map(_may_follow, roles, ["", *roles])):
        short = " ".join(role[:20] for role in roles[:6]) + (" …" if len(roles) > 6 else "")
        raise ValueError(f"wrong turn order ({short or 'no turns'}; expected user, assistant, …, ending in assistant)")
    for turn in spoken:
        if turn["role"] == "assistant" and not turn["content"].strip() and not turn.get("tool_calls"):
            if turn.get("function_calls"):
                continue
            also = " with reasoning, but neither an answer nor a tool call" if turn.get("reasoning_content") else ""
            raise ValueError(f"an empty assistant turn{also}")
    return turns


def _check_thought(turn: Mapping[str, Any]) -> None:
    """Raise ValueError for a trained turn whose thought in its text has no end, or nothing behind it."""
    said = turn["content"].strip()
    if not turn.get(fields.TRAINED, True) or any(turn.get(name) for name in ("reasoning_content", *fields.CALLS)):
        return  # with the reasoning in a field, the text is the answer
    if said.startswith("<think>") and "</think>" not in said:
        raise UnclosedThought("an assistant turn with a '<think>' that is not closed")
    if said.endswith("</think>"):
        raise ValueError("an assistant turn with reasoning, but neither an answer nor a tool call")


def _may_follow(role: str, before: str) -> bool:
    return before in {"user": ("", "assistant"), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}.get(
        role, ()
    )


def turns_of(value: Any, column: str) -> list[Message]:
    """Return the turns in a column as {"role", "content"}. Raises ValueError if the column holds anything else."""
    turns = fields.said(value, column)
    for turn in value:
        _check_fields(turn, column)
        fields.weight_of(turn, column)
    return turns


def _check_fields(turn: Mapping[str, Any], column: str) -> None:
    """Raise ValueError for a field with a meaning beyond role and content, which would be dropped silently."""
    for name in RENDERED:
        if holds(turn.get(name)):
            raise ValueError(f"a turn in {column!r} with {name!r}, which is not trained on; remove the field")


__all__ = ["EMPTY", "KEPT", "Row", "check", "check_columns", "conversation", "preference", "turns_of"]
