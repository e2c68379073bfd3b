"""Judges against a real server that fails in every way: no judgement is lost, none is invented."""

from __future__ import annotations

import json
import math
import multiprocessing
import threading
from importlib.metadata import EntryPoint

import pytest
import requests
from judge_server import BAD_REPLIES, TIMEOUT, Reply, asked, chat, judge_server

from olmes_suite.endpoints.bodies import Malformed
from olmes_suite.endpoints.client import Endpoint, retry_after
from olmes_suite.endpoints.concurrency import Limit
from olmes_suite.endpoints.usage import Usage, cost
from olmes_suite.errors import MissingData, RequestFailed
from olmes_suite.judges import factory
from olmes_suite.judges.base import Answer, Question
from olmes_suite.judges.bodies import answer_of, body_of
from olmes_suite.judges.cache import AnswerCache
from olmes_suite.judges.server import ServerJudge
from olmes_suite.records import sha256
from olmes_suite.scoring.tools import ToolOptions


def questions(count, **kind):
    return [Question(messages=(("user", f"question {n}"),), **kind) for n in range(count)]


@pytest.fixture
def judge(tmp_path):
    def make(served, **options):
        options = {"delay": 0.01, "timeout": 2.0, "cache": tmp_path / "answers", **options}
        return ServerJudge("referee", served.url, **options)

    return make


def echo(body, before):
    return Reply(chat(f"about {asked(body)}"))


@pytest.mark.long
@pytest.mark.parametrize("bad", BAD_REPLIES.values(), ids=BAD_REPLIES.keys())
def test_what_is_no_answer_is_asked_again(bad, judge):
    with judge_server(lambda body, before: bad if before < 2 else echo(body, before)) as served:
        made = judge(served, timeout=TIMEOUT if bad.hang else 60.0)
        found = dict(made.ask(questions(3)))
    assert {position: answer.text for position, answer in found.items()} == {n: f"about question {n}" for n in range(3)}
    assert served.counts() == {f"question {n}": 3 for n in range(3)}
    assert made.usage.asked == 3 and made.usage.retries == 6


LOGPROBS = {
    "none": chat("m"),
    "null": {"choices": [{"message": {"content": "m"}, "logprobs": None}]},
    "no tokens": {"choices": [{"message": {"content": "m"}, "logprobs": {"content": []}}]},
    "no alternatives": {
        "choices": [{"message": {"content": "m"}, "logprobs": {"content": [{"token": "m", "top_logprobs": []}]}}]
    },
    "text": chat("m", {"m": "likely"}),
    "not finite": chat("m", {"m": math.nan}),
    "probabilities": chat("m", {"m": 0.9, "M": 0.1}),
    "more than certain": chat("m", {"m": -0.1, "M": -0.1}),
}


@pytest.mark.parametrize("bad", LOGPROBS.values(), ids=LOGPROBS.keys())
def test_wrong_log_probabilities_are_no_answer(bad, judge):
    good = chat("m", {"M": -2.0, "m": -0.2, "The": -9.0})
    with judge_server(lambda body, before: Reply(bad if before == 0 else good)) as served:
        ((_, answer),) = judge(served).ask(questions(1, top_logprobs=5, max_tokens=1))
        assert answer.first_token == (("m", -0.2), ("M", -2.0), ("The", -9.0))
        with pytest.raises(RequestFailed):
            list(judge(served, tries=1).ask([Question(messages=(("user", "another"),), top_logprobs=5)]))


def test_a_server_that_never_answers_is_an_error(judge):
    with judge_server(lambda body, before: Reply(None, status=500)) as served:
        made = judge(served, concurrency=1, delay=0.001)
        with pytest.raises(RequestFailed, match="HTTP 500, 7 times"):
            list(made.ask(questions(4)))
        assert served.counts() == {"question 0": 7}  # the rest is not sent to a server that is down


def test_no_server_is_an_error(judge):
    with judge_server(echo) as served:
        pass
    with pytest.raises(RequestFailed, match="no connection"):
        list(judge(served, delay=0.001).ask(questions(1)))


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_a_refusal_is_not_repeated(status, judge):
    with judge_server(lambda body, before: Reply({"error": "no such model"}, status=status)) as served:
        with pytest.raises(RequestFailed, match=f"HTTP {status}"):
            list(judge(served).ask(questions(1)))
        assert len(served.seen) == 1


def test_what_was_answered_before_a_failure_is_kept(judge):
    down = threading.Event()

    def reply(body, before):
        return Reply(None, status=400) if asked(body) == "question 5" and not down.is_set() else echo(body, before)

    with judge_server(reply) as served:
        with pytest.raises(RequestFailed):
            list(judge(served, concurrency=1).ask(questions(8)))
        down.set()
        again = judge(served, concurrency=1)
        found = dict(again.ask(questions(8)))
        assert [found[n].text for n in range(8)] == [f"about question {n}" for n in range(8)]
        assert [found[n].cached for n in range(8)] == [True] * 5 + [False] * 3
        assert served.counts() == {f"question {n}": 2 if n == 5 else 1 for n in range(8)}


def test_equal_questions_are_asked_once_and_never_again(judge):
    with judge_server(echo) as served:
        made = judge(served)
        assert len(dict(made.ask([*questions(3), *questions(3)]))) == 6
        assert (made.usage.asked, made.usage.cached, made.usage.prompt_tokens) == (3, 3, 21)
        second = judge(served)
        assert len(dict(second.ask(questions(3)))) == 3
        assert (second.usage.asked, second.usage.cached, second.usage.prompt_tokens) == (0, 3, 0)
        assert len(served.seen) == 3


def test_another_request_is_another_question(judge):
    with judge_server(echo) as served:
        for kind in ({}, {"max_tokens": 1}, {"temperature": 1.0}, {"top_logprobs": 0, "max_tokens": 2}):
            list(judge(served).ask(questions(1, **kind)))
        list(judge(served).ask([Question(messages=(("system", "question 0"), ("user", "question 0")))]))
        other = ServerJudge("colleague", served.url, cache=judge(served).cache.path.parent.parent)
        list(other.ask(questions(1)))
        assert len(served.seen) == 6


def test_many_questions_are_under_way_together(judge):
    meeting = threading.Barrier(8, timeout=60)

    def together(body, before):
        meeting.wait()  # breaks, which is no answer, unless eight requests are under way
        return Reply(chat("yes"))

    with judge_server(together) as served:
        assert len(dict(judge(served, concurrency=8, timeout=90.0, tries=1).ask(questions(32)))) == 32
        assert served.together == 8


def test_the_servers_time_is_waited_for_by_all(judge):
    def reply(body, before):
        first = asked(body) == "question 0" and before == 0
        return Reply(None, status=429, headers={"Retry-After": "0.3"}) if first else echo(body, before)

    with judge_server(reply) as served:
        assert len(dict(judge(served, concurrency=1).ask(questions(3)))) == 3
        assert served.times[1] - served.times[0] >= 0.3


def test_a_server_without_quota_is_not_waited_for(judge):
    reply = Reply(None, status=429, headers={"Retry-After": "86400"})
    with judge_server(lambda body, before: reply) as served, pytest.raises(RequestFailed, match="86400"):
        list(judge(served).ask(questions(1)))


def test_retry_after_in_seconds_and_as_a_date():
    assert retry_after("2.5") == 2.5
    assert retry_after("-3") == 0.0
    assert retry_after("Mon, 01 Jan 2024 00:00:10 GMT", now=1704067200.0) == 10.0
    assert retry_after("soon") is None and retry_after(None) is None


def test_only_the_question_is_sent(judge, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with judge_server(lambda body, before: Reply(chat("m", {"m": -0.1}))) as served:
        list(judge(served).ask(questions(1, top_logprobs=5, max_tokens=1, temperature=1.0)))
    ((path, body),) = served.seen
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "referee", "messages": [{"role": "user", "content": "question 0"}], "max_tokens": 1,
        "temperature": 1.0, "logprobs": True, "top_logprobs": 5,
    }  # fmt: skip


def test_a_raw_prompt_goes_to_the_other_endpoint(judge):
    body = {"choices": [{"text": " yes", "logprobs": {"top_logprobs": [{" yes": -0.3, " no": -1.6}]}}]}
    with judge_server(lambda *_: Reply(body)) as served:
        ((_, answer),) = judge(served).ask([Question(text="Is it?", max_tokens=4, top_logprobs=2)])
    assert answer == Answer(" yes", ((" yes", -0.3), (" no", -1.6)))
    assert served.seen[0] == (
        "/v1/completions",
        {"model": "referee", "prompt": "Is it?", "max_tokens": 4, "temperature": 0.0, "logprobs": 2},
    )


def test_half_a_surrogate_pair_can_be_sent():
    assert json.dumps(body_of(Question(text="a\ud83d"), "m")) == json.dumps(body_of(Question(text="a?"), "m"))


def test_an_answer_may_be_empty():
    raw = json.dumps(chat("")).encode()
    assert answer_of(raw, questions(1)[0]).text == ""
    with pytest.raises(Malformed):
        answer_of(b"[" * 100_000, questions(1)[0])


def _write(folder, start):
    cache = AnswerCache(folder, "judge")
    for n in range(start, start + 200):
        cache.put(cache.key(questions(n + 1)[n]), Answer(f"answer {n} " + "x" * 2000))


@pytest.mark.long
def test_the_cache_takes_several_processes(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(tmp_path, start)) for start in (0, 200, 400)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    cache = AnswerCache(tmp_path, "judge")
    texts = [cache.get(cache.key(question)).text for question in questions(600)]
    assert [text.split(" x")[0] for text in texts] == [f"answer {n}" for n in range(600)]
    other = AnswerCache(tmp_path, "other")
    assert other.get(other.key(questions(1)[0])) is None


def test_prices_count_for_their_own_host_only():
    used = Usage(asked=1, prompt_tokens=1_000_000, completion_tokens=100_000)
    assert cost("gpt-4-1106-preview", "https://api.openai.com/v1", used) == pytest.approx(13.0)
    assert cost("gpt-4-1106-preview", "http://localhost:8000/v1", used) is None
    assert cost("unknown", "https://api.openai.com/v1", used) is None


def test_the_options_decide_which_judge(tmp_path):
    served = factory.judge(ToolOptions(judge="m", judge_base_url="http://localhost:1/v1"))
    assert isinstance(served, ServerJudge) and served.name == "m"
    with pytest.raises(MissingData, match="--judge MODEL"):
        factory.judge(ToolOptions())
    with pytest.raises(MissingData, match="--classifier MODEL"):
        factory.classifier(ToolOptions(judge="m"))
    with pytest.raises(MissingData, match=r"no config\.json"):
        factory.judge(ToolOptions(judge=str(tmp_path)))


def build_judge(rest, options):
    return "made", rest, options.seed


def test_an_installed_judge_is_named_with_a_colon(monkeypatch):
    made = [
        EntryPoint("mine", f"{__name__}:build_judge", "olmes.judges"),
        EntryPoint("gone", "no_such_module:build", "olmes.judges"),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: made)
    assert factory.judge(ToolOptions(judge="mine:strict", seed=3)) == ("made", "strict", 3)
    with pytest.raises(MissingData, match="other:strict"):
        factory.judge(ToolOptions(judge="other:strict"))
    with pytest.raises(MissingData, match=r"--judge: judge 'gone' \(no_such_module:build\) cannot be imported: Mod"):
        factory.judge(ToolOptions(judge="gone:strict"))


def test_answers_of_earlier_versions_are_still_read(tmp_path):
    first, second, third = questions(3)
    cache = AnswerCache(tmp_path, "judge")
    lines = [
        json.dumps({"key": cache.key(first), "text": "old \ud83d", "first_token": [["A", -0.5]]}),
        json.dumps({"key": cache.key(second), "text": "torn"})[:-9],
    ]
    file = cache.path / f"{sha256('judge')[:24]}.jsonl"
    file.write_text("\n".join(lines))
    again = AnswerCache(tmp_path, "judge")
    assert again.get(again.key(first)) == Answer("old \ud83d", (("A", -0.5),), cached=True)
    assert again.get(again.key(second)) is None
    again.put(again.key(third), Answer("new \ud83d", (("B", -0.25),)))
    again.close()
    last = AnswerCache(tmp_path, "judge")
    assert last.get(last.key(third)) == Answer("new \ud83d", (("B", -0.25),), cached=True)
    assert file.read_text() == "\n".join(lines)  # nothing is written there any more


def test_a_cache_that_cannot_be_used_is_an_empty_one(tmp_path):
    (tmp_path / "judgements").write_text("a file")
    cache = AnswerCache(tmp_path, "judge")
    key = cache.key(questions(1)[0])
    assert cache.get(key) is None
    cache.put(key, Answer("said"))
    assert cache.get(key) == Answer("said", cached=True)
    assert AnswerCache(tmp_path, "judge").get(key) is None
    cache.close()


def test_judgements_are_listed_and_pruned_like_responses(tmp_path, cli):
    cache = AnswerCache(tmp_path, "judge", "referee")
    cache.put(cache.key(questions(1)[0]), Answer("said"))
    cache.close()
    (listed,) = json.loads(cli("cache", "show", tmp_path / "judgements", "--json")[1])
    assert (listed["name"], listed["backend"], listed["responses"]) == ("referee", "judge", 1)
    assert cli("cache", "prune", tmp_path / "judgements", "--model", "referee")[:2] == (0, "1 responses deleted\n")
    assert AnswerCache(tmp_path, "judge").get(cache.key(questions(1)[0])) is None


class _Adapter(requests.adapters.HTTPAdapter):
    """Answers every request and keeps what it was sent with."""

    def __init__(self):
        super().__init__()
        self.settings = []

    def send(self, request, **settings):
        self.settings.append((settings["proxies"].get("http"), settings["verify"]))
        answer = requests.Response()
        answer.status_code, answer.url, answer._content = 200, request.url, b"{}"
        return answer


@pytest.mark.parametrize(("host", "proxy"), [("judge.test", "http://proxy:3128"), ("own.test", None)])
def test_proxies_and_certificates_of_the_environment_hold_for_a_session(host, proxy, monkeypatch):
    for name, value in (
        ("http_proxy", "http://proxy:3128"),
        ("no_proxy", "own.test"),
        ("REQUESTS_CA_BUNDLE", "/a.pem"),
    ):
        monkeypatch.setenv(name, value)
    adapter = _Adapter()
    endpoint = Endpoint("m", f"http://{host}/v1", Usage(), Limit(1, 1), tries=1)
    with requests.Session() as session:
        session.mount("http://", adapter)
        for _ in range(2):
            endpoint.post(session, "/completions", {}, lambda raw: raw, timeout=1, stop=threading.Event())
    assert adapter.settings == [(proxy, "/a.pem")] * 2
