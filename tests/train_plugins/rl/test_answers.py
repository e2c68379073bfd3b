"""Verifiers read the answer of a response and not its thought."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rlvr_fixture import make_rlvr, prompt_rows
from thinking_model import OPENING, thinking_tokenizer
from train_fixture import need_trl

from olmes_suite.errors import UsageError
from train_plugins.rl.answers import Answers, verify
from train_plugins.rl.keys import RlvrKeys, VerifierKeys
from train_plugins.verifiers import Call

PLAIN = "{% for m in messages %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
SAID = "so 7\n</think>\n\nThe answer is 8.</s>"


class Shown:
    """Stands in for the verifiers: 1 for an answer of 8."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def verify(self, calls: Sequence[Call]) -> list[float | None]:
        self.seen += [call.response for call in calls]
        return [float("8" in call.response) for call in calls]


def read(said: str, template: str = OPENING, keys: RlvrKeys | None = None, **more: Any) -> Call | None:
    tokenizer = thinking_tokenizer(template)
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Answers(tokenizer, keys or RlvrKeys(), **more).of(Call("gsm8k", text, "8", {}), ids)


def test_the_answer_after_the_thought_is_verified() -> None:
    call = read(SAID)
    assert call is not None and call.response == "\n\nThe answer is 8."


def test_all_of_it_where_the_recipe_says_so() -> None:
    for keys in (RlvrKeys(verifier=VerifierKeys("all")), RlvrKeys(thinking="none")):
        call = read(SAID, keys=keys)
        assert call is not None and call.response == "so 7\n\n\nThe answer is 8."  # the marks are special tokens


def test_a_thought_without_an_end_is_not_verified() -> None:
    verifiers: Any = Shown()
    calls = [read("I think 8 or"), read(SAID), read("8</s>")]
    assert verify(verifiers, calls) == [0.0, 1.0, 0.0]
    assert verifiers.seen == ["\n\nThe answer is 8."]


def test_a_template_that_does_not_open_the_thought_or_closed_it() -> None:
    for template, more in ((PLAIN, {}), (OPENING, {"arguments": {"enable_thinking": False}})):
        call = read("The answer is 8.</s>", template, **more)
        assert call is not None and call.response == "The answer is 8."


def test_a_model_without_marks_is_read_as_before() -> None:
    from models_fixture import make_tiny_tokenizer

    call = Call("gsm8k", " <answer>8</answer>\n", "8", {})
    assert Answers(make_tiny_tokenizer(), RlvrKeys()).of(call, [5, 6]) is call


def test_a_recipe_names_them(tmp_path: Path) -> None:
    need_trl()
    rlvr = {"verifier": {"reads": "all"}, "thinking": "magistral"}
    keys = make_rlvr(tmp_path, "grpo", prompt_rows(4), rlvr=rlvr).own
    assert (keys.verifier.reads, keys.thinking) == ("all", "magistral")
    assert "thinking" not in make_rlvr(tmp_path, "grpo", prompt_rows(4)).as_data()["rlvr"]  # earlier stages resume
    with pytest.raises(UsageError, match=r"rlvr: verifier: reads: 'thought' is none of answer, all"):
        make_rlvr(tmp_path, "grpo", prompt_rows(4), rlvr={"verifier": {"reads": "thought"}})
    assert yaml.safe_load((tmp_path / "rlvr.yaml").read_text())["rlvr"]["verifier"] == {"reads": "thought"}


def test_an_unknown_reader_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    need_trl()
    from train_plugins.stages import registry

    wanted = make_rlvr(tmp_path, "grpo", prompt_rows(4), rlvr={"thinking": "thnik"})
    with pytest.raises(UsageError, match=r"rlvr\.thinking: thnik: unknown reader"):
        registry.find("rlvr").check(wanted, {"max_completion_length": 12, "temperature": 1.0, "num_generations": 4})
