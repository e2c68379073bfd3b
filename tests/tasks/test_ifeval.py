"""IFEval: strict and loose readings, checkers that fail or draw, NLTK's data missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_parity import LEAVES, SAMPLE, assert_prompts_equal, assert_scores_equal, sample_docs, scores, task

from olmes_suite.errors import MissingData
from olmes_suite.tasks.load import load_task


@pytest.mark.data
def test_prompts_equal_the_reference(data_dir: Path, protocol_dir: Path) -> None:
    assert_prompts_equal("tulu3_ifeval", 8, data_dir, protocol_dir)


@pytest.mark.data
def test_scores_equal_the_reference(punkt_tab: None, data_dir: Path, protocol_dir: Path) -> None:
    assert_scores_equal("tulu3_ifeval", 73, data_dir, protocol_dir)


def test_sample_golds_of_ifeval(punkt_tab: None) -> None:
    for doc in sample_docs("tulu3_ifeval"):
        keys = task("tulu3_ifeval").keys
        assert set(scores("tulu3_ifeval", doc, keys.gold(doc)).values()) == {1.0}
        assert scores("tulu3_ifeval", doc, keys.corrupt(doc))["prompt_level_loose_acc"] == 0.0


def ifeval_doc(*instructions: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "key": 1,
        "prompt": "Say something.",
        "instruction_id_list": [name for name, _ in instructions],
        "kwargs": [arguments for _, arguments in instructions],
    }


def test_ifeval_loose_forgives_a_first_line_and_asterisks(punkt_tab: None) -> None:
    doc = ifeval_doc(("punctuation:no_comma", {}), ("detectable_format:json_format", {"keywords": None}))
    found = task("tulu3_ifeval").scorer.one(doc, 'Sure, here it is:\n{"a": 1}')
    assert found.weight == 2.0
    assert found.scores == {
        "prompt_level_strict_acc": 0.0,
        "inst_level_strict_acc": 0.0,
        "prompt_level_loose_acc": 1.0,
        "inst_level_loose_acc": 1.0,
    }


def test_ifeval_blank_and_failing_checks_are_not_followed(punkt_tab: None) -> None:
    doc = ifeval_doc(("punctuation:no_comma", {}), ("keywords:existence", {"keywords": ["(unclosed"]}))
    assert set(scores("tulu3_ifeval", doc, " \n").values()) == {0.0}
    assert scores("tulu3_ifeval", doc, "fine")["inst_level_strict_acc"] == 0.5


def test_ifeval_is_repeatable_where_the_checker_draws(punkt_tab: None) -> None:
    import random

    doc = ifeval_doc(("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}))
    random.seed(1)
    before = random.getstate()
    found = [scores("tulu3_ifeval", doc, "a sentence with many but not all letters") for _ in range(5)]
    assert all(each == found[0] for each in found)
    assert found[0]["prompt_level_strict_acc"] == found[0]["prompt_level_loose_acc"]
    assert random.getstate() == before


def test_ifeval_without_the_splitter_says_so_and_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk
    from lm_eval.tasks.ifeval import instructions_util

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.delenv("OLMES_DATA_DIR", raising=False)
    monkeypatch.delenv("NLTK_DATA", raising=False)
    instructions_util._get_sentence_tokenizer.cache_clear()
    nltk.data.clear_cache()
    fresh = load_task(LEAVES["tulu3_ifeval"], SAMPLE)
    checkers = fresh.scorer.function.__globals__["checkers"]
    checkers.cache_clear()
    sentences = {
        "key": 1,
        "prompt": "Say little.",
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"num_sentences": 3, "relation": "less than"}],
    }
    with pytest.raises(MissingData, match="NLTK_DATA"):
        fresh.scorer.one(sentences, "One. Two.")
    no_commas = {**sentences, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert fresh.scorer.one(no_commas, "One. Two.").scores["prompt_level_loose_acc"] == 1.0
