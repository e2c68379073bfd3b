"""Pairs that teach nothing, and rows that a model cannot take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from models_fixture import make_tiny_tokenizer
from train_fixture import chat

from olmes_suite.errors import DataError, UsageError
from train_plugins.data.conversations import sft_row
from train_plugins.data.encoding import (
    IGNORED,
    Encoded,
    encode,
    prepare_tokenizer,
    template_text,
)
from train_plugins.data.pairs import pair_row, whole_pair_row
from train_plugins.stages.model_limits import check_fits


def pairs(*answers: tuple[str, str]) -> Any:
    from datasets import Dataset

    rows = [{"chosen": chat("Hello?", good), "rejected": chat("Hello?", bad)} for good, bad in answers]
    return Dataset.from_list(rows)


def everything(row: Any, limit: int | None) -> bool:
    return True


@pytest.mark.parametrize("form", [pair_row, whole_pair_row])
def test_equal_answers_are_left_out_and_counted(form: Any) -> None:
    found = encode(pairs(("a", "b"), ("same", "same"), ("c", "d")), form, everything, make_tiny_tokenizer(), limit=None)
    assert (found.read, len(found.rows), found.equal, found.dropped) == (3, 2, 1, 1)
    with pytest.raises(DataError, match="chosen and rejected are equal in tokens"):
        encode(pairs(("same", "same")), form, everything, make_tiny_tokenizer(), limit=None)


def test_answers_that_are_equal_within_the_limit_are_left_out() -> None:
    tokenizer = make_tiny_tokenizer()
    long = "the same words again and again and again"
    limit = len(tokenizer.apply_chat_template(chat("Hello?", long))["input_ids"]) - 3
    found = encode(pairs(("a", "b"), (f"{long} one", f"{long} two")), pair_row, everything, tokenizer, limit=limit)
    assert found.equal == 1


def config(folder: Path, **fields: Any) -> str:
    from transformers import GPT2Config, LlamaConfig

    kind = GPT2Config if fields.pop("learned", False) else LlamaConfig
    kind(vocab_size=400, **fields).save_pretrained(folder)
    return str(folder)


def rows(**fields: int) -> Encoded:
    return Encoded(rows=[], read=1, cut=0, dropped=0, tokens=1, **fields)


def test_ids_beyond_the_embeddings_are_one_line(tmp_path: Path) -> None:
    tokenizer, model = make_tiny_tokenizer(), config(tmp_path)
    assert check_fits(model, rows(largest_id=399), tokenizer, "trainer.max_length") == []
    with pytest.raises(UsageError, match=r"id 400.*400 embeddings"):
        check_fits(model, rows(largest_id=400), tokenizer, "trainer.max_length")


def test_rows_longer_than_learned_positions_are_one_line(tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer()
    learned = config(tmp_path / "a", learned=True, n_positions=64)
    assert check_fits(learned, rows(longest=64), tokenizer, "trainer.max_length") == []
    with pytest.raises(UsageError, match=r"65 tokens.*64 positions.*trainer.max_length"):
        check_fits(learned, rows(longest=65), tokenizer, "trainer.max_length")
    rotary = config(tmp_path / "b", max_position_embeddings=64)
    (line,) = check_fits(rotary, rows(longest=65), tokenizer, "trainer.max_length")
    assert "65 tokens exceed the 64 positions" in line


def test_assistant_turns_of_a_prompt_are_not_trained() -> None:
    tokenizer = prepare_tokenizer(make_tiny_tokenizer(), template_text("tulu"))
    turns = chat("a", "blue green", "c", "red")
    whole, last = (sft_row({"messages": turns, "prompt_turns": count}, tokenizer, None) for count in (0, 1))
    trained = [token for token in last["labels"] if token != IGNORED]
    assert tokenizer.decode(trained).startswith("red") and len(trained) < sum(n != IGNORED for n in whole["labels"])
    assert last["input_ids"] == whole["input_ids"]
