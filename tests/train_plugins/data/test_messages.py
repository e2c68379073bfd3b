"""Rows hold what is trained: fields that no stage reads are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from train_fixture import chat

from train_plugins.data.messages import conversation, preference
from train_plugins.data.rlvr_rows import prompt_row


def turns(**fields: Any) -> list[dict[str, Any]]:
    first, last = chat("Hello?", "Hi.")
    return [first, {**last, **fields}]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"reasoning_content": "Let me think."}, "'reasoning_content'"),
        ({"thinking": "Hm."}, "'thinking'"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, "'tool_calls'"),
        ({"weight": 0}, "'weight' 0"),
        ({"loss_weight": 0.5}, "'loss_weight' 0.5"),
        ({"train": False}, "'train' False"),
        ({"loss": False}, "'loss' False"),
        ({"thought": "Hm."}, "'thought'"),
        ({"function_calls": "f()"}, "'function_calls'"),
        ({"images": ["a.png"]}, "'images'"),
    ],
)
def test_fields_that_would_be_dropped_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        conversation({"messages": turns(**fields)})
    with pytest.raises(ValueError, match=named):
        preference({"chosen": turns(**fields), "rejected": turns()})


def test_fields_that_say_nothing_are_accepted() -> None:
    said = turns(reasoning_content=None, tool_calls=[], weight=1, train=True, id="x7")
    assert conversation({"messages": said}) == {"messages": chat("Hello?", "Hi.")}
    assert conversation({"messages": said, "tools": [], "images": [None], "source": "a"})["messages"]


def test_tools_are_refused() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for form, row in (
        (conversation, {"messages": turns()}),
        (preference, {"chosen": turns(), "rejected": turns()}),
        (prompt_row, {"prompt": "Hello?", "verifier": "string", "ground_truth": "a"}),
    ):
        with pytest.raises(ValueError, match="'tools'"):
            form({**row, "tools": tools})
