"""Rewards by a judge: what it is asked, how replies are read, and what happens when it is slow, unclear or down."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT
from judge_server import Body, Reply, asked, chat, judge_server

from olmes_suite.errors import StageRefused, UsageError
from train_plugins.verifiers import Call, Malformed, VerifierFailed, Verifiers, judged
from train_plugins.verifiers.judge_keys import JudgeKeys, check_judge
from train_plugins.verifiers.judges import Judges

TWO = {"rubrics": [{"description": "names a sea", "weight": 3}, {"description": "is rude", "weight": -1}]}
ROW = {"messages": [{"role": "user", "content": "Name a sea."}], "row": 4}


def keys(url: str, folder: Path, **more: Any) -> JudgeKeys:
    return JudgeKeys("m", url, cache=str(folder / "cache"), **more)


# Questions and replies -------------------------------------------------------------------------------------------


def page_cases() -> list[tuple[str, str, float | None]]:
    """The lines of the page's table of replies: verifier, reply, value."""
    page = (ROOT / "docs/verifiers.md").read_text(encoding="utf-8")
    section = page.partition("### What a reply is worth")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(judge|rubric)` \| `+(.+?)`+ \| (\S+) \|$", section, re.MULTILINE)
    return [(name, reply.replace("⏎", "\n"), None if value == "none" else float(value)) for name, reply, value in lines]


def test_the_page_says_what_a_reply_is_worth() -> None:
    cases = page_cases()
    assert len(cases) > 15 and {name for name, *_ in cases} == {"judge", "rubric"}
    truths = {"judge": None, "rubric": TWO}
    assert [(name, reply, judged.value_of(name, reply, truths[name])) for name, reply, _ in cases] == cases


def test_what_the_judge_is_asked() -> None:
    text = judged.question("judge", " The {reference} sea.\n", "Kara", ROW)
    assert "<answer>\nThe {reference} sea.\n</answer>" in text and "<reference>\nKara\n</reference>" in text
    assert "<conversation>\nName a sea.\n</conversation>" in text and '{"reason": "one sentence", "score": 7}' in text
    assert "<reference>" not in judged.question("judge", "Kara", None, ROW)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert "user: Hi\n\nassistant: Hello" in judged.question("judge", "Kara", None, {"messages": turns})
    assert "1. names a sea\n2. is rude" in judged.question("rubric", "Kara", TWO, ROW)
    assert judged.question("judge", "Kara", "b", ROW, "{prompt}|{response}|{reference}") == "Name a sea.|Kara|b"


@pytest.mark.parametrize(
    ("name", "truth", "why"),
    [
        ("rubric", None, "expected criteria"),
        ("rubric", "{", "it is not JSON"),
        ("rubric", {"rubrics": []}, "expected criteria"),
        ("rubric", [{"weight": 1}], "criterion 1 has no description"),
        ("rubric", [{"description": "a", "weight": 0}], "a number other than 0, not 0"),
        ("rubric", ["a", 7], "criterion 2 is no mapping"),
        ("judge", {"a": 1}, "a reference answer must be text"),
    ],
)
def test_truths_that_cannot_be_read(name: str, truth: Any, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        judged.check_judged(name, truth)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"replies": 0}, "replies must be at least 1"),
        ({"requests_per_minute": 0}, "requests_per_minute must be above 0"),
        ({"base_url": "localhost:8000"}, "expected http://HOST:PORT/v1"),
        ({"prompt": "none.txt"}, "none.txt cannot be read"),
    ],
)
def test_settings_that_do_not_fit(more: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_judge(JudgeKeys(**{"model": "m", "base_url": "http://x/v1", **more}))


def test_a_prompts_file_needs_the_response(tmp_path: Path) -> None:
    for text, why in (("Rate {prompt}", r"it has no \{response\}"), ("{{response}}", "would never be filled")):
        (tmp_path / "prompt.txt").write_text(text)
        with pytest.raises(UsageError, match=why):
            check_judge(JudgeKeys("m", "http://x/v1", prompt=str(tmp_path / "prompt.txt")))


# The server ------------------------------------------------------------------------------------------------------


def said(body: Body, before: int) -> Reply:
    """Eight for an answer with a sea, four for others; nothing to read for one with `odd`, at first."""
    text = asked(body)
    answer = text.partition("<answer>")[2].partition("</answer>")[0]
    if "odd" in answer and "Attempt 3" not in text:
        return Reply(chat("I would say it is fine."))
    return Reply(chat(f'{{"score": {8 if "sea" in answer else 4}}}'))


def test_replies_are_cached_counted_and_asked_again(tmp_path: Path) -> None:
    texts = ["a sea", "a lake", "an odd sea", " ", "a sea"]
    calls = [Call("judge", text, None, ROW) for text in texts]
    with judge_server(said) as server:
        judges = Judges(keys(server.url, tmp_path))
        assert judges.verify(calls) == [0.8, 0.4, 0.8, 0.0, 0.8]
        spent = judges.take()
        assert (spent.requests, spent.cached, spent.unparsed) == (5, 1, 0)
        assert (spent.prompt_tokens, spent.completion_tokens) == (35, 5) and judges.take().requests == 0
        judges.close()
        again = Judges(keys(server.url, tmp_path))
        assert again.verify(calls) == [0.8, 0.4, 0.8, 0.0, 0.8] and len(server.seen) == 5
        assert (again.take().requests, again.take().cached) == (0, 0)
        again.close()


def test_a_reply_that_is_never_read_is_no_verdict(tmp_path: Path) -> None:
    with judge_server(said) as server, Verifiers(
        ["judge", "gsm8k"], 1, 10, judge=keys(server.url, tmp_path, replies=2)
    ) as made:  # fmt: skip
        calls = [Call("judge", "odd", None, ROW), Call("gsm8k", "8", "8", {}), Call("JUDGE", "a sea", "Kara", ROW)]
        assert made.verify(calls) == [None, 1.0, 0.8]
        assert made.judges is not None and made.judges.take().unparsed == 1
        made.check_truths(calls)
        with pytest.raises(VerifierFailed, match=r"verifier rubric, row 4 \(ground truth '\{'\): it is not JSON"):
            Verifiers(None, 1, 10, judge=keys(server.url, tmp_path)).check_truths([Call("rubric", "a", "{", ROW)])
        assert len(server.seen) == 3  # no truth was sent anywhere


def test_a_judge_that_is_down_is_one_line(tmp_path: Path, quick_retries: None) -> None:
    with judge_server(lambda body, before: Reply({"error": "no memory"}, status=500)) as server:
        judges = Judges(keys(server.url, tmp_path, tries=1))
        with pytest.raises(StageRefused, match=r"the judge m at http.*HTTP 500.*continue with --resume"):
            judges.verify([Call("judge", "a sea", None, ROW)])
        judges.close()
    with pytest.raises(UsageError, match=r"rlvr\.judge: m at .*no connection; start the server"):
        Judges(keys(server.url, tmp_path)).check()


def test_closing_does_not_wait_for_a_silent_judge(tmp_path: Path) -> None:
    asked_for, answer = threading.Event(), threading.Event()

    def silent(body: Body, before: int) -> Reply:
        asked_for.set()
        answer.wait(60)
        return Reply(chat('{"score": 8}'))

    with judge_server(silent) as server:
        made = Verifiers(["judge"], 1, 10, judge=keys(server.url, tmp_path)).__enter__()
        with ThreadPoolExecutor(1) as thread:
            verdicts = thread.submit(made.verify, [Call("judge", "a sea", None, ROW)])
            assert asked_for.wait(30)
            started = time.monotonic()
            made.close()
            took = time.monotonic() - started
            answer.set()
            with pytest.raises(RuntimeError, match="was closed while it was asked"):
                verdicts.result()
        assert took < 30


def test_the_servers_models_are_checked(tmp_path: Path) -> None:
    with judge_server(said, models=Reply({"data": [{"id": "other"}]})) as server:
        with pytest.raises(UsageError, match=r"has no model 'm'; it has other"):
            Judges(keys(server.url, tmp_path)).check()


def test_a_verifier_that_needs_a_judge_says_so() -> None:
    with Verifiers(["judge"], 1, 10) as made, pytest.raises(UsageError, match=r"needs a judge: set rlvr\.judge"):
        made.verify([Call("judge", "a", None, ROW)])


def test_requests_a_minute(tmp_path: Path) -> None:
    with judge_server(said) as server:
        judges = Judges(keys(server.url, tmp_path, requests_per_minute=240))
        started = time.monotonic()
        judges.verify([Call("judge", f"sea {number}", None, ROW) for number in range(5)])
        assert time.monotonic() - started >= 1  # four gaps of a quarter of a second, however long a request takes
        judges.close()


def test_a_judge_is_asked_concurrently(tmp_path: Path) -> None:
    """Eight requests wait for each other, so that answers cannot come one by one; `benchmarks/judges.py` times it."""
    meeting = threading.Barrier(8, timeout=30)

    def together(body: Body, before: int) -> Reply:
        meeting.wait()  # breaks, which is no answer, unless eight requests are under way
        return Reply(chat('{"score": 8}'))

    with judge_server(together) as server, Verifiers(
        ["judge", "gsm8k"], 1, 10, judge=keys(server.url, tmp_path, concurrency=8, tries=1)
    ) as made:  # fmt: skip
        calls = [Call("judge", f"sea {number}", None, ROW) for number in range(16)]
        assert made.verify([*calls, Call("gsm8k", "8", "8", {})]) == [*[0.8] * 16, 1.0]
        assert server.together == 8
