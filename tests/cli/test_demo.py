"""The demo: its texts are right, its held-out questions are nowhere in the training sets, and it runs to its end."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, environment
from train_fixture import need_trl

sys.path.insert(0, str(ROOT / "examples/demo"))
import make
import pairs
import problems


def test_answers_are_right_and_held_out_questions_are_not_trained_on(tmp_path: Path) -> None:
    rng = random.Random(3)
    asked = make.write_held_out(tmp_path, rng, 200)
    for one in problems.sums(rng, 500, asked):
        assert one.key not in asked and one.value >= 0
        assert one.value == (one.a + one.b if one.adds else one.a - one.b)
        for text in (problems.short(one), problems.worked(one)):
            assert pairs.right(text, str(one.value)) and not pairs.right(text, str(one.value + 1))
        said = [part.split(" = ") for part in problems.worked(one).split(": ")[1].split(". ")[:2]]
        assert all(eval(left) == int(right) for left, right in said)
    rows = make.training_rows(rng, 300, asked)
    assert len(rows) == 300
    questions = {row["messages"][0]["content"] for row in rows}
    assert sum(question.startswith("Write") for question in questions) > 10


def demo(folder: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "examples/demo/run.py"), "--out", str(folder / "demo"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(folder / "demo/runs/leaderboard.html") in done.stdout
    found = json.loads((folder / "demo/runs/gains.json").read_text())
    assert (folder / "demo/runs/leaderboard.html").is_file()
    return {row["stage"]: row for row in found["gains"]}


@pytest.mark.slow
def test_a_few_steps_of_the_demo_run_to_the_end(tmp_path: Path) -> None:
    need_trl()
    assert list(demo(tmp_path, "--short")) == ["sft", "dpo", "rlvr", "all stages"]


def test_thoughts_are_fields_that_the_template_marks_and_the_format_reward_reads() -> None:
    from train_plugins.verifiers.form import think_format

    turns = [row["messages"][1] for row in make.training_rows(random.Random(1), 200, frozenset(), thinking=True)]
    tokenizer = make.make_tokenizer([turn.get("reasoning_content", "") + turn["content"] for turn in turns], True)
    shares = [think_format(text(tokenizer, turn), None, {}) for turn in turns]
    assert shares == ["reasoning_content" in turn for turn in turns]
    assert 0.2 < sum(shares) / len(shares) < 0.6
    for turn in turns[:50]:
        written = text(tokenizer, turn)
        assert not any(mark in turn["content"] for mark in problems.THINK)
        ids = tokenizer(written)["input_ids"]
        assert tokenizer.decode(ids) == written
        assert len(ids) < 64 and all((mark in written) == (tokenizer.vocab[mark] in ids) for mark in problems.THINK)


def text(tokenizer: Any, turn: dict[str, str]) -> str:
    """What the template writes for an answer, without the end of text."""
    whole = tokenizer.apply_chat_template([{"role": "user", "content": "?"}, turn], tokenize=False)
    return str(whole).rpartition("<|assistant|>\n")[2].removesuffix(tokenizer.eos_token)


@pytest.mark.slow
def test_the_demos_gains_are_significant(tmp_path: Path) -> None:
    need_trl()
    found = demo(tmp_path, "--seed", "0")
    for stage in ("sft", "rlvr"):
        assert found[stage]["n"] == 500
        assert found[stage]["delta"] > 0 and found[stage]["p_holm"] <= 0.05, stage


@pytest.mark.slow
def test_the_demo_that_thinks_gains_significantly_and_records_its_thoughts(tmp_path: Path) -> None:
    need_trl()
    found = demo(tmp_path, "--thinking", "--seed", "0")
    for stage in ("sft", "rlvr"):
        assert found[stage]["n"] == 500
        assert found[stage]["ci95"][0] > 0 and found[stage]["p_holm"] <= 0.05, stage
    [file] = tmp_path.glob("demo/runs/rlvr-*/responses/demo_sums.jsonl")
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert sum(bool(one.get("thinking")) for one in answers) > 0.9 * len(answers)
