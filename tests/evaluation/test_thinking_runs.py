"""Runs of a model that thinks: what is recorded, judged by its answer, and read again in another way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import write_gsm8k
from thinking_model import make_thinking_model

import olmes_suite as olmes
from olmes_suite.errors import DataError
from olmes_suite.evaluation.generate import OpenDocument, Scoring, response_flags
from olmes_suite.evaluation.given_responses import Reading, given_thoughts
from olmes_suite.judges.base import Answer, Question
from olmes_suite.judges.per_response import per_response
from olmes_suite.records import Response
from olmes_suite.scoring.scorers import Item
from olmes_suite.thinking import Thoughts, built_in

Cli = Callable[..., tuple[int, str, str]]
THOUGHT = "<think>\n12 + 3 = 15\n</think>\n\nThe answer is 3."
OPEN = "12 + 3 = 15. The answer is 5, or"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_thinking_model(tmp_path_factory.mktemp("thinks") / "thinker", max_position_embeddings=4096)


@pytest.fixture
def run(cli: Cli, folder: Path, tmp_path: Path) -> Path:
    """A run over two documents, whose responses are replaced: a thought with an answer, and an unclosed thought."""
    data = write_gsm8k(tmp_path / "data", 2)
    status, _, err = cli("eval", "--backend", "hf", "--model", folder, "--task", "gsm8k", "--data-dir", data)
    assert status == 0, err
    assert "the answer is read after the thought" in err and "follow an empty thought" in err
    (made,) = [path for path in (tmp_path / "runs").iterdir() if (path / "results.json").is_file()]
    file = made / "responses/tulu3_gsm8k.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    said = [
        {"text": "\n\nThe answer is 3.", "raw": THOUGHT, "thinking": "12 + 3 = 15\n", "thinking_tokens": 9},
        {"text": OPEN, "thinking": OPEN, "unclosed": True, "raw": None},
    ]
    file.write_text("".join(json.dumps(line | more) + "\n" for line, more in zip(lines, said, strict=True)))
    return made


def scores(run: Path) -> tuple[list[float], str]:
    """The documents' scores, and the hash of the settings."""
    opened = olmes.load(run)
    record = json.loads((run / "results.json").read_text(encoding="utf-8"))["tasks"]["tulu3_gsm8k"]
    return [float(value) for value in opened.documents("gsm8k")["score"]], record["fingerprint"]["settings"]


@pytest.mark.long
def test_a_run_is_read_again(cli: Cli, run: Path) -> None:
    first = scores(run)[1]
    engine = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["engine"]
    assert engine["thinking"]["reader"] == "think" and "unclosed" not in engine

    def again(*options: str) -> tuple[list[float], str]:
        status, _, err = cli("score", run, *options)
        assert status == 0, err
        return scores(run)

    assert again() == ([1.0, 1.0], first)  # 3 and 5: what was recorded, as it was read
    values, settings = again("--unclosed", "empty")
    assert (values, settings != first) == ([1.0, 0.0], True)
    assert "unclosed" in olmes.load(run).documents("gsm8k")["flags"][1]
    engine = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["engine"]
    assert engine["unclosed"] == engine["thinking"]["unclosed"] == "empty"
    assert again()[1] == settings  # the policy stays
    assert again("--unclosed", "reference")[1] == first
    assert again("--thinking", "none")[0] == [1.0, 1.0]
    status, _, err = cli("score", run, "--thinking", "thnik")
    assert status == 2 and "unknown reader" in err


def test_a_damaged_manifest_is_one_line() -> None:
    with pytest.raises(DataError, match="does not describe its reader"):
        Reading(unclosed="empty").thoughts({"thinking": {"reader": "think"}})


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (Response(text="B", raw=THOUGHT, thinking="x"), "\n\nThe answer is 3."),
        (Response(text="B", thinking="x"), "B"),
        (Response(text="x", thinking="x", unclosed=True), ""),
        (Response(text="B and", raw="B and\n\nQ: more", thinking="x"), "B and"),
        (Response(text="<think>x"), ""),
        (Response(text="plain"), "plain"),
    ],
)
def test_what_was_said_is_read_again(response: Response, text: str) -> None:
    reading = given_thoughts("think", "empty")
    again = reading.read_again(response, "tulu3_gsm8k", ("\n\nQ:",))
    assert again.text == text
    assert again.unclosed == (not text)
    assert response_flags([again]) == ({"unclosed", "empty"} if not text else set())


def test_fingerprints_of_other_policies_differ(cli: Cli, tmp_path: Path) -> None:
    """The policy is a setting of the task, so that scores under two policies are not compared."""
    data = write_gsm8k(tmp_path / "data", 2)
    names = []
    for options in ((), ("--unclosed", "reference"), ("--unclosed", "empty"), ("--thinking", "think")):
        cli("eval", "--backend", "mock", "--task", "gsm8k", "--data-dir", data, *options)
    for path in sorted((tmp_path / "runs").glob("*/results.json")):
        names.append(json.loads(path.read_text(encoding="utf-8"))["tasks"]["tulu3_gsm8k"]["fingerprint"]["settings"])
    assert len(names) == len(set(names)) == 2


class _Judge:
    """Says yes, and keeps what it was asked."""

    name, fingerprint = "yes", "0"

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        for position, question in enumerate(questions):
            self.seen.append(question.text)
            yield position, Answer("yes")


def test_judges_and_scorers_get_the_answer() -> None:
    parts = Thoughts(built_in("think")).read(THOUGHT)
    response = Response(text=parts.answer, raw=THOUGHT, thinking=parts.thinking)
    submitted: list[Any] = []

    class Pool:
        def submit(self, scorer: Any, metrics: Any, doc: Any, responses: Any, **_: Any) -> None:
            submitted.extend(responses)

    class Task:
        scorer, config, name = None, None, "t"

        @staticmethod
        def aggregation() -> dict[str, Any]:
            return {}

    class Leaf:
        task, name = Task(), "t"

    opened: Any = OpenDocument(Leaf(), 0, {}, [], {(0, 0): response})  # type: ignore[arg-type]
    Scoring(Pool()).submit(opened)  # type: ignore[arg-type]
    assert submitted == ["\n\nThe answer is 3."]
    judge: Any = _Judge()
    items = [Item("t", 0, {}, tuple(submitted))]
    assert list(per_response(items, judge, lambda doc, text: Question(text=text)))
    assert judge.seen == ["\n\nThe answer is 3."]


@pytest.mark.parametrize("thought", ["", "3", "The answer"])
def test_a_channels_thought_stays_though_the_answer_contains_it(thought: str) -> None:
    recorded = Response(text="The answer is 3.", thinking=thought)
    again = given_thoughts(None, "empty").read_again(recorded, "tulu3_gsm8k", ())
    assert (again.text, again.thinking, again.unclosed) == ("The answer is 3.", thought, False)
