"""Scoring of given responses with thoughts: what is scored, what is left as it is, and how much is held in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import olmes_suite as olmes
from olmes_suite.errors import UsageError
from olmes_suite.evaluation.given_responses import GivenResponses, given_thoughts
from olmes_suite.evaluation.rescore import score_responses
from olmes_suite.tasks import catalog
from olmes_suite.tasks.documents import DataSource

Cli = Callable[..., tuple[int, str, str]]


def answers(*responses: Any, task: str = "gsm8k", **options: str) -> tuple[list[str], bool]:
    """What is scored of a document's responses, and whether a thought is unclosed."""
    rows = [{"doc_id": 0, "responses": list(responses)}]
    (line,) = GivenResponses(rows, catalog.find(task), given_thoughts(**options))
    return line.responses or [], line.unclosed


def test_by_default_think_is_read_as_the_reference_does() -> None:
    assert answers("<think>\n7\n</think>\n\nSo 8.", "6</think>9") == (["\n\nSo 8.", "9"], False)


@pytest.mark.parametrize(
    "text", ["So 8.", " <answer>8</answer>\n", "", "<think>\n7", "\r\n 8 \u2028", "<answer>\n<think>"]
)
def test_a_response_without_a_closing_mark_stays(text: str) -> None:
    scored, unclosed = answers(text)
    assert scored == [text]
    assert unclosed == ("<think>" in text)


def test_tasks_of_the_thinking_regime_lose_answer_marks_without_a_thought_too() -> None:
    assert answers(" <answer>8</answer>\n", task="olmo3_gsm8k") == (["8"], False)
    assert answers(" <answer>8</answer>\n", task="olmo3_cruxeval_input") == ([" <answer>8</answer>\n"], False)


@pytest.mark.data
def test_responses_of_the_thinking_regime_score_as_the_references(protocol_dir: Path, data_dir: Path) -> None:
    file = protocol_dir / "examples/olmo3_scores.jsonl"
    if not file.is_file():
        pytest.skip("no scores of the thinking regime")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    groups: list[dict[int, Any]] = []
    """Rows with one response per document."""
    for row in (row for row in rows if row["task"] == "olmo3_gsm8k"):
        free = next((group for group in groups if row["doc_id"] not in group), None)
        if free is None:
            groups.append(free := {})
        free[row["doc_id"]] = row
    compared = 0
    for group in groups:
        given = [{"doc_id": doc_id, "responses": [row["response"]]} for doc_id, row in group.items()]
        for instance in olmes.score("olmo3_gsm8k", given, data_dir=data_dir).instances:
            for metric, value in group[instance.doc_id]["expected"].items():
                assert instance.scored.scores[metric] == value
                compared += 1
    assert compared > 60


def test_policies_and_readers() -> None:
    assert answers("<think>\n7", unclosed="empty") == ([""], True)
    assert answers("<think>\n7</think>8", thinking="none") == (["<think>\n7</think>8"], False)
    assert answers("[THINK]7[/THINK]8", thinking="magistral") == (["8"], False)
    assert answers(" <answer>8</answer>\n", thinking="think") == (["8"], False)


def test_a_thought_in_a_channel_of_its_own() -> None:
    assert answers({"text": "8", "thinking": "7"}, {"text": "6</think>9"}) == (["8", "9"], False)
    assert answers({"text": None, "thinking": "7"}) == (["7"], True)
    assert answers({"text": None, "thinking": "7"}, unclosed="empty") == ([""], True)
    assert answers({"text": "", "thinking": "7"}) == ([""], False)


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (3, "list of strings or of"),
        ({"thinking": "a"}, 'needs "text"'),
        ({"text": 3}, 'needs "text"'),
        ({"text": "a", "thinking": ["b"]}, "both strings or null"),
        ({"text": None}, 'neither "text" nor "thinking"'),
        (None, "list of strings or of"),
    ],
)
def test_a_wrong_response_is_one_line(response: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        answers("fine", response)
    assert says in str(caught.value) and "line 1" in str(caught.value) and "\n" not in str(caught.value)


def test_the_command(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    source = DataSource(sample=True)
    entry = catalog.find("gsm8k")
    gold = "The answer is 18."
    rows = [
        {"doc_id": 0, "responses": [f"<think>\n1 or 2\n</think>\n\n{gold}"]},
        {"doc_id": 1, "responses": [f"<think>\n{gold}"]},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    status, out, err = cli("score", "--task", "gsm8k", "--responses", file, "--data", "sample", "--json",
                           "--instances", tmp_path / "i.jsonl", "--unclosed", "empty")  # fmt: skip
    assert status == 0, err
    lines = [json.loads(line) for line in (tmp_path / "i.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["samples"][0]["extracted"] for line in lines] == ["18", ""]
    assert lines[1]["flags"] == ["empty", "extraction_failed", "unclosed"]
    assert json.loads(out)["n"] == 2
    assert olmes.score("gsm8k", rows, data="sample", unclosed="empty").summary == score_responses(
        entry.name, rows, source, None, given_thoughts(unclosed="empty")
    )[0]  # fmt: skip
    for wrong, says in ((("--thinking", "thnik"), "unknown reader"), (("--unclosed", "none"), "use one of reference")):
        status, _, err = cli("score", "--task", "gsm8k", "--responses", file, "--data", "sample", *wrong)
        assert status == 2 and says in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("said", "reader"),
    [
        ("<|channel>thought\n1 or 2\n<channel|>The answer is 18.", "gemma"),
        ("[THINK]1 or 2[/THINK]The answer is 18.", "magistral"),
        ("<think>\n<|begin_of_thought|>, then <|end_of_thought|>?\n</think>\n\nThe answer is 18.", None),
        ("The mark <|end_of_thought|> ends a thought.", None),
    ],
)
def test_thoughts_that_were_scored_are_said(cli: Cli, tmp_path: Path, said: str, reader: str | None) -> None:
    """By default only `<think>` is read; another model's thoughts are part of what is scored."""
    file = tmp_path / "responses.jsonl"
    file.write_text(json.dumps({"doc_id": 0, "responses": [said, said]}), encoding="utf-8")
    command = ("score", "--task", "gsm8k", "--responses", file, "--data", "sample")
    status, _, err = cli(*command)
    note = f"note: 2 responses contain thoughts that were scored; --thinking {reader} leaves them out"
    assert (status, note in err) == (0, reader is not None)
    assert "note:" not in cli(*command, "--thinking", reader or "think")[2]


def test_long_responses_are_not_held_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for doc_id in range(200):
            out.write(json.dumps({"doc_id": doc_id, "responses": ["<think>" + "a b" * 33_000 + "</think>1"]}) + "\n")
    tracemalloc.start()
    lines = GivenResponses(file, catalog.find("gsm8k"), given_thoughts())
    assert sum(len(line.responses or ()) for line in lines) == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000  # the file has 20 MB


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = json.dumps({"doc_id": 3, "responses": ["a</think>8"]}) + "\n"
    writer = threading.Thread(target=lambda: pipe.write_text(text, encoding="utf-8"))
    writer.start()
    lines = list(GivenResponses(pipe, catalog.find("gsm8k"), given_thoughts()))
    writer.join()
    assert [(line.doc_id, line.responses) for line in lines] == [(3, ["8"])]


def test_the_reference_scores_the_same_answers(protocol_dir: Path) -> None:
    """The rows of the thinking regime, stripped by the reference's patterns and by us."""
    import re

    file = protocol_dir / "examples/olmo3_scores.jsonl"
    if not file.is_file():
        pytest.skip("no scores of the thinking regime")
    thoughts = given_thoughts("think").thoughts
    assert thoughts is not None
    count = 0
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for text in row.get("responses") or [row.get("response")]:
            if not text:
                continue
            answer = re.sub(r"(?ms).*</think>", "", text)
            answer = re.sub(r"(?ms)^\s*<answer>\s*", "", answer)
            answer = re.sub(r"(?ms)</answer>\s*$", "", answer)
            assert thoughts.read(text).answer == answer
            count += "</think>" in text
    assert count > 600


def test_a_part_of_a_group_says_what_lacks(tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "answers.jsonl"
    names = ("olmo3_omega_trans_circles", "olmo3_omega_trans_matrix_rank", "olmo3_omega_comp_n_gon")
    file.write_text("".join(json.dumps({"task": name, "doc_id": 0, "responses": ["?"]}) + "\n" for name in names))
    code, out, _ = cli("score", "--task", "olmo3_omega", "--responses", str(file), "--data", "sample")
    assert code == 0
    assert "3 of 3 answers contained nothing that the scorer could extract" in out
    assert "93 of 96 sub-tasks have no responses" in out
