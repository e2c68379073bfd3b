"""Real rows with their quirks: every row is read, and what is trained is what its assistant turns say."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from chat_templates import DROPS, HERMES, chat_tokenizer, said, trained

from train_plugins.config.recipe import DataEntry
from train_plugins.data import conversations, sets
from train_plugins.data.control_tokens import control_tokens
from train_plugins.data.pairs import pair_row
from train_plugins.stages import registry

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def chats(data_dir: Path) -> Path:
    """A folder of chat data beside the mirror, or `$OLMES_CHATS_DIR`."""
    folder = Path(os.environ.get("OLMES_CHATS_DIR") or data_dir.parent / "chats")
    if not folder.is_dir():
        pytest.skip("no real chat data: $OLMES_CHATS_DIR names no folder")
    return folder


def raw(file: Path) -> list[dict[str, Any]]:
    """The rows of a file, as Python reads them."""
    data = file.read_bytes()
    text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def answers(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The assistant turns of a row, read by hand."""
    if "answers" in row:
        return [{"content": "", "tool_calls": [{"function": call} for call in row["answers"]]}]
    turns = row.get("messages") or row.get("conversations") or row["completion"]
    found = []
    for turn in turns:
        content = turn.get("content", turn.get("value"))
        if turn.get("role", turn.get("from")) not in ("assistant", "gpt"):
            continue
        if isinstance(content, str):
            found.append({"content": content})
            continue
        kinds = {part["type"]: part["value"] for part in content}
        calls = [{"function": call} for call in json.loads(kinds.get("tool_calls", "[]"))]
        thought = {"reasoning_content": kinds["reasoning"]} if "reasoning" in kinds else {}
        found.append({"content": kinds.get("text", ""), "tool_calls": calls, **thought})
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "form", "bad"),
    [
        ("axolotl_conversation.json", "sharegpt", 0),
        ("fastchat_dummy_with_system.jsonl.gz", "sharegpt", 0),
        ("hammer_toolalpaca_xlam_form.jsonl.gz", "xlam", 0),
        ("intellect3_sft_sample.jsonl.gz", "prompt", 0),
        ("llamafactory_reason_tool_use.jsonl.gz", "llamafactory", 1),  # a thought without an answer
        ("llamafactory_v1_sft.jsonl.gz", "llamafactory", 0),
    ],
)
def test_the_trained_text_of_every_row_is_what_its_assistant_turns_say(
    chats: Path, name: str, form: str, bad: int
) -> None:
    rows, stage = raw(chats / name), registry.find("sft")
    for template in (DROPS, HERMES):
        if template == HERMES and name == "llamafactory_reason_tool_use.jsonl.gz":
            continue  # its reasoning cannot be rendered
        tokenizer = chat_tokenizer(template)
        entry = DataEntry(path=str(chats / name), bad_rows="skip")
        (one,) = sets.load([entry], stage.form, stage.reads, frozenset(), control_tokens(tokenizer)).sets
        assert dict(one.forms) == {form: len(rows) - bad} and len(one.bad) == bad
        way = conversations.way(tokenizer, None, [str(tokenizer.eos_token)])
        for row in one.rows:
            made = conversations.conversation_rows(row, tokenizer, None, way)
            texts = [text for runs in trained(tokenizer, made) for text in runs]
            assert texts == [said(turn, template) for turn in answers(rows[row["row"]])]


@pytest.mark.parametrize(
    ("name", "form", "count"),
    [
        ("llamafactory_v1_dpo.jsonl.gz", "llamafactory", 10),
        ("open_instruct_preference_sample_raw.jsonl.gz", "messages", 100),
        ("hh_rlhf_string_form.jsonl.gz", "transcript", 1),
    ],
)
def test_every_pair_is_read(chats: Path, name: str, form: str, count: int) -> None:
    stage, tokenizer = registry.find("dpo"), chat_tokenizer(HERMES)
    entry = DataEntry(path=str(chats / name), bad_rows="skip")
    (one,) = sets.load([entry], stage.form, stage.reads, frozenset(), control_tokens(tokenizer)).sets
    assert dict(one.forms) == {form: len(one.rows)} and len(one.rows) + len(one.bad) == count
    for row in one.rows:
        pair = pair_row(row, tokenizer, None)
        for side in ("chosen", "rejected"):
            text = tokenizer.decode(pair[f"{side}_ids"])
            assert text.strip() == row[side][-1]["content"].lstrip() + "<|im_end|>"
