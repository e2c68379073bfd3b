"""Builders of RLVR prompts, and readers of the forms of public sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.constraints.registry import PROFILES, everything
from train_plugins.data.curation.reward_forms import normalised, spoken
from train_plugins.data.curation.reward_prompts import Build
from train_plugins.data.rlvr_rows import prompt_row, with_truth

GSM8K = {"question": "How many?", "answer": "A few and more.\n#### 1,200"}
MATH = {"problem": "What is $1+1$?", "solution": r"It is \boxed{\frac{4}{2}}."}


def test_gsm8k_and_math_rows_have_the_answer_that_their_verifier_reads() -> None:
    made = Build("gsm8k")(GSM8K)
    assert made == {
        "messages": [{"role": "user", "content": "How many?"}], "ground_truth": "1200", "dataset": "gsm8k",
    }  # fmt: skip
    assert Build("math")(MATH)["ground_truth"] == r"\frac{4}{2}"
    for builder, row in (("gsm8k", GSM8K), ("math", MATH)):
        with_truth(prompt_row(Build(builder)(row)), None)  # type: ignore[arg-type]


def test_exemplars_stand_before_the_question() -> None:
    text = Build("gsm8k", shots=8)(GSM8K)["messages"][0]["content"]
    assert text.count("Question: ") == 9 and text.endswith("\n\nQuestion: How many?")
    text = Build("math", shots=4)(MATH)["messages"][0]["content"]
    assert text.count("Question: ") == 5 and "Final Answer" not in text


def test_constraints_are_drawn_from_the_text_and_never_from_the_unseen_suite(punkt_tab: None) -> None:
    unseen = {name for profile in PROFILES for name in everything(profile)}
    build = Build("constraints", constraints=(1, 3))
    seen = set()
    for number in range(60):
        row = {
            "messages": [{"role": "user", "content": f"Write about {number}."}, {"role": "assistant", "content": "x"}]
        }
        made = build(row)
        assert made == build(row)
        truth = json.loads(made["ground_truth"])
        assert 1 <= len(truth["instruction_id_list"]) <= 3
        seen |= set(truth["instruction_id_list"])
        assert made["messages"][0]["content"].startswith(f"Write about {number}.\n\n")
        with_truth(prompt_row(made), None)
    assert len(seen) > 10 and not seen & unseen
    assert Build("constraints", seed=1)(row) != build(row)


@pytest.mark.parametrize(
    ("builder", "row", "message"),
    [
        ("gsm8k", {"question": "Q", "answer": "no number"}, "without ####"),
        ("gsm8k", {"answer": "#### 1"}, "no 'question'"),
        ("math", {"problem": "P", "solution": "none"}, "without an answer"),
        ("math", {"problem": "P", "solution": r"\boxed{}"}, "without an answer"),
        ("constraints", {"messages": [{"role": "user", "content": " "}]}, "no question"),
    ],
)
def test_rows_that_cannot_be_built_say_why(builder: Any, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Build(builder)(row)


@pytest.mark.parametrize(
    ("row", "turns", "truth", "name"),
    [
        ({"prompt": "user: Why?", "ground_truth": ["4"], "dataset": ["math"]}, ["Why?"], "4", "math"),
        ({"prompt": "user: Why?\nassistant: So.\nuser: And?", "ground_truth": "4", "dataset": "math"},
         ["Why?", "So.", "And?"], "4", "math"),
        ({"prompt": "user: What does this say?\nuser: hello", "ground_truth": "4", "dataset": "math"},
         ["What does this say?\nuser: hello"], "4", "math"),
        ({"prompt": "Plain text", "ground_truth": ["a", "b"], "dataset": "code"}, ["Plain text"], ["a", "b"], "code"),
        ({"source_prompt": [{"role": "user", "content": "S"}], "prompt": "user: T", "ground_truth": ["1"],
          "dataset": ["gsm8k"]}, ["S"], "1", "gsm8k"),
        ({"data_source": "gsm8k", "prompt": [{"role": "user", "content": "V"}], "ability": "math",
          "reward_model": {"style": "rule", "ground_truth": "9"}, "extra_info": {}}, ["V"], "9", "gsm8k"),
        ({"data_source": "gsm8k", "prompt": '[{"role": "user", "content": "J"}]',
          "reward_model": '{"ground_truth": "9"}'}, ["J"], "9", "gsm8k"),
    ],
)  # fmt: skip
def test_public_forms(row: dict[str, Any], turns: list[str], truth: Any, name: str) -> None:
    found = normalised(row)
    assert [turn["content"] for turn in found["messages"]] == turns
    assert (found["ground_truth"], found["dataset"]) == (truth, name)


def test_a_system_turn_in_text() -> None:
    assert [turn["role"] for turn in spoken("system: Be kind.\nuser: Hi")] == ["system", "user"]


@pytest.mark.parametrize(
    "text",
    ["System: x + y = 2 and x - y = 0. Solve for x.", "Assistant: the word is Latin. Why?", "Why? user: a"],
)
def test_a_question_that_begins_like_another_turn_is_the_users(text: str) -> None:
    assert spoken(text) == [{"role": "user", "content": text}]


@pytest.mark.parametrize("text", ["\ufeffuser: Hi", "  user: Hi", "user: Hi\r\n", "\nUSER:\tHi"])
def test_white_space_around_a_mark_is_no_part_of_the_question(text: str) -> None:
    assert spoken(text) == [{"role": "user", "content": "Hi"}]


def test_a_reward_model_that_is_nested_too_deeply_has_no_truth() -> None:
    row = {"prompt": "Q", "data_source": "gsm8k", "reward_model": "[" * 100_000}
    assert normalised(row)["ground_truth"] is None


@pytest.mark.data
def test_prompts_equal_those_of_tulu_3(data_dir: Path) -> None:
    import pyarrow.parquet as pq

    mirror, sample = data_dir, data_dir.parent / "train" / "tulu3_rlvr_sample.parquet"
    if not sample.is_file():
        pytest.skip("needs a sample of Tülu 3's RLVR data beside the mirror")
    rows = {"gsm8k": pq.read_table(mirror / "openai/gsm8k/main/train.parquet").to_pylist(), "MATH": []}
    for file in sorted((mirror / "EleutherAI/hendrycks_math").glob("*/train.parquet")):
        rows["MATH"] += pq.read_table(file).to_pylist()
    made = {name: {row.get("question", row.get("problem")): row for row in found} for name, found in rows.items()}
    builds = {"gsm8k": Build("gsm8k", 8), "MATH": Build("math", 4)}
    compared = 0
    for row in pq.read_table(sample).to_pylist():
        text = row["messages"][0]["content"]
        question = text.rpartition("Question: ")[2]
        if question in made[row["source"]]:  # some questions of the sample have other white space than the mirror's
            compared += 1
            assert builds[row["source"]](made[row["source"]][question])["messages"] == row["messages"]
    assert compared >= 90
