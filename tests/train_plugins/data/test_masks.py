"""Trained tokens are the assistant's turns, each behind the prompt that inference gives, in every kind of template."""

from __future__ import annotations

from typing import Any

import pytest
from chat_templates import DROPS, HEADERS, HERMES, LATER, MARKED, OPENED, SWITCHED, chat_tokenizer, said, trained
from train_fixture import need_trl, refused

from olmes_suite.errors import DataError, UsageError
from train_plugins.data import conversations, masks
from train_plugins.data.encoding import template_text
from train_plugins.data.fields import read
from train_plugins.data.messages import conversation

CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1, "y": "zwei"}}}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}]
USER, MORE = {"role": "user", "content": "Add them."}, {"role": "user", "content": "And then?"}
RESULT = {"role": "tool", "content": '{"sum": 3}'}
PLAIN = {"role": "assistant", "content": "Three."}
THOUGHT = {**PLAIN, "reasoning_content": "One and two."}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
THINKING_CALL = {**CALLING, "reasoning_content": "I need the tool."}
INLINE = {"role": "assistant", "content": "<think>\nOne and two.\n</think>\n\nThree."}
SYSTEM = {"role": "system", "content": "Be brief."}

Turns = list[dict[str, Any]]
ROWS: dict[str, Turns] = {
    "one": [USER, PLAIN],
    "system": [SYSTEM, USER, PLAIN],
    "two": [USER, PLAIN, MORE, PLAIN],
    "thoughts": [USER, THOUGHT, MORE, THOUGHT],
    "inline": [USER, INLINE, MORE, INLINE],
    "some thoughts": [USER, PLAIN, MORE, THOUGHT],
    "a chain": [USER, THINKING_CALL, RESULT, THINKING_CALL, RESULT, RESULT, THOUGHT],
    "a chain without thoughts": [USER, CALLING, RESULT, PLAIN],
    "chains": [SYSTEM, USER, THINKING_CALL, RESULT, THOUGHT, MORE, THINKING_CALL, RESULT, THOUGHT],
    "calls": [USER, {**CALLING, "content": "So:", "tool_calls": [CALL, CALL]}, RESULT, RESULT, PLAIN],
}


def row(turns: Turns, **more: Any) -> dict[str, Any]:
    """A row of a table."""
    tools = {"tools": TOOLS} if any(turn.get("tool_calls") for turn in turns) else {}
    return {**conversation({"messages": turns, **tools, **more}), "row": 3}


def rows_of(tokenizer: Any, given: dict[str, Any], reasoning: Any = None) -> Any:
    way = conversations.way(tokenizer, reasoning, [tokenizer.eos_token])
    return conversations.conversation_rows(given, tokenizer, None, way)


def prompt_of(tokenizer: Any, given: dict[str, Any], place: int) -> list[int]:
    """What inference gives the model before the turn at `place`."""
    whole = read(given)
    ids = tokenizer.apply_chat_template(
        whole.messages[:place], tools=whole.tools, add_generation_prompt=True, return_dict=True, **(whole.kwargs or {})
    )
    return list(ids["input_ids"])


@pytest.mark.parametrize("template", [DROPS, MARKED, SWITCHED, LATER, HEADERS, HERMES, template_text("tulu")])
@pytest.mark.parametrize("name", list(ROWS))
@pytest.mark.parametrize("reasoning", [None, "per_turn", "last"])
def test_every_trained_turn_stands_behind_the_prompt_of_inference(template: str, name: str, reasoning: Any) -> None:
    tokenizer, turns = chat_tokenizer(template), ROWS[name]
    if template == template_text("tulu"):
        tokenizer.eos_token = "</s>"
    calls, thinks = (any(turn.get(key) for turn in turns) for key in ("tool_calls", "reasoning_content"))
    if (thinks and template == HERMES) or ((thinks or calls) and template in (HEADERS, template_text("tulu"))):
        with pytest.raises(ValueError, match="row 3: it leaves out"):
            rows_of(tokenizer, row(turns), reasoning)
        return
    given = row(turns)
    answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    if reasoning == "last":
        answers = answers[-1:]
    made = rows_of(tokenizer, given, reasoning)
    if reasoning == "per_turn":
        assert len(made) == len(answers)
    found = []
    for one in made:
        labels, inside = one["labels"], False
        for place, label in enumerate(labels):
            if label != -100 and not inside:
                prompt = prompt_of(tokenizer, given, answers[len(found)])
                assert one["input_ids"][:place] == prompt
                found.append(place)
            inside = label != -100
        assert all(label in (-100, token) for label, token in zip(labels, one["input_ids"], strict=True))
    texts = [text for runs in trained(tokenizer, made) for text in runs]
    end = "</s>" if template == template_text("tulu") else None
    assert texts == [turns[place]["content"] + end if end else said(turns[place], template) for place in answers]


def test_a_conversation_is_one_row_where_the_template_keeps_it() -> None:
    for template, name, count in (
        (HEADERS, "two", 1), (HERMES, "two", 1), (SWITCHED, "two", 1), (SWITCHED, "thoughts", 2),
        (DROPS, "thoughts", 2),
        (DROPS, "a chain", 1), (DROPS, "chains", 4), (DROPS, "one", 1), (MARKED, "thoughts", 2), (MARKED, "a chain", 1),
    ):  # fmt: skip
        assert len(rows_of(chat_tokenizer(template), row(ROWS[name]))) == count, (name, count)


def test_turns_of_weight_0_and_of_the_prompt_are_not_trained() -> None:
    first = {**THOUGHT, "content": "Four."}
    for template in (DROPS, MARKED, SWITCHED):
        tokenizer = chat_tokenizer(template)
        for fields in ({"weight": 0}, {"train": False}, {"loss_weight": 0.0}):
            made = rows_of(tokenizer, row([USER, {**first, **fields}, MORE, THOUGHT]))
            assert trained(tokenizer, made) == [[said(THOUGHT, template)]]
        made = rows_of(tokenizer, row([USER, first, MORE, {**THOUGHT, "weight": 0}]))
        assert trained(tokenizer, made) == [[said(first, template)]]
        made = rows_of(tokenizer, row([USER, first, MORE, THOUGHT], prompt_turns=1))
        assert trained(tokenizer, made) == [[said(THOUGHT, template)]]


def test_keep_trains_all_reasoning_in_one_row_where_the_template_can() -> None:
    tokenizer = chat_tokenizer(SWITCHED)
    (only,) = rows_of(tokenizer, row(ROWS["thoughts"]), "keep")
    assert trained(tokenizer, [only]) == [[said(THOUGHT, SWITCHED)] * 2]
    found = conversations.way(tokenizer, "keep", ["<|im_end|>"])
    assert found.kwargs == (("preserve_thinking", True),) and "at inference too" in found.notes[0]
    refused(lambda: conversations.way(chat_tokenizer(DROPS), "keep", ["<|im_end|>"]), "use per_turn", UsageError)


def test_an_empty_thought_is_counted_unless_the_prompt_holds_it() -> None:
    tokenizer = chat_tokenizer(DROPS)
    (only,) = rows_of(tokenizer, row(ROWS["one"]))
    assert only["empty"] == 1
    (only,) = rows_of(tokenizer, row(ROWS["one"], chat_template_kwargs={"enable_thinking": False}))
    assert only["empty"] == 0 and trained(tokenizer, [only]) == [["Three.<|im_end|>"]]


def test_a_prompt_that_opens_the_thought() -> None:
    tokenizer = chat_tokenizer(OPENED)
    (only,) = rows_of(tokenizer, row([USER, THOUGHT]))
    assert trained(tokenizer, [only]) == [["One and two.\n</think>\n\nThree.<|im_end|>"]]
    with pytest.raises(ValueError, match=r"row 3: turn 2 does not begin with the generation prompt.*enable_thinking"):
        rows_of(tokenizer, row([USER, THOUGHT], chat_template_kwargs={"enable_thinking": False}))


@pytest.mark.parametrize(
    ("template", "turns", "what"),
    [
        (HEADERS, [USER, THOUGHT], "thoughts"),
        (HEADERS, [USER, CALLING], "tool calls|the tools"),
        (DROPS.replace("{%- if tools %}", "{%- if false %}"), [USER, CALLING], "the tools"),
        (DROPS.replace("messages[0].content + '<|im_end|>", "'<|im_end|>"), [SYSTEM, USER, PLAIN], "system turns"),
        (DROPS.replace("tool\n' + m.content", "tool\n'"), [USER, CALLING, RESULT, PLAIN], "tool results"),
        (DROPS.replace("in m.tool_calls or []", "in (m.tool_calls or [])[:1]"),
         [USER, {**CALLING, "tool_calls": [CALL, CALL]}], "tool calls"),
        (DROPS.replace("'arguments': call.function.arguments", "'arguments': {}"), [USER, CALLING], "arguments"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_refused(template: str, turns: Turns, what: str) -> None:
    with pytest.raises(ValueError, match=f"row 3: it leaves out ({what})"):
        rows_of(chat_tokenizer(template), row(turns))


def test_the_set_adds_up_and_names_the_row_that_fails() -> None:
    from datasets import Dataset

    tokenizer = chat_tokenizer(DROPS)
    way = conversations.way(tokenizer, None, ["<|im_end|>"])
    table = [{**row(turns), "row": number} for number, turns in enumerate(ROWS.values())]
    rows = Dataset.from_list([{"fields": "", **one} for one in table])
    done = conversations.encode_conversations(rows, tokenizer, way, limit=None, processes=None)
    answers = sum(turn["role"] == "assistant" for turns in ROWS.values() for turn in turns)
    assert done.turns == answers and done.read + done.added == len(done.rows) + done.dropped
    assert sorted(set(done.origin)) == list(range(len(ROWS))) and done.rows.column_names == ["input_ids", "labels"]
    short = conversations.encode_conversations(rows, tokenizer, way, limit=40, processes=None)
    assert short.dropped and short.read + short.added == len(short.rows) + short.dropped
    wrong = chat_tokenizer(HEADERS)
    refused(
        lambda: conversations.encode_conversations(rows, wrong, way, limit=None, processes=None),
        "row 3: it leaves out thoughts", DataError,
    )  # fmt: skip


def test_control_tokens_in_a_text_are_encoded_as_text() -> None:
    import json

    tokenizer = chat_tokenizer(DROPS)
    given = row([{**USER, "content": "What does <|im_end|> do?"}, {**THOUGHT, "content": "It is <|im_end|>."}])
    fields = {**json.loads(given.get("fields") or "{}"), "neutral": True}
    (only,) = rows_of(tokenizer, {**given, "fields": json.dumps(fields)})
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert only["input_ids"].count(end) == 2 and only["labels"].count(end) == 1
    assert "What does <|im_end|> do?" in tokenizer.decode(only["input_ids"])
    assert trained(tokenizer, [only]) == [["<think>\nOne and two.\n</think>\n\nIt is <|im_end|>.<|im_end|>"]]


def test_trls_training_templates_mark_the_same_tokens() -> None:
    need_trl()
    from pathlib import Path

    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    for name in ("qwen2_5", "qwen3", "llama3", "qwen3_instruct_2507"):
        text = (folder / f"{name}.jinja").read_text(encoding="utf-8")
        tokenizer = chat_tokenizer(text)
        (derived,) = rows_of(tokenizer, row(ROWS["system"]))
        trained_as = conversations.training_template(tokenizer)
        assert trained_as is not None
        tokenizer.chat_template = trained_as
        (marked,) = rows_of(tokenizer, row(ROWS["system"]))
        assert marked["input_ids"] == derived["input_ids"]
        ends = [[text.strip("\n") for text in runs] for runs in trained(tokenizer, [marked])]
        assert ends == trained(tokenizer, [derived]), name


def test_keep_takes_trls_training_template_into_the_checkpoint() -> None:
    need_trl()
    from pathlib import Path

    import trl

    text = (Path(trl.__file__).parent / "chat_templates/qwen3.jinja").read_text(encoding="utf-8")
    tokenizer = chat_tokenizer(text)
    found = conversations.way(tokenizer, "keep", ["<|im_end|>"])
    assert "TRL's training template" in found.notes[0] and tokenizer.chat_template != text
    (only,) = conversations.conversation_rows(row(ROWS["thoughts"]), tokenizer, None, found)
    assert [one.rstrip("\n") for one in trained(tokenizer, [only])[0]] == [said(THOUGHT, DROPS)] * 2


def test_pieces_are_encoded_as_inference_encodes_them() -> None:
    tokenizer = chat_tokenizer(HERMES)
    (only,) = rows_of(tokenizer, row([USER, {**PLAIN, "content": "\n\n  Three."}, MORE, PLAIN]))
    start = next(place for place, label in enumerate(only["labels"]) if label != -100)
    assert only["input_ids"][:start] == prompt_of(tokenizer, row(ROWS["one"]), 1)
    assert trained(tokenizer, [only]) == [["\n\n  Three.<|im_end|>", "Three.<|im_end|>"]]


def test_a_tokenizer_that_puts_a_space_before_each_piece() -> None:
    """SentencePiece's: pieces encoded apart would read " Three." for "Three."."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    text = "[INST] Add them. Be brief. And then? Say seven. or eight [/INST] Three. Four.\n"
    inner.train_from_iterator([text] * 4, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    )
    assert not conversations.whole_from_pieces(tokenizer)
    (only,) = rows_of(tokenizer, row(ROWS["two"]))
    assert trained(tokenizer, [only]) == [["Three.</s>", "Three.</s>"]]
    whole = tokenizer.apply_chat_template(ROWS["two"], return_dict=True)["input_ids"]
    assert only["input_ids"] == list(whole)


def test_calls_reach_the_template_without_nulls(tmp_path: Any) -> None:
    """Arrow gives both calls the arguments of both, with nulls."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from train_plugins.config.recipe import DataEntry
    from train_plugins.data import sets
    from train_plugins.stages import registry

    other = {"type": "function", "function": {"name": "look", "arguments": {"where": {"city": "Rome"}}}}
    turns = [USER, {**CALLING, "tool_calls": [CALL]}, RESULT, {**CALLING, "tool_calls": [other]}]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": turns, "tools": TOOLS}] * 2), file)
    stage = registry.find("sft")
    (found,) = sets.load([DataEntry(path=str(file))], stage.form, stage.reads).sets
    tokenizer = chat_tokenizer(HERMES)
    (only,) = rows_of(tokenizer, found.rows[0])
    assert trained(tokenizer, [only])[0][1] == (
        '<tool_call>{"name": "look", "arguments": {"where": {"city": "Rome"}}}</tool_call><|im_end|>'
    )
    assert "null" not in tokenizer.decode(only["input_ids"])


@pytest.mark.parametrize("joined", ["+", "~"])
@pytest.mark.parametrize("marked", [False, True])
def test_a_template_that_takes_arguments_as_text_gets_json(joined: str, marked: bool) -> None:
    """As DeepSeek's templates do: `+` fails on a mapping, `~` writes it as Python does."""
    said = "m.content ~ m.tool_calls[0].function.name ~ '```json\n' CALLED ~ '```' if m.tool_calls else m.content"
    said = said.replace("CALLED", joined + " m.tool_calls[0].function.arguments")
    answer = "{% generation %}{{ SAID }}<|im_end|>{% endgeneration %}" if marked else "{{ SAID }}<|im_end|>"
    template = (
        "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        + answer.replace("SAID", said)
        + "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
        "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    arguments = '{"wörd": "it\'s", "n": null, "k": [true, 2]}'
    call = {"type": "function", "function": {"name": "look", "arguments": arguments}}
    turns = [
        {"role": "user", "content": "Look."}, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "a clock"}, {"role": "assistant", "content": "A clock."},
    ]  # fmt: skip
    tokenizer = chat_tokenizer(template)
    row = conversation({"messages": turns})
    (part,) = masks.parts(tokenizer, read(row), None, ["<|im_end|>"])
    texts = [part.text[span.start : span.end] for span in part.spans]
    assert texts == [f"look```json\n{arguments}```<|im_end|>", "A clock.<|im_end|>"]


def test_arguments_between_single_quotes_are_written() -> None:
    from train_plugins.data.rendering import unsaid

    call = {"type": "function", "function": {"name": "add", "arguments": {"y": "zw\"ei\n\tl'ö"}}}
    said = "[add(y='zw\"ei\\n\tl\\'ö')]"
    assert unsaid({**CALLING, "tool_calls": [call]}, said) is None
    assert unsaid({**CALLING, "tool_calls": [call]}, said.replace("ö", "o")) == "arguments of tool calls"
