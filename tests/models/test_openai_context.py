"""A server's context and its log-likelihoods, by the rules of the hf backend."""

from __future__ import annotations

import pytest
from judge_server import Reply, judge_server
from models_fixture import answers, choice, generation
from pupil import MODELS, ask, backend, completion, good

from olmes_suite.errors import RequestFailed
from olmes_suite.models.base import fit
from olmes_suite.models.openai.context_limit import Room, other_room


class TestContext:
    """Prompts that are longer than the served model's context."""

    LINES = (
        "This model's maximum context length is 100 tokens. However, you requested {total} tokens ({prompt} in the "
        "messages, {room} in the completion).",
        "'max_tokens' is too large: {room}. This model's maximum context length is 100 tokens and your request has "
        "{prompt} input tokens ({room} > 100 - {prompt}).",
        "Requested token count exceeds the model's maximum context length of 100 tokens. You requested a total of "
        "{total} tokens: {prompt} tokens from the input messages and {room} tokens for the completion.",
        "You passed {prompt} input tokens and requested {room} output tokens. However, the model's context length is "
        "only 100 tokens.",
        "The decoder prompt (length {prompt}) is longer than the maximum model length of 100.",
    )

    @pytest.mark.parametrize("line", LINES)
    def test_the_rule_is_that_of_the_hf_backend(self, line):
        told = line.format(prompt=90, room=24, total=114)
        assert other_room(told, 24, Room()) == Room(10)
        told = line.format(prompt=190, room=24, total=214)
        assert other_room(told, 24, Room()) == Room(24, 76)
        assert Room(24, 76).fields == {"max_tokens": 24, "truncate_prompt_tokens": 76, "truncation_side": "left"}
        assert other_room("n must be 1", 24, Room()) is None

    @pytest.mark.parametrize("line", LINES)
    @pytest.mark.parametrize("samples", [1, 2])
    def test_a_long_prompt_is_cut_and_flagged(self, line, samples):
        def reply(body, before):
            prompt = min(int(body["messages"][-1]["content"].split()[-1]) * 95, body.get("truncate_prompt_tokens", 999))
            if prompt + body["max_tokens"] > 100:
                said = line.format(prompt=prompt, room=body["max_tokens"], total=prompt + body["max_tokens"])
                return Reply({"error": {"message": said}}, status=400)
            return good(body, before)

        with judge_server(reply, models=MODELS) as served:
            found = answers(backend(served), ask(3, temperature=0.5), [[1] * samples] * 3)
        assert [r.truncated for r in found[::samples]] == [False, False, True]
        assert len(found) == 3 * samples

    def test_a_server_that_cannot_cut_is_an_error(self):
        told = self.LINES[0].format(prompt=190, room=24, total=214)
        with judge_server(lambda *_: Reply({"error": {"message": told}}, status=400), models=MODELS) as served:
            with pytest.raises(RequestFailed, match="maximum context length"):
                answers(backend(served), ask())


class VLLM:
    """A server of a context of 100 tokens that refuses long prompts in the words of vLLM 0.30; a word is a token."""

    ROOM = "Please reduce the length of the input prompt or the number of requested output tokens."

    def __init__(self):
        self.bodies = []

    def __call__(self, body, before):
        self.bodies.append(body)
        name = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        words, limit, kept = prompt.split(), body[name], body.get("truncate_prompt_tokens")
        most = 100 - limit
        if limit > 100:
            refusal = f"{name}={limit} cannot be greater than max_model_len=max_total_tokens=100. Please request fewer"
        elif kept is None and len(prompt) > 10 * most:
            refusal = self._refused(limit, f"{len(prompt)} characters (more than {10 * most} characters, which is the")
        elif min(len(words), kept or len(words)) > most:
            refusal = self._refused(limit, f"at least {most + 1} input tokens, for a total of at least 101 tokens.")
        else:
            kept = min(len(words), kept or len(words))
            return Reply({**completion(body, [f"{kept} {limit}"]), "usage": {"prompt_tokens": kept}})
        return Reply({"error": {"message": f"{refusal} {self.ROOM}"}}, status=400)

    def _refused(self, limit, contains):
        return (
            f"This model's maximum context length is 100 tokens. However, you requested {limit} output tokens and your "
            f"prompt contains {contains}"
        )


class TestContextOfVLLM:
    """vLLM names a bound of the prompt's length, or none: its length is asked for, and then the rule is that of hf."""

    @pytest.mark.long
    @pytest.mark.parametrize(
        ("words", "limit", "kept", "room"),
        [
            (30, 24, 30, 24), (90, 24, 90, 10), (97, 24, 97, 3), (98, 24, 98, 2), (99, 24, 76, 24), (100, 24, 76, 24),
            (5000, 24, 76, 24), (30, 100, 30, 70), (30, 600, 30, 70), (300, 600, 50, 50), (99, 1, 99, 1),
            (300, 1, 99, 1),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("word", ["w", "longish"])
    def test_the_answer_gives_way_then_the_prompt(self, words, limit, kept, room, word):
        server = VLLM()
        prompt = " ".join([word] * words)
        with judge_server(server, models=MODELS) as served:
            (found,) = answers(backend(served), [generation(0, prompt, max_tokens=limit)])
        assert found.text == f"{kept} {room}"
        assert found.truncated == (kept < words)
        assert len(server.bodies) <= 3
        assert ("truncation_side" in server.bodies[-1]) == found.truncated
        assert fit(words, limit, 100) == (kept, room)

    def test_samples_are_asked_for_together_once_the_room_is_known(self):
        server = VLLM()

        def reply(body, before):
            found = server(body, before)
            if found.status == 200:
                texts = [f"{found.body['choices'][0]['text']} {place}" for place in range(body.get("n", 1))]
                found.body["choices"] = completion(body, texts)["choices"]
            return found

        with judge_server(reply, models=MODELS) as served:
            found = answers(backend(served), [generation(0, "w " * 90, temperature=0.5)], [[1, 2, 3]])
        assert [r.text for r in found] == ["90 10 0", "90 10 1", "90 10 2"]
        assert [(b["max_tokens"], b.get("n", 1)) for b in server.bodies] == [(24, 3), (1, 1), (10, 3)]

    def test_a_server_that_does_not_count_is_an_error(self):
        def reply(body, before):
            found = VLLM()(body, before)
            found.body.pop("usage", None)
            return found

        with judge_server(reply, models=MODELS) as served:
            with pytest.raises(RequestFailed, match="does not fit the context"):
                answers(backend(served), [generation(0, "w " * 90)])


def echoed(text, generated="!"):
    """A vLLM-like completion: a token per word, its log-probability minus its length."""
    words = [w for w in text.replace(" ", "\0 ").split("\0") if w]
    tokens = [*words, generated]
    scores = [None, *(-float(len(w)) for w in tokens[1:])]
    top = [None, *({w: -float(len(w)), "zz": -2.5} for w in tokens[1:])]
    return words, {
        "choices": [
            {"index": 0, "text": text + generated,
             "logprobs": {"tokens": tokens, "token_logprobs": scores, "top_logprobs": top}}
        ],
        "usage": {"prompt_tokens": len(words), "completion_tokens": 1},
    }  # fmt: skip


def scoring(body, before):
    if "messages" not in body:
        return Reply(echoed(body["prompt"])[1]) if body.get("echo") else good(body, before)
    words, _ = echoed("".join(m["content"] for m in body["messages"]))
    entries = [None]
    for place, word in enumerate(words[1:]):
        own = {"logprob": -float(len(word)), "rank": 1 if len(word) < 3 else 4, "decoded_token": word}
        best = {} if len(word) < 3 else {"1": {"logprob": -2.5, "rank": 1, "decoded_token": "zz"}}
        entries.append({**best, str(100 + place): own} if place % 2 else {str(100 + place): own, **best})
    return Reply({**completion(body), "prompt_logprobs": entries})


class TestLogLikelihood:
    """Choices are scored where the server tells, and never guessed."""

    def test_choices_of_plain_text(self):
        asked = [choice(0, 0, "Is it so? ", "yes"), choice(0, 1, "Is it so?", " no never"), choice(0, 2, "Is it", " A")]
        with judge_server(scoring, models=MODELS) as served:
            first, second, third = answers(backend(served), asked)
        assert served.seen[1][1] == {
            "model": "pupil", "prompt": served.seen[1][1]["prompt"], "max_tokens": 1, "temperature": 0.0,
            "logprobs": 1, "echo": True,
        }  # fmt: skip
        assert (first.loglikelihood, first.is_greedy, first.text) == (-4.0, False, None)
        assert (second.loglikelihood, third.loglikelihood, third.is_greedy) == (-9.0, -2.0, True)

    def test_choices_after_messages(self):
        request = choice(0, 0, "", " A")
        from dataclasses import replace

        request = replace(request, text=None, messages=(("user", "Is it so?"),), prefix=" Answer:")
        with judge_server(scoring, models=MODELS) as served:
            short, long = answers(backend(served), [request, replace(request, continuation=" never so")])
        body = served.seen[1][1]
        assert body["messages"][-1]["role"] == "assistant" and body["continue_final_message"] is True
        assert body["prompt_logprobs"] == 1
        assert (short.loglikelihood, short.is_greedy) == (-2.0, True)
        assert (long.loglikelihood, long.is_greedy) == (-9.0, False)

    def test_a_choice_that_begins_within_a_token(self):
        with judge_server(scoring, models=MODELS) as served:
            (found,) = answers(backend(served), [choice(0, 0, "Is it so, is", "n't it")])
        assert found.loglikelihood == -3.0  # " isn't" is as many tokens as " is"
        assert len(served.seen) == 3

    def test_a_context_that_is_too_long_is_cut_on_the_left_and_flagged(self):
        def reply(body, before):
            words = body["prompt"].split()
            kept = body.get("truncate_prompt_tokens")
            if len(words) > 99 and kept is None:
                return VLLM()(body, before)
            return Reply(echoed(" ".join(words[-(kept or 100) :]))[1])

        asked = [choice(0, 0, "w " * 60, "yes"), choice(1, 0, "w " * 120, "yes")]
        with judge_server(reply, models=MODELS) as served:
            short, long = answers(backend(served), asked)
            bodies = [body for _, body in served.seen]
        assert (short.truncated, long.truncated) == (False, True)
        assert short.loglikelihood == long.loglikelihood == -4.0
        cut = [body for body in bodies if "truncation_side" in body]  # the short one may be answered last
        assert (long.prompt_tokens, [body["truncation_side"] for body in cut]) == (99, ["left"])

    @pytest.mark.parametrize(
        "reply",
        [
            good,
            lambda *_: Reply({"error": {"message": "echo is not supported"}}, status=400),
            lambda *_: Reply({"detail": "Not Found"}, status=404),
            lambda b, _: Reply({"choices": [{"index": 0, "text": "!", "logprobs": None}]}),
            lambda b, _: Reply(echoed("!", "!")[1]),
        ],
    )
    def test_a_server_that_does_not_tell_is_one_line(self, reply):
        with judge_server(reply, models=MODELS) as served:
            with pytest.raises(RequestFailed, match="tulu3_test: needs log-likelihoods") as caught:
                answers(backend(served), [choice(0, 0, "Is it", " A")])
        assert "\n" not in str(caught.value) and len(served.seen) == 2
