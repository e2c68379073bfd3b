"""Tool calls and tools in the forms that data sets have them: all become the same row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from train_fixture import chat, refused, write_rows

from olmes_suite.errors import DataError, UsageError
from train_plugins.config.recipe import DataEntry
from train_plugins.data import sets
from train_plugins.data.control_tokens import control_tokens
from train_plugins.data.fields import read
from train_plugins.data.forms import converted
from train_plugins.data.messages import conversation
from train_plugins.data.rendering import Renderer
from train_plugins.stages import registry

TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
PYTHON = "{'name': 'add', 'arguments': '{\"x\": 1}'}"
FLAT = json.dumps({"name": "add", "arguments": {"x": 1}})
ASKED, CALLED, RESULT, SAID = (
    {"role": "user", "content": "Add."}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "2"}, {"role": "assistant", "content": "Two."},
)  # fmt: skip
WHOLE = [ASKED, CALLED, RESULT, SAID]
GUIDE = f"You call functions. <tools>[{json.dumps(TOOL)}]</tools> Return JSON within <tool_call></tool_call>."


def shared(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": who, "value": what} for who, what in turns]


def parts(role: str, weight: float, *pieces: tuple[str, str]) -> dict[str, Any]:
    return {"role": role, "content": [{"type": t, "value": v} for t, v in pieces], "loss_weight": weight}


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("messages", {"messages": WHOLE, "tools": [TOOL]}),
        ("messages", {"messages": json.dumps(WHOLE), "tools": json.dumps([TOOL])}),
        ("messages", {"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL]}, RESULT, SAID], "tools": [TOOL]}),
        ("messages", {"messages": [ASKED, {"role": "tool_call", "content": FLAT},
                                   {"role": "tool_response", "content": "2"}, SAID],
                      "available_tools": json.dumps([TOOL])}),
        ("messages", {"messages": [ASKED, {"role": "tool_call", "content": PYTHON}, RESULT, SAID], "tools": [TOOL]}),
        ("sharegpt", {"conversations": shared(("human", "Add."), ("function_call", FLAT), ("observation", "2"),
                                              ("gpt", "Two.")), "tools": json.dumps([TOOL["function"]])}),
        ("llamafactory", {"messages": [
            parts("system", 0, ("tools", json.dumps([TOOL]))), parts("user", 0, ("text", "Add.")),
            parts("assistant", 1, ("tool_calls", f"[{FLAT}]")), parts("tool", 0, ("text", "2")),
            parts("assistant", 1, ("text", "Two."))]}),
        ("hermes", {"conversations": shared(
            ("system", GUIDE), ("human", "Add."), ("gpt", f"<tool_call>\n{FLAT}\n</tool_call>"),
            ("tool", "<tool_response>\n2\n</tool_response>"), ("gpt", "Two."))}),
        ("hermes", {"messages": [
            ASKED, {"role": "assistant", "content": "<tool_call>{'name': 'add', 'arguments': {'x': 1}}</tool_call>"},
            RESULT, SAID], "tools": json.dumps([TOOL])}),
    ],
)  # fmt: skip
def test_a_conversation_with_calls_is_read_in_each_form(form: str, row: dict[str, Any]) -> None:
    name, columns = converted(row, "conversation", None)
    found = read(conversation(columns))
    spoken = [turn for turn in found.messages if turn["role"] != "system" or turn["content"]]
    assert (name, spoken, found.tools) == (form, WHOLE, [TOOL])
    assert converted(row, "conversation", form)[1]["messages"] == columns["messages"]


def test_reasoning_and_text_beside_calls_stay() -> None:
    pieces = ("reasoning", "Hm."), ("text", "So:"), ("tool_calls", f"[{FLAT}, {FLAT}]")
    turns = [parts("user", 0, ("text", "Add.")), parts("assistant", 1, *pieces)]
    found = read(conversation(converted({"messages": turns}, "conversation", None)[1]))
    assert found.messages[1] == {
        "role": "assistant", "content": "So:", "reasoning_content": "Hm.", "tool_calls": [CALL, CALL]
    }  # fmt: skip
    said = f"<think>\nHm.\n</think>\nSo:\n<tool_call>\n{FLAT}\n</tool_call>\n<tool_call>\n{FLAT}\n</tool_call>"
    row = {
        "conversations": shared(
            ("system", f"Be brief. <tools>[{json.dumps(TOOL)}]</tools>"), ("human", "Add."), ("gpt", said)
        )
    }
    form, columns = converted(row, "conversation", None)
    found = read(conversation(columns))
    assert form == "hermes" and found.messages[0]["content"] == "Be brief."
    assert found.messages[2]["content"] == "<think>\nHm.\n</think>\nSo:" and found.messages[2]["tool_calls"] == [
        CALL,
        CALL,
    ]
    assert converted(row, "conversation", "sharegpt")[1]["messages"][2]["content"] == said


def test_parallel_calls_that_are_turns_of_their_own_become_one_turn() -> None:
    row = {"messages": [ASKED, {"role": "assistant", "content": "So:"}, {"role": "tool_call", "content": FLAT},
                        {"role": "tool_call", "content": FLAT}, RESULT, RESULT, SAID]}  # fmt: skip
    found = read(conversation(converted(row, "conversation", None)[1]))
    assert [turn["role"] for turn in found.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert found.messages[1] == {"role": "assistant", "content": "So:", "tool_calls": [CALL, CALL]}


def test_xlam_becomes_a_call_with_a_json_schema() -> None:
    parameters = {
        "x": {"type": "int", "description": "The first."}, "y": {"type": "List[str], optional"},
        "z": {"type": "string", "required": True}, "w": {"type": "str", "default": "a"},
    }  # fmt: skip
    row = {"query": "Add.", "answers": f"[{FLAT}]", "tools": json.dumps([{"name": "add", "parameters": parameters}])}
    form, columns = converted(row, "conversation", None)
    found = read(conversation(columns))
    assert form == "xlam" and found.messages == [ASKED, CALLED] and found.tools is not None
    assert found.tools[0]["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "x": {"type": "integer", "description": "The first."}, "y": {"type": "array"}, "z": {"type": "string"},
            "w": {"type": "string", "default": "a"},
        },
        "required": ["x", "z"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("<tool_call>{no}</tool_call>", "a '<tool_call>' that is not JSON"),
        (f"<tool_call>{FLAT}</tool_call><tool_call>{FLAT}", "a '<tool_call>' that is not closed"),
        ('<tool_call>{"arguments": {}}</tool_call>', "no call with a name"),
    ],
)
def test_calls_in_text_that_are_none_are_one_line(said: str, why: str) -> None:
    row = {"conversations": shared(("system", GUIDE), ("human", "Add."), ("gpt", said))}
    with pytest.raises(ValueError, match=why):
        conversation(converted(row, "conversation", None)[1])


def load(file: Path, tokenizer: Any, **keys: Any) -> Any:
    stage = registry.find("sft")
    return sets.load(
        [DataEntry(path=str(file), **keys)], stage.form, stage.reads, frozenset(), control_tokens(tokenizer)
    )


def test_control_tokens_in_texts_are_found(tmp_path: Path) -> None:
    from chat_templates import DROPS, chat_tokenizer

    tokenizer = chat_tokenizer(DROPS)
    user = {"messages": chat("Say <|im_end|>", "No.")}
    answer = {"messages": chat("Say it", "<|im_end|>")}
    thought = {"messages": [ASKED, {**SAID, "reasoning_content": "<|im_start|>"}]}
    argument = {"messages": [ASKED, {**CALLED, "tool_calls": [{"name": "add", "arguments": {"x": "<|im_end|>"}}]}]}
    fine = {"messages": chat("Use <think> and </tool_call>, im_end", "<think>Hm.</think>No.")}
    for bad in (user, answer, thought, argument):
        file = write_rows(tmp_path / "rows.jsonl", [fine, bad])
        refused(lambda file=file: load(file, tokenizer), r"row 1 has the control token <\|im_.*neutralise", DataError)
    file = write_rows(tmp_path / "rows.jsonl", [fine, user, answer])
    (one,) = load(file, tokenizer, bad_rows="skip").sets
    assert len(one.rows) == 1 and len(one.bad) == 2
    (one,) = load(file, tokenizer, control_tokens="neutralise").sets
    assert "2 rows have control tokens in the text" in sets.summary(one)[0]
    assert [read(row).neutral for row in one.rows] == [False, True, True]
    (one,) = load(file, tokenizer, control_tokens="keep").sets
    assert len(one.rows) == 3 and not one.note


def test_the_forms_of_a_set_are_counted_and_hermes_is_explained(tmp_path: Path) -> None:
    from chat_templates import HERMES, chat_tokenizer

    hermes = {"conversations": shared(("system", GUIDE), ("human", "Add."), ("gpt", f"<tool_call>{FLAT}</tool_call>"))}
    file = write_rows(tmp_path / "rows.jsonl", [hermes, {"query": "Add.", "tools": [TOOL], "answers": FLAT}])
    (one,) = load(file, chat_tokenizer(HERMES)).sets
    assert dict(one.forms) == {"hermes": 1, "xlam": 1} and "form: sharegpt" in sets.summary(one)[0]
    refused(lambda: load(file, chat_tokenizer(HERMES), form="xlam"), "row 0 has no 'query'", DataError)


def test_arguments_of_the_template_for_a_set_give_way_to_a_rows_own(tmp_path: Path) -> None:
    from chat_templates import DROPS, chat_tokenizer

    from train_plugins.stages.model_arguments import check_entries

    rows = [
        {"messages": chat("a", "b")},
        {"messages": chat("a", "b"), "chat_template_kwargs": {"enable_thinking": True}},
    ]
    file, tokenizer = write_rows(tmp_path / "rows.jsonl", rows), chat_tokenizer(DROPS)
    (one,) = load(file, tokenizer, chat_template_kwargs={"enable_thinking": False}).sets
    assert [read(row).kwargs for row in one.rows] == [{"enable_thinking": False}, {"enable_thinking": True}]
    entry = DataEntry(path="a", chat_template_kwargs={"enable_thinkin": False})
    refused(lambda: check_entries(DROPS, [entry]), "does not read 'enable_thinkin'", UsageError)


def test_a_template_that_calls_results_environment_gets_that_role() -> None:
    template = "{% for m in messages %}{% if m.role == 'environment' %}<{{ m.content }}>{% endif %}{% endfor %}"
    from chat_templates import chat_tokenizer

    assert Renderer(chat_tokenizer(template)).text(WHOLE) == "<2>"
