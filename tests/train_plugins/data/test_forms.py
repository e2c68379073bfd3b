"""Forms of training rows: each becomes the conversation or pair that a stage reads, or one line says why not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from train_fixture import chat

from train_plugins.data.forms import converted
from train_plugins.data.messages import conversation, preference
from train_plugins.data.rlvr_rows import prompt_row

SAID = chat("Hello?", "Hi.")
SYSTEM = [{"role": "system", "content": "Be brief."}]
SHARED = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]
PARTS = [{"role": turn["role"], "content": [{"type": "text", "value": turn["content"]}]} for turn in SAID]


def sft(row: dict[str, Any], form: Any = None) -> tuple[str, Any]:
    name, columns = converted(row, "conversation", form)
    return name, conversation(columns)["messages"]


def dpo(row: dict[str, Any], form: Any = None) -> tuple[str, Any, Any]:
    name, columns = converted(row, "pair", form)
    pair = preference(columns)
    return name, pair["chosen"], pair["rejected"]


@pytest.mark.parametrize(
    ("form", "row", "said"),
    [
        ("messages", {"messages": SAID}, SAID),
        ("messages", {"conversations": SAID, "messages": None}, SAID),
        ("messages", {"messages": json.dumps(SAID)}, SAID),
        ("llamafactory", {"messages": PARTS}, SAID),
        (
            "messages",
            {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in SAID]},
            SAID,
        ),
        ("messages", {"conversation": ["Hello?", "Hi."]}, SAID),
        ("messages", {"messages": SAID, "system": "Be brief."}, SYSTEM + SAID),
        ("sharegpt", {"conversations": SHARED}, SAID),
        ("sharegpt", {"conversations": SHARED, "system": "Be brief."}, SYSTEM + SAID),
        ("sharegpt", {"conversations": [{"from": "system", "value": "Be brief."}, *SHARED]}, SYSTEM + SAID),
        ("sharegpt", {"messages": [{"from": "User", "value": "Hello?"}, {"from": "Bot", "value": "Hi."}]}, SAID),
        ("alpaca", {"instruction": "Hello?", "input": "", "output": "Hi."}, SAID),
        ("alpaca", {"instruction": "Hello?", "input": float("nan"), "output": "Hi."}, SAID),
        ("alpaca", {"instruction": "Add.", "input": "1 2", "output": "3"}, chat("Add.\n\n1 2", "3")),
        ("alpaca", {"instruction": "Add.", "context": "1 2", "response": "3"}, chat("Add.\n\n1 2", "3")),
        ("alpaca", {"instruction": "c", "output": "d", "history": [["a", "b"]]}, chat("a", "b", "c", "d")),
        ("alpaca", {"instruction": "Hello?", "output": "Hi.", "system": "Be brief."}, SYSTEM + SAID),
        ("prompt", {"prompt": "Hello?", "completion": "Hi."}, SAID),
        ("prompt", {"question": "Hello?", "answer": "Hi."}, SAID),
        ("prompt", {"prompt": SAID[:1], "completion": SAID[1:]}, SAID),
        ("prompt", {"prompt": SAID[:1], "completion": "Hi."}, SAID),
        ("prompt", {"system_prompt": "Be brief.", "question": "Hello?", "response": "Hi."}, SYSTEM + SAID),
    ],
)
def test_a_conversation_is_read_in_each_form(form: str, row: dict[str, Any], said: Any) -> None:
    assert sft(row) == (form, said)
    assert sft(row, form) == (form, said)


def test_of_a_prompt_with_earlier_turns_only_the_completion_is_trained() -> None:
    before = chat("a", "b", "c")
    _, columns = converted({"prompt": before, "completion": chat("", "d")[1:]}, "conversation", None)
    assert conversation(columns) == {"messages": chat("a", "b", "c", "d"), "prompt_turns": 1}


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("messages", {"chosen": SAID, "rejected": chat("Hello?", "No.")}),
        ("messages", {"prompt": "Hello?", "chosen": SAID, "rejected": chat("Hello?", "No."), "messages": SAID}),
        ("llamafactory", {"chosen_messages": PARTS, "rejected_messages": [PARTS[0], {**PARTS[1], "content": "No."}]}),
        ("sharegpt", {"chosen": SHARED, "rejected": [SHARED[0], {"from": "gpt", "value": "No."}]}),
        ("sharegpt", {"conversations": SHARED[:1], "chosen": SHARED[1], "rejected": {"from": "gpt", "value": "No."}}),
        ("alpaca", {"instruction": "Hello?", "input": "", "chosen": "Hi.", "rejected": "No."}),
        ("prompt", {"prompt": "Hello?", "chosen": "Hi.", "rejected": "No."}),
        ("prompt", {"prompt": SAID[:1], "chosen": SAID[1:], "rejected": chat("", "No.")[1:]}),
        ("prompt", {"question": "Hello?", "chosen": "Hi.", "rejected": "No."}),
        ("transcript", {"chosen": "\n\nHuman: Hello?\n\nAssistant: Hi.",
                        "rejected": "Human: Hello?\n\nAssistant: No."}),
    ],
)  # fmt: skip
def test_a_pair_is_read_in_each_form(form: str, row: dict[str, Any]) -> None:
    assert dpo(row) == (form, SAID, chat("Hello?", "No."))


def test_a_named_form_overrides_the_detected_one() -> None:
    both = {"messages": SAID, "instruction": "Add.", "output": "3"}
    assert sft(both)[0] == "messages" and sft(both, "alpaca") == ("alpaca", chat("Add.", "3"))
    assert sft({"text": "Human: Hello?\n\nAssistant: Hi."}, "transcript")[1] == SAID
    with pytest.raises(ValueError, match="no 'instruction'"):
        sft({"messages": SAID, "output": "a"}, "alpaca")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a"}, r"no 'messages', and no other known form \(columns: text"),
        ({"chosen": "a", "rejected": "b"}, "a pair of answers, for dpo or rm"),
        ({"conversations": [*SHARED, {"from": "observation", "value": "7"}]}, "wrong turn order"),
        ({"conversations": [SHARED[0], {"from": "observation", "value": "7"}, SHARED[1]]}, "wrong turn order"),
        ({"conversations": [SHARED[0], {"from": "function_call", "value": "{}"}]}, "a turn of 'function_call'"),
        ({"conversations": [SHARED[0], {"from": "function_call", "value": "no"}]}, "'function_call'.*is not JSON"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "a part of type 'image'"),
        ({"conversations": "not a list"}, "not a list of role and content"),
        (
            {"conversations": [{"speaker": "a", "text": "b"}]},
            r"a turn without a role \(conversations\[0\], with the fields",
        ),
        ({"messages": [*SAID, {"role": None, "content": "x"}]}, r"a turn without a role \(messages\[2\]\)"),
        ({"messages": [*SAID, {"role": "user"}]}, r"a turn without a content \(messages\[2\], with the fields role\)"),
        (
            {"messages": [SAID[0], {"role": "asistant", "content": "x"}]},
            r"a turn of the unknown role 'asistant' \(messages\[1\]\), did you mean 'assistant'\?; roles: ",
        ),
        ({"messages": [SAID[0], {"role": "assistant", "content": 5}]}, r"not text \(messages\[1\]\)"),
        ({"instruction": "a", "output": " "}, "an empty assistant turn"),
        ({"instruction": "a", "output": 7}, "a column 'output' with int instead of text"),
        ({"instruction": "a", "input": "b"}, "no 'output'"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "a 'history' that is not a list"),
        ({"instruction": "a", "output": "b", "history": 5}, "a 'history' that is not a list"),
        ({"instruction": "a", "output": "b", "tool_calls": [{"name": "f"}]}, "a column 'tool_calls'"),
        ({"prompt": "a", "completion": "b", "weight": 0.1}, "a column 'weight' with 0.1"),
        ({"prompt": "a", "completion": None}, "nothing in the column 'completion'"),
        ({"prompt": float("nan"), "completion": "b"}, "no other known form"),
        ({"messages": SAID, "images": ["a.png"]}, "a column 'images'"),
        ({"messages": [*SYSTEM, *SAID], "system": "Be long."}, "a column 'system' beside another system turn"),
        ({"query": "a", "tools": [{"name": "f"}], "answers": "b"}, "'answers' that is not JSON"),
        ({"query": "a", "tools": "[{", "answers": [{"name": "f"}]}, "'tools' that is not JSON"),
        ({"query": "a", "tools": [{"name": "f"}], "answers": "[]"}, "no other known form|no call in 'answers'"),
        ({"messages": SAID, "tools": "no"}, "'tools' that is not JSON"),
        ({"messages": SAID, "tools": [{"about": "no name"}]}, "which is no tool with a name"),
        ({"messages": SAID, "tools": ["search"]}, "instead of a tool's description"),
        ({"messages": SAID, "chat_template_kwargs": "{"}, "'chat_template_kwargs' that is not JSON"),
        ({"messages": SAID, "chat_template_kwargs": [1]}, "not a JSON object"),
        ({"messages": SAID, "chat_template_kwargs": {"tools": []}}, "not the chat template's"),
    ],
)
def test_a_row_of_no_form_is_one_line(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sft(row)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "a", "rejected": "b"}, "'chosen' is text without a 'prompt'"),
        ({"prompt": "a", "chosen": "b"}, "no 'rejected'"),
        ({"chosen": SAID, "rejected": chat("Bye?", "No.")}, "differ before the last turn"),
    ],
)
def test_a_pair_of_no_form_is_one_line(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dpo(row)


def test_weights_of_turns_that_are_not_trained_on_say_nothing() -> None:
    first, last = SAID
    assert sft({"messages": [{**first, "loss_weight": 0.0}, {**last, "loss_weight": 1.0}]})[1] == SAID
    assert sft({"messages": [{**first, "weight": 1}, {**last, "weight": 1}]})[1] == SAID
    with pytest.raises(ValueError, match="no assistant turn that is trained on"):
        sft({"messages": [first, {**last, "loss_weight": 0.0}]})
    for turns in ([{**first, "loss_weight": 1.0}, last], [first, {**last, "loss_weight": 0.5}]):
        with pytest.raises(ValueError, match="'loss_weight'"):
            sft({"messages": turns})


def test_prompts_of_rewards_are_read_in_each_form() -> None:
    for row in ({"prompt": "Hello?"}, {"messages": SAID[:1]}, {"prompt": SAID[:1]}, {"conversations": SHARED[:1]}):
        _, columns = converted({**row, "verifier": "string", "ground_truth": "a"}, "prompt", None)
        assert prompt_row(columns)["messages"] == SAID[:1]
