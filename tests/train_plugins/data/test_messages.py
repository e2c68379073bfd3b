"""What rows say beyond role and content is kept, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from train_fixture import chat

from train_plugins.data.fields import read
from train_plugins.data.messages import conversation, preference
from train_plugins.data.rlvr_rows import prompt_row


def turns(**fields: Any) -> list[dict[str, Any]]:
    first, last = chat("Hello?", "Hi.")
    return [first, {**last, **fields}]


REASONING, CALL = "Let me think.", {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def fields_of(row: dict[str, Any]) -> dict[str, Any]:
    """What a row of a table says beyond role and content."""
    return dict(json.loads(row.get("fields", "{}")))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"reasoning_content": REASONING}, {"reasoning_content": REASONING}),
        ({"thinking": REASONING}, {"reasoning_content": REASONING}),
        ({"reasoning": REASONING, "thinking": REASONING}, {"reasoning_content": REASONING}),
        ({"thought": REASONING}, {"reasoning_content": REASONING}),
        ({"tool_calls": [CALL]}, {"tool_calls": [CALL]}),
        ({"tool_calls": json.dumps([CALL])}, {"tool_calls": [CALL]}),
        ({"tool_calls": [{"id": "a1", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
         {"tool_calls": [{"id": "a1", **CALL}]}),
        ({"tool_calls": [{"name": "f", "arguments": {"x": 1, "y": None}}]}, {"tool_calls": [CALL]}),
        ({"function_call": {"name": "f", "arguments": '{"x": 1}'}}, {"tool_calls": [CALL]}),
        ({"function_calls": "f(x=1)"}, {"function_calls": "f(x=1)"}),
    ],
)  # fmt: skip
def test_reasoning_and_calls_are_kept_under_one_name(fields: dict[str, Any], kept: dict[str, Any]) -> None:
    found = conversation({"messages": turns(**fields)})
    assert found["messages"] == chat("Hello?", "Hi.") and fields_of(found)["turns"]["messages"][1] == kept
    pair = preference({"chosen": turns(**fields), "rejected": turns()})
    assert fields_of(pair)["turns"]["chosen"][1] == kept and fields_of(pair)["turns"]["rejected"] == [{}, {}]


def test_a_null_that_a_call_writes_itself_stays() -> None:
    found = conversation({"messages": turns(tool_calls=[{"name": "f", "arguments": '{"x": null}'}])})
    (call,) = fields_of(found)["turns"]["messages"][1]["tool_calls"]
    assert call["function"]["arguments"] == {"x": None}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"loss_weight": 0.5}, "'loss_weight' 0.5: a turn weighs 0 or 1"),
        ({"weight": "1"}, "'weight' '1'"),
        ({"reasoning_content": 3}, "'reasoning_content' that is not text"),
        ({"reasoning_content": "a", "thinking": "b"}, "different texts in 'reasoning_content' and 'thinking'"),
        ({"reasoning_details": [{"text": "a"}]}, "'reasoning_details'"),
        ({"tool_calls": "[{"}, "'tool_calls' of a turn.*not JSON"),
        ({"tool_calls": [{"arguments": {}}]}, "no call with a name"),
        ({"tool_calls": [{"name": "f", "arguments": "{x"}]}, "arguments of 'f' that is not JSON"),
        ({"tool_calls": [{"name": "f", "arguments": "[1]"}]}, "arguments of 'f' that are not a JSON object"),
        ({"tool_calls": [CALL], "function_call": {"name": "f"}}, "both 'tool_calls' and 'function_call'"),
        ({"images": ["a.png"]}, "'images'"),
    ],
)
def test_fields_that_cannot_be_trained_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        conversation({"messages": turns(**fields)})
    with pytest.raises(ValueError, match=named):
        preference({"chosen": turns(**fields), "rejected": turns()})


def test_turns_of_weight_0_are_not_trained() -> None:
    said = chat("a", "b", "c", "d")
    for fields in ({"weight": 0}, {"train": False}, {"loss": False}, {"loss_weight": 0.0}):
        found = conversation({"messages": [said[0], {**said[1], **fields}, *said[2:]]})
        assert read(found).untrained == {1}
        with pytest.raises(ValueError, match="no assistant turn that is trained on"):
            conversation({"messages": [said[0], {**said[1], **fields}]})
        with pytest.raises(ValueError, match="both answers are trained on"):
            preference({"chosen": turns(**fields), "rejected": turns()})
    with pytest.raises(ValueError, match="only assistant turns are trained on"):
        conversation({"messages": [{**said[0], "train": True}, said[1]]})
    with pytest.raises(ValueError, match="which only assistant turns have"):
        conversation({"messages": [{**said[0], "thinking": "Hm."}, said[1]]})


def test_fields_that_say_nothing_are_accepted() -> None:
    said = turns(reasoning_content=None, tool_calls=[], weight=1, train=True, id="x7")
    assert conversation({"messages": said}) == {"messages": chat("Hello?", "Hi.")}
    assert conversation({"messages": said, "tools": [], "images": [None], "source": "a"})["messages"]


def test_tools_are_read_for_answers_and_refused_for_prompts_of_rewards() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    for given in ([tool], json.dumps([tool]), [json.dumps(tool)], [tool["function"]], json.dumps(tool["function"])):
        assert fields_of(conversation({"messages": turns(), "tools": given})) == {"tools": [tool]}
        assert fields_of(preference({"chosen": turns(), "rejected": turns(), "tools": given})) == {"tools": [tool]}
    for given in (None, "", "[]", [], float("nan"), "null"):
        assert "fields" not in conversation({"messages": turns(), "tools": given})
    with pytest.raises(ValueError, match="'tools'"):
        prompt_row({"prompt": "Hello?", "verifier": "string", "ground_truth": "a", "tools": [tool]})


def test_results_follow_calls() -> None:
    user, answer = chat("Hello?", "Hi.")
    calling, result = {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "3"}
    whole = [user, calling, result, result, answer, user, answer]
    assert conversation({"messages": whole})["messages"][1] == {"role": "assistant", "content": ""}
    for wrong in ([user, result, answer], [result, answer], [user, calling, result], [user, calling, result, user]):
        with pytest.raises(ValueError, match="wrong turn order"):
            conversation({"messages": wrong})
    with pytest.raises(ValueError, match="an empty assistant turn with reasoning"):
        conversation({"messages": turns(content="", reasoning_content="Hm.")})
