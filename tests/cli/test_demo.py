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
        for text in (problems.short(one), problems.worked(one), problems.thought(one)):
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


@pytest.mark.long
def test_a_few_steps_of_the_demo_run_to_the_end(tmp_path: Path) -> None:
    need_trl()
    assert list(demo(tmp_path, "--short")) == ["sft", "dpo", "rlvr", "all stages"]


def test_the_marks_of_a_thought_are_tokens_and_its_form_is_rewarded(tmp_path: Path) -> None:
    from train_plugins.verifiers.form import think_format

    rows = make.training_rows(random.Random(1), 200, frozenset(), thinking=True)
    texts = [row["messages"][1]["content"] for row in rows]
    tokenizer = make.make_tokenizer(texts, thinking=True)
    forms = [think_format(text, None, {}) for text in texts]
    assert 0.15 < sum(forms) / len(forms) < 0.6
    for text in texts[:50]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert len(ids) < 64 and all((mark in text) == (tokenizer.vocab[mark] in ids) for mark in problems.THINK)


@pytest.mark.slow
def test_the_demos_gains_are_significant(tmp_path: Path) -> None:
    need_trl()
    found = demo(tmp_path, "--seed", "0")
    for stage in ("sft", "rlvr"):
        assert found[stage]["n"] == 500
        assert found[stage]["delta"] > 0 and found[stage]["p_holm"] <= 0.05, stage
