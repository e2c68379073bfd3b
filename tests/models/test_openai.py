"""The openai backend against a real server that fails in every way: nothing is lost, nothing is invented."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from judge_server import BAD_REPLIES, TIMEOUT, Reply, chat, judge_server
from models_fixture import answers, generation, one_line
from pupil import MODELS, ask, backend, completion, good, said

from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.openai.backend import OpenAIBackend
from olmes_suite.models.openai.bodies import with_limit


def null(body, **more):
    """The answer with null in place of its text."""
    body["choices"][0]["message"] |= {"content": None, **more}
    return body


class TestAddresses:
    """Addresses as users write them: the line names the right one."""

    @pytest.mark.parametrize("status", [200, 401])
    def test_without_v1(self, monkeypatch, status):
        def get(url, **options):
            found = url == "http://host:1/v1/models"
            return SimpleNamespace(status_code=status if found else 404, content=b'{"data": [{"id": "m"}]}')

        monkeypatch.setattr("requests.get", get)
        one_line(
            lambda: OpenAIBackend("m", "http://host:1/"), "its API is under http://host:1/v1; give that", ModelError
        )

    def test_a_server_without_a_list_is_used(self, monkeypatch):
        monkeypatch.setattr("requests.get", lambda url, **options: SimpleNamespace(status_code=404, content=b""))
        assert "was not checked" in OpenAIBackend("m", "http://host:1").notes()[0]

    @pytest.mark.parametrize("path", ["/chat/completions", "/completions/", "/models"])
    def test_with_the_path_of_a_request(self, path):
        url = f"http://host:1/v1{path}"
        one_line(lambda: OpenAIBackend("m", url), "give the address without .*: http://host:1/v1$", UsageError)

    @pytest.mark.parametrize(("status", "words"), [(404, "which usually ends in /v1"), (401, "set .OPENAI_API_KEY")])
    def test_a_refusal_says_what_to_do(self, status, words):
        with judge_server(lambda *_: Reply({"detail": "no"}, status=status), models=MODELS) as served:
            one_line(lambda: answers(backend(served), ask()), f"HTTP {status}: no; .*{words}", RequestFailed)


class TestWire:
    """What is sent, and what is made of the answer."""

    def test_nothing_but_the_request_is_sent(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "secret\n")
        (request,) = ask(stop=("\n\n", "a", "b", "c", "d", "e"), prefix="Answer:", top_p=0.9)
        with judge_server(good, models=MODELS) as served:
            (found,) = answers(backend(served), [request])
        (path, listed), (chat_path, body) = served.seen
        assert (path, listed) == ("/v1/models", {"prompt": "GET"})
        assert chat_path == "/v1/chat/completions"
        assert body == {
            "model": "pupil",
            "messages": [{"role": "user", "content": "question 0"}, {"role": "assistant", "content": "Answer:"}],
            "add_generation_prompt": False,
            "continue_final_message": True,
            "max_tokens": 24,
            "temperature": 0.0,
            "stop": ["\n\n", "a", "b", "c"],
        }
        assert (found.prompt_tokens, found.completion_tokens) == (11, 5)

    def test_plain_text_goes_to_completions_with_its_prefix(self):
        with judge_server(good, models=MODELS) as served:
            answers(backend(served, prefill="drop"), [generation(0, "Q: x\nA:", prefix=" so")])
        assert served.seen[-1] == (
            "/v1/completions",
            {"model": "pupil", "prompt": "Q: x\nA: so", "max_tokens": 24, "temperature": 0.0},
        )

    def test_a_dropped_prefix_is_another_fingerprint_and_is_said(self):
        with judge_server(good, models=MODELS) as served:
            sends, drops = backend(served), backend(served, prefill="drop")
            answers(drops, ask(prefix="Answer:"))
        assert served.seen[-1][1]["messages"] == [{"role": "user", "content": "question 0"}]
        assert sends.fingerprint != drops.fingerprint
        assert sends.notes() == [] and "dropped" in drops.notes()[0]

    def test_name_and_address_are_the_fingerprint(self):
        with judge_server(good, models=MODELS) as one, judge_server(good, models=MODELS) as two:
            assert backend(one).fingerprint == OpenAIBackend("pupil", one.url + "/", concurrency=3).fingerprint
            assert len({backend(one).fingerprint, backend(two).fingerprint}) == 2
            assert OpenAIBackend("other", one.url).fingerprint != backend(one).fingerprint

    def test_all_stop_strings_are_applied_here(self):
        texts = ["one two three", "one two three", "four"]
        stops = ("v", "w", "x", "y", " three", " two")
        with judge_server(lambda b, _: Reply(completion(b, [texts.pop(0)], finish="length")), models=MODELS) as served:
            cut, whole, none = answers(backend(served, concurrency=1), ask(1, stop=stops) + ask(1) + ask(1, stop=stops))
        assert (cut.text, cut.raw, cut.finish_reason) == ("one", "one two three", "stop")
        assert (whole.text, whole.raw, whole.finish_reason) == ("one two three", None, "length")
        assert (none.text, none.finish_reason) == ("four", "length")

    def test_an_answer_may_be_empty(self):
        with judge_server(lambda b, _: Reply(completion(b, [""])), models=MODELS) as served:
            (found,) = answers(backend(served), ask())
        assert (found.text, found.finish_reason) == ("", "stop")

    @pytest.mark.parametrize("finish", ["stop", "length"])
    def test_null_is_an_empty_answer_where_the_model_ended_it(self, finish):
        """SGLang's answer to a model whose first token is end-of-text."""
        with judge_server(lambda b, _: Reply(null(completion(b, finish=finish))), models=MODELS) as served:
            (found,) = answers(backend(served), ask())
        assert (found.text, found.finish_reason, len(served.seen)) == ("", finish, 2)

    def test_null_beside_a_refusal_is_none(self):
        with judge_server(lambda b, _: Reply(null(completion(b), refusal="no")), models=MODELS) as served:
            with pytest.raises(RequestFailed, match="no text"):
                answers(backend(served, tries=2), ask())

    @pytest.mark.parametrize(("finish", "more"), [("tool_calls", {}), ("stop", {"tool_calls": [{"id": "1"}]})])
    def test_a_tool_call_is_an_error(self, finish, more):
        """The server took the text out of the answer."""

        def reply(body, before):
            found = completion(body, [""], finish=finish)
            found["choices"][0]["message"] |= more
            return Reply(found)

        with judge_server(reply, models=MODELS) as served:
            with pytest.raises(RequestFailed, match="tool parser"):
                answers(backend(served), ask())
        assert len(served.seen) == 2

    def test_cost_is_counted_at_the_published_price(self, monkeypatch):
        with judge_server(good, models=MODELS) as served:
            made = backend(served)
            answers(made, ask(3))
        used = made.settings()["usage"]
        assert (used["asked"], used["prompt_tokens"], used["completion_tokens"]) == (3, 33, 15)
        assert used["cost_usd"] is None
        made.endpoint.base_url, made.model = "https://api.openai.com/v1", "gpt-4.1"
        assert made.settings()["usage"]["cost_usd"] == pytest.approx((33 * 2 + 15 * 8) / 1e6)


class TestSamples:
    """Several answers to one request."""

    def test_n_asks_once(self):
        with judge_server(good, models=MODELS) as served:
            found = answers(backend(served), ask(1, temperature=0.8), [[5, 6, 7]])
        assert len(served.seen) == 2
        assert served.seen[1][1]["n"] == 3 and served.seen[1][1]["seed"] == 5
        assert len({r.text for r in found}) == 3
        assert [r.prompt_tokens for r in found] == [11, 0, 0] and sum(r.completion_tokens for r in found) == 15

    def test_samples_on_disk_are_not_asked_again(self):
        with judge_server(good, models=MODELS) as served:
            found = sorted(backend(served).run(ask(1, temperature=0.8), [[None, 6, 7, None]]))
        assert [sample for _, sample, _ in found] == [1, 2]
        assert served.seen[1][1]["n"] == 2

    @pytest.mark.parametrize("refuses", [True, False])
    def test_a_server_without_n_is_asked_one_by_one(self, refuses):
        def reply(body, before):
            if refuses and "n" in body:
                return Reply({"error": {"message": "n must be 1"}}, status=422)
            return Reply(completion({**body, "n": 1}))

        with judge_server(reply, models=MODELS) as served:
            made = backend(served, concurrency=1)
            found = answers(made, ask(3, temperature=0.8), [[5, 6, 7]] * 3)
        seeds = [body["seed"] for _, body in served.seen[1:]]
        assert seeds == [5, *([5] if refuses else []), 6, 7, 5, 6, 7, 5, 6, 7]
        assert [r.text.split()[1] for r in found] == ["5+0", "6+0", "7+0"] * 3
        assert made.settings()["several_samples_at_once"] is False


def test_a_server_that_wants_the_new_name_of_the_token_limit():
    """It is asked so from then on; plain text keeps the old name."""

    def reply(body, before):
        if "max_tokens" in body:
            line = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
            return Reply({"error": {"message": line}}, status=400)
        return good({**body, "max_tokens": body["max_completion_tokens"]}, before)

    with judge_server(reply, models=MODELS) as served:
        made = backend(served, concurrency=1)
        asked = ask(3, max_tokens=9)
        found = answers(made, asked)
    assert all(response.text for response in found)
    bodies = [body for _, body in served.seen[1:]]
    assert [body.get("max_completion_tokens") for body in bodies] == [None, 9, 9, 9]
    assert made.settings()["token_limit"] == "max_completion_tokens"
    assert with_limit({"max_tokens": 3}, generation(0, "plain"), "max_completion_tokens") == {"max_tokens": 3}


BAD = {
    **BAD_REPLIES,
    "too many choices": Reply({"choices": chat("a")["choices"] * 2}),
    "aborted": Reply({"choices": [{"index": 0, "message": {"content": "half"}, "finish_reason": "abort"}]}),
}


class TestFailures:
    """A failed request is an error, never an empty answer."""

    @pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
    def test_what_is_no_answer_is_asked_again(self, bad):
        reply = lambda body, before: bad if before < 2 else good(body, before)  # noqa: E731
        with judge_server(reply, models=MODELS) as served:
            found = answers(backend(served, timeout=TIMEOUT if bad.hang else 60.0), ask(3))
        assert [r.text for r in found] == [said({**b, "temperature": 0}) for b in [q_body(n) for n in range(3)]]
        assert {n for q, n in served.counts().items() if q != "GET"} == {3}

    def test_it_fails_after_seven_tries_and_gives_what_came(self):
        def reply(body, before):
            return Reply(None, status=500) if body["messages"][-1]["content"] == "question 3" else good(body, before)

        got = []
        with judge_server(reply, models=MODELS) as served:
            with pytest.raises(RequestFailed, match="HTTP 500, 7 times"):
                got.extend(backend(served, concurrency=4, delay=0.001).run(ask(4), [[0]] * 4))
        assert sorted(position for position, _, _ in got) == [0, 1, 2]
        assert served.counts()["question 3"] == 7

    @pytest.mark.parametrize("status", [301, 400, 401, 404])
    def test_a_refusal_is_one_line_and_not_repeated(self, status):
        body = {"error": {"message": "you may\nnot"}}
        with judge_server(lambda *_: Reply(body, status=status), models=MODELS) as served:
            with pytest.raises(RequestFailed, match=f"HTTP {status}: you may not") as caught:
                answers(backend(served), ask())
        assert len(served.seen) == 2 and "\n" not in str(caught.value)

    def test_another_models_answer_is_an_error(self):
        with judge_server(lambda b, _: Reply(completion(b, model="impostor")), models=MODELS) as served:
            with pytest.raises(RequestFailed, match="'impostor', not 'pupil'"):
                answers(backend(served), ask())
        with judge_server(lambda b, _: Reply(completion(b, model="pupil-2026-01-31")), models=MODELS) as served:
            assert len(answers(backend(served), ask())) == 1

    def test_a_withheld_answer_is_an_error(self):
        with judge_server(lambda b, _: Reply(completion(b, finish="content_filter")), models=MODELS) as served:
            with pytest.raises(RequestFailed, match="content filter"):
                answers(backend(served), ask())

    def test_a_wrong_name_and_a_dead_server_are_one_line(self):
        with judge_server(good, models=MODELS) as served:
            with pytest.raises(UsageError, match="serves pupil, other"):
                OpenAIBackend("pupli", served.url)
        with pytest.raises(ModelError, match="no connection"):
            backend(served)
        with judge_server(good, models=Reply({"error": "who?"}, status=401)) as served:
            with pytest.raises(ModelError, match="OPENAI_API_KEY"):
                backend(served)
        with pytest.raises(UsageError, match="http"):
            OpenAIBackend("pupil", "localhost:8000")
        with pytest.raises(UsageError, match="send or drop"):
            backend(served, prefill="maybe")

    @pytest.mark.parametrize("key", ["sk-first\nsecond", "sk-\u2026", "sk-a\x07"])
    def test_a_key_that_cannot_be_sent_is_not_shown(self, key, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with judge_server(good, models=MODELS) as served, pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
            backend(served)
        assert "sk-" not in str(caught.value) and "\n" not in str(caught.value)

    def test_a_password_in_the_address_is_refused_and_not_shown(self):
        with pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
            OpenAIBackend("pupil", "https://me:secret@localhost:1/v1")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(("told", "words"), [("7200", "wait 7200 s"), ("1e300", "a year"), ("inf", "a year")])
    def test_a_server_that_asks_to_wait_too_long_is_one_line(self, told, words):
        late = Reply(None, status=429, headers={"Retry-After": told})
        with judge_server(lambda *_: late, models=MODELS) as served:
            with pytest.raises(RequestFailed, match=words) as caught:
                answers(backend(served), ask())
        assert len(str(caught.value)) < 200 and len(served.seen) == 2

    @pytest.mark.parametrize("models", [None, Reply(b"<html>"), Reply({"data": None}), Reply(None, status=500)])
    def test_a_server_without_a_list_is_asked_all_the_same(self, models):
        with judge_server(good, models=models) as served:
            made = backend(served)
            assert "not checked" in made.notes()[0]
            assert len(answers(made, ask())) == 1

    def test_a_stop_request_sends_no_more_and_keeps_what_is_under_way(self):
        with judge_server(lambda b, n: Reply(completion(b), hang=0.2), models=MODELS) as served:
            made = backend(served, concurrency=2)
            stream = made.run(ask(50), [[0]] * 50)
            found = [next(stream)]
            made.stop_requested = True
            found.extend(stream)
        assert len(found) == len(served.seen) - 1 < 10


def q_body(n):
    return {"messages": [{"content": f"question {n}"}]}
