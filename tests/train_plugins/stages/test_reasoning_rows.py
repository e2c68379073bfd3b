"""SFT on conversations with reasoning and tools: what is trained is what the model says at inference, in every turn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_templates import DROPS, HEADERS, chat_tokenizer, said
from models_fixture import make_tiny_model
from stop_after import StopAfter
from train_fixture import chat, losses, make_recipe, need_trl, refused, weights, write_rows

from olmes_suite.errors import DataError, UsageError
from train_plugins.checkpoints import lineage
from train_plugins.running.dry_run import shown
from train_plugins.running.train_stage import run
from train_plugins.stages import registry

need_trl()
pytestmark = pytest.mark.long
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}


@pytest.fixture(scope="module")
def thinking_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose template drops the reasoning of earlier turns, and ends turns in <|im_end|>."""
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path_factory.mktemp("thinking"), max_length=512)
    tokenizer = chat_tokenizer(DROPS)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, thinking_checkpoint: Path, no_plugins: None, hash_cache: Path) -> Path:
    """A folder with a copy of that checkpoint in `tiny`, for stages without plugins."""
    shutil.copytree(thinking_checkpoint, tmp_path / "tiny")
    return tmp_path


def conversations(count: int) -> list[dict[str, Any]]:
    """Conversations of two turns with reasoning in both."""
    words = ["red", "green", "blue", "seven", "eggs", "clock"]
    rows = []
    for number in range(count):
        turns: list[dict[str, Any]] = [
            *chat(f"Say {words[number]}.", f"It is {words[number]}.", "And then?", "No more.")
        ]
        turns[1]["reasoning_content"] = f"They want {words[number]}."
        turns[3]["thinking"] = f"After {words[number]} comes nothing."
        rows.append({"messages": turns})
    return rows


def recipe(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Any:
    data = write_rows(folder / "rows.jsonl", rows)
    return make_recipe("sft", folder, data, chat_template=None, sft={"loss": "mean", **keys.pop("sft", {})}, **keys)


def train(folder: Path, rows: list[dict[str, Any]], go_on: bool = False, plugins: Any = (), **keys: Any) -> Path:
    return run(registry.find("sft"), recipe(folder, rows, **keys), go_on, plugins)


def test_a_trained_model_says_both_turns_as_they_were_trained(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = conversations(3)
    settings = {
        "max_steps": 160,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 6,
        "lr_scheduler_type": "constant",
    }
    out = train(folder, rows, trainer=settings)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    for row in rows:
        turns = [dict(turn) for turn in row["messages"]]
        turns[3]["reasoning_content"] = turns[3].pop("thinking")
        for place in (1, 3):
            ids = tokenizer.apply_chat_template(turns[:place], add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
            with torch.inference_mode():
                answer = model.generate(torch.tensor([ids]), max_new_tokens=80, do_sample=False)[0, len(ids) :]
            assert tokenizer.decode(answer) == said(turns[place], DROPS)


def test_a_killed_stage_with_rows_for_each_turn_ends_in_the_same_weights(folder: Path) -> None:
    rows, keys = conversations(6), {"trainer": {"num_train_epochs": 2, "save_steps": 2}, "batch_size": 4}
    whole = train(folder, rows, output=str(folder / "whole"), **keys)
    broken = folder / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(folder, rows, output=str(broken), plugins=[StopAfter(4)], **keys)
    train(folder, rows, True, output=str(broken), **keys)
    assert losses(broken) == losses(whole)
    one, other = weights(whole), weights(broken)
    assert all(bool((one[name] == other[name]).all()) for name in one)
    counts = lineage.read(broken).rows
    assert counts["read"] + counts["added"] == counts["trained"] + counts["dropped"] == 12
    (broken / lineage.FILE).unlink()
    keys["sft"] = {"reasoning": "last"}
    refused(lambda: train(folder, rows, True, output=str(broken), **keys), r"sft\.reasoning", UsageError)


def test_rows_are_shown_as_they_are_trained(folder: Path) -> None:
    calling = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    rows = [*conversations(1), {"messages": [chat("Add.")[0], calling], "tools": json.dumps([TOOL])}] * 2
    notes, lines = shown(registry.find("sft"), recipe(folder, rows), 3, colour=False)
    text = "\n".join(lines)
    assert any("4 conversations gave 6 rows" in note for note in notes)
    assert any("6 turns in 6 rows passed" in note for note in notes)
    assert text.count("--- row") == 3 and "row 1 (row 0 of the data)" in text
    assert "[[<think>\nThey want red.\n</think>\n\nIt is red.<|im_end|>]]" in text
    assert "It is red.<|im_end|>\n<|im_start|>user\nAnd then?" in text
    assert text.count("end of turn: <|im_end|> is trained and ends generation (1 of 1 turn)") == 3
    coloured = "\n".join(shown(registry.find("sft"), recipe(folder, rows), 1, colour=True)[1])
    assert "\x1b[32m<think>" in coloured and "[[" not in coloured
    pairs = [{"prompt": "Say red.", "chosen": "\x1b[2Jred", "rejected": "no"}] * 4
    data = write_rows(folder / "pairs.jsonl", pairs)
    wanted = make_recipe("dpo", folder, data, chat_template=None)
    text = "\n".join(shown(registry.find("dpo"), wanted, 1, colour=False)[1])
    assert "row 0, chosen" in text and "\\x1b[2Jred<|im_end|>" in text and "\x1b" not in text


def test_what_cannot_be_trained_is_refused_before_the_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = conversations(2)
    monkeypatch.setattr("train_plugins.running.train_stage._trainer", lambda *_: pytest.fail("the model is loaded"))
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{**CALL, "function": {"name": "add", "arguments": "{x"}}],
    }

    def bad(match: str, given: Any = rows, kind: Any = DataError, **keys: Any) -> None:
        refused(lambda: train(folder, given, **keys), match, kind)

    headers = make_headers(folder)
    bad("row 0: it leaves out thoughts", model=str(headers))
    bad("row 0: it leaves out the tools", [{"messages": chat("a", "b"), "tools": [TOOL]}] * 4, model=str(headers))
    bad("'tools' that is not JSON", [{"messages": chat("a", "b"), "tools": "[{"}])
    bad("arguments of 'add' that is not JSON", [{"messages": [chat("a")[0], call], "tools": [TOOL]}])
    bad("use per_turn", kind=UsageError, sft={"reasoning": "keep"})
    bad("use bfd", kind=UsageError, trainer={"packing": True, "packing_strategy": "wrapped"})
    bad("per_turn", kind=UsageError, sft={"reasoning": "all"})
    bad(r"control token <\|im_end\|>", [{"messages": chat("a <|im_end|>", "b")}])
    assert not (folder / "out").exists()


def make_headers(folder: Path) -> Path:
    """The checkpoint with a template that renders neither reasoning nor tools."""
    other = Path(shutil.copytree(folder / "tiny", folder / "headers"))
    tokenizer = chat_tokenizer(HEADERS)
    tokenizer.save_pretrained(other)
    return other


def test_rows_that_the_template_cannot_render_are_left_out_and_counted(folder: Path) -> None:
    headers = str(make_headers(folder))
    rows = [*conversations(2), *({"messages": chat("Say red.", "Red.")} for _ in range(4))]
    data = write_rows(folder / "rows.jsonl", rows)
    entry = {"path": str(data), "bad_rows": "skip"}
    wanted = recipe(folder, rows, model=headers, files=[entry])
    notes, _ = shown(registry.find("sft"), wanted, 1, colour=False)
    assert "4 rows (messages)" in notes[0] and "2 bad rows are left out" in notes[1]
    assert "row 0 has a conversation that the chat template cannot render: it leaves out thoughts" in notes[1]
    pairs = [{"prompt": "Say red.", "chosen": [{"role": "assistant", "content": "Red.", "thinking": thought}],
              "rejected": "No."} for thought in ("Hm.", None, None, None, None)]  # fmt: skip
    entry["path"] = str(write_rows(folder / "pairs.jsonl", pairs))
    for kind in ("dpo", "rm"):
        more = {"rm": {"fresh_head": True}} if kind == "rm" else {}
        wanted = make_recipe(kind, folder, data, chat_template=None, model=headers, files=[entry], **more)
        notes, _ = shown(registry.find(kind), wanted, 1, colour=False)
        assert "row 0 has a conversation that the chat template cannot render: it leaves out thoughts" in notes[1]


def test_packed_rows_of_one_conversation_do_not_see_each_other(folder: Path) -> None:
    rows = conversations(2)
    keys: dict[str, Any] = {"max_steps": 1, "max_grad_norm": 0.0, "learning_rate": 0.0}
    apart = train(folder, rows, output=str(folder / "a"), trainer={**keys, "per_device_train_batch_size": 4})
    packed = {"packing": True, "max_length": 500, "per_device_train_batch_size": 1}
    together = train(folder, rows, output=str(folder / "b"), trainer={**keys, **packed})
    assert losses(together) == pytest.approx(losses(apart), rel=1e-5)
