"""Readers of thoughts: equal to the reference's regular expressions, data instead of code, linear in time."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest

from olmes_suite.errors import UsageError
from olmes_suite.thinking import Reader, Thoughts, built_in, names, reader_of
from olmes_suite.thinking.readers import choice_of

THINK = built_in("think")
PIECES = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "\n",
    "\n",
    " ",
    "\t",
    "\r",
    "\u2028",
    "\x85",
    "\x1c",
    "a",
    "<",
)


def reference(text: str) -> tuple[str | None, str]:
    """The three regular expressions of the reference, which take quadratic time."""
    found = re.findall(r"(?ms)^(?:\s*<think>\s*)?(.*)\s*</think>", text)
    answer = re.sub(r"(?ms).*</think>", "", text)
    answer = re.sub(r"(?ms)^\s*<answer>\s*", "", answer)
    answer = re.sub(r"(?ms)</answer>\s*$", "", answer)
    return (found[0] if found else None), answer


def test_think_equals_the_references_patterns_on_random_texts() -> None:
    draw = random.Random(7)
    for _ in range(30_000):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 14)))
        thinking, answer = reference(text)
        split = THINK.split(text)
        assert split.answer == answer, text
        if thinking is not None:
            assert split.thinking == thinking, text


def test_think_equals_the_references_examples(protocol_dir: Path) -> None:
    file = protocol_dir / "examples/olmo3_think.jsonl"
    if not file.is_file():
        pytest.skip("no examples of the reference's output processor")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 30
    for row in rows:
        split = THINK.split(row["raw"])
        assert split.answer == row["answer"]
        if row["reasoning"] is not None:
            assert split.thinking == row["reasoning"]


@pytest.mark.parametrize(
    ("name", "text", "thinking", "answer"),
    [
        ("think", "<think>\na\n</think>\n\n B \n", "a\n", "\n\n B \n"),
        ("think", "a</think>B", "a", "B"),
        ("gemma", "<|channel>thought\na\nb<channel|>E", "a\nb", "E"),
        (
            "harmony",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|> B\n",
            "a",
            " B\n",
        ),
        ("sky", "<|begin_of_thought|>\n\na\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nB \n<|end_of_solution|>",
         "a\n\n", "B \n"),
        ("s1", "<|im_start|>think\na\n<|im_start|>answer\nFinal Answer: B", "a\n", "\nFinal Answer: B"),
        ("magistral", "[THINK]a[/THINK]B", "a", "B"),
    ],
)  # fmt: skip
def test_shipped_readers(name: str, text: str, thinking: str, answer: str) -> None:
    assert built_in(name).split(text) == (thinking, answer, False)


@pytest.mark.parametrize(
    ("text", "opened", "thinking", "unclosed"),
    [
        ("The answer is B.", False, None, False),
        ("The answer is B.", True, "The answer is B.", True),
        ("<think>\nHmm", False, "Hmm", True),
        ("<think>\nHmm", True, "Hmm", True),
        ("So. <think>\nHmm", False, "\nHmm", True),
        ("<think>a</think>B\n<think>\nHmm", False, "a", True),
        ("<think>a</think>Write <think> first.", False, "a", False),
    ],
)
def test_texts_that_end_inside_a_thought(text: str, opened: bool, thinking: str | None, unclosed: bool) -> None:
    split = THINK.split(text, opened)
    assert (split.thinking, split.unclosed) == (thinking, unclosed)
    assert split.answer == text.partition("</think>")[2] or split.answer == text
    assert Thoughts(THINK, "reference").read(text, opened=opened).answer == split.answer
    assert Thoughts(THINK, "empty").read(text, opened=opened).answer == ("" if unclosed else split.answer)


def test_every_shipped_reader_finds_its_own_marks() -> None:
    assert names()[0] == "think"
    assert {*names()} == {"think", "gemma", "harmony", "sky", "s1", "magistral"}
    for name in names():
        reader = built_in(name)
        assert reader.name == name and reader.about
        for close in reader.close:
            assert reader.split(f"{reader.open}a{close}B") == ("a", "B", False)
        assert reader.split(f"{reader.open}a").unclosed


def test_a_users_reader(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("open: <r>\nclose: [</r>, <end>]\nanswer: {open: 'A:'}\ntemplate_opens: true\n", encoding="utf-8")
    reader = reader_of(str(file))
    assert reader.name == "mine"
    assert reader.split("x<end>\nA: B\n") == ("x", "B\n", False)
    assert reader.split("x") == ("x", "x", True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; it needs the keys open and close"),
        ("open: <t>\n", "the key 'close' is missing"),
        ("open: <t>\nclose: </t>\nclosed: x\n", "line 3: unknown key 'closed'"),
        ("open: 3\nclose: </t>\n", "line 1: open: expected text, not 3"),
        ("open: ''\nclose: </t>\n", "open: '' is empty"),
        ("open: <t>\nclose: '</t> '\n", "close: '</t> ' is empty or has white space"),
        ("open: <t>\nclose: <t>\n", "open and close are both '<t>'"),
        ("open: <t>\nclose: []\n", "close: needs at least one mark"),
        ("open: <t>\nclose: </t>\nanswer: B\n", "line 3: answer: expected a mapping"),
        ("- a\n", "expected a mapping"),
        ("open: [\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        reader_of(str(file))
    assert says in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_names_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--thinking thnik: unknown reader.*think"):
        choice_of("thnik")
    with pytest.raises(UsageError, match="cannot be read"):
        choice_of(str(tmp_path / "missing.yaml"))
    assert choice_of(None) == "auto" and choice_of("none") == "none"


@pytest.mark.parametrize(
    "text", [" \n" * 100_000, "<answer> \n\t" * 20_000, "</answer>\n\n x" * 20_000, "\n" * 200_000]
)
def test_blank_lines_take_linear_time(text: str) -> None:
    started = time.process_time()
    for reader in (THINK, Reader("<a>", ("</a>",))):
        reader.split(f"<think>{text}</think>{text}<answer>{text}</answer>{text}x")
        reader.split(text, True)
    assert time.process_time() - started < 5.0  # 0.3 s; the patterns take minutes
