"""What a server refuses of a request's settings: what is not needed is left out, the rest is one line that helps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judge_server import Reply, judge_server
from models_fixture import answers, generation
from pupil import MODELS, ask, backend, good

from olmes_suite.endpoints.client import error_reason
from olmes_suite.errors import RequestFailed
from olmes_suite.models.openai.backend import LONGEST_TIMEOUT
from olmes_suite.models.openai.refusals import OF_CONTEXT, default_of, refused_field, token_cap
from olmes_suite.records import CONTEXT

CAPS = [
    ("max_tokens is too large: 999999. This model supports at most 16384 completion tokens, whereas you provided "
     "999999.", 16384),
    ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
    ("body.max_tokens: Input should be less than or equal to 4096", 4096),
    ("max_tokens: 999999 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet-20241022",
     8192),
    ("`max_tokens` must be less than or equal to `32768`, the maximum value for `max_tokens` is less than the "
     "`context_window` for this model", 32768),
    ("max_tokens must be between 1 and 65,536", 65536),
    ("Unable to submit request because it has a maxOutputTokens value of 999999 but the supported range is from 1 "
     "(inclusive) to 8193 (exclusive).", 8192),
    ("max_tokens: Input should be less than 4097", 4096),
    ("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 16384]", 16384),
    ("The requested max tokens 999999 exceeds what is allowed (2048) for tier 1 accounts", 2048),
    ("max_tokens must be < 4097", 4096),
    ("'max_tokens' must be a positive integer no larger than 16_384", 16384),
    ("max_tokens value of 999999 exceeds maximum of 8k tokens", 8000),
    ("max_tokens cannot be larger than 32768", 32768),
    ("This model's maximum completion tokens is 2048 (gpt-4-0613).", 2048),
    ("max_new_tokens: expected 1-1024", 1024),
    ("The output token limit of model x-2024-08-06 is 512 tokens", 512),
    ("max_tokens exceeds limit: 4000", 4000),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "cap"), CAPS)
def test_the_number_is_read_out_of_any_refusal(reason: str, cap: int) -> None:
    assert token_cap(reason, 999_999) == cap


def test_a_limit_that_is_refused_again_is_not_read_as_another_number() -> None:
    words = "maxOutputTokens value of {} but the supported range is from 1 (inclusive) to 8193 (exclusive)."
    assert token_cap(words.format(8193), 8193) == 8192
    assert token_cap(words.format(8192), 8192) is None


@pytest.mark.parametrize(
    "reason",
    [
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 20 `inputs` tokens and "
        "999999 `max_new_tokens`",
        "Total tokens (prompt + max_tokens) cannot be larger than 4096",
    ],
)
def test_a_bound_of_prompt_and_answer_together_is_a_context(reason: str) -> None:
    assert token_cap(reason, 999_999) == 4096 and OF_CONTEXT.search(reason)


def test_a_refusal_for_another_reason_names_no_limit() -> None:
    assert token_cap("n must be 1", 24) is None
    assert token_cap("temperature must be at most 2", 24) is None


FIELDS = [
    ("Extra inputs are not permitted: stop", "stop"),
    ("Invalid field(s): seed", "seed"),
    ("stop_sequences are not supported", "stop"),
    ("Stop sequences not supported by reasoning models", "stop"),
    ("The following parameters are not supported: stop, seed", "stop"),
    ("The following parameters are not supported: logit_bias, seed", "seed"),
    ("each stop sequence must contain non-whitespace", "stop"),
    ("stop: maximum 1 stop sequence", "stop"),
    ("seed parameter has been disabled", "seed"),
    ("stop must contain non-whitespace", "stop"),
    ("`temperature` may only be set to 1 when thinking is enabled.", "temperature"),
    ("this model has limitations, temperature, top_p and n are fixed at 1", "temperature"),
    ("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
    ("'stop' is not supported with this model", "stop"),
    ("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
     "temperature"),
    ("temperature does not support 0 with this model. Only the default (1) value is supported", "temperature"),
    ("Unrecognized request argument supplied: top_k", "top_k"),
    ("body.top_k: extra fields not permitted", "top_k"),
    ("Argument not supported on this model: presence_penalty", "presence_penalty"),
    ("seed: Extra inputs are not permitted", "seed"),
    ("this endpoint doesn't support stop sequences", "stop"),
    ("stop words are not supported", "stop"),
    ("`top_p` is deprecated for this model", "top_p"),
    ("property 'min_p' is unsupported", "min_p"),
    ("the server must stop for maintenance", None),
    ("you may not", None),
    ("Unknown model", None),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "field"), FIELDS)
def test_the_refused_field_is_read(reason: str, field: str | None) -> None:
    body = dict.fromkeys(("stop", "seed", "temperature", "top_p", "top_k", "min_p", "presence_penalty"), 1)
    assert refused_field(reason, None, body) == field
    assert refused_field("no", field, body) == field
    assert refused_field(reason, None, {"max_tokens": 3}) is None


def test_the_only_value_is_read() -> None:
    assert default_of("Only the default (1) value is supported.") == 1
    assert default_of("only the default value of 0.7 is supported") == 0.7
    assert default_of("not supported") is None


def test_the_problems_of_a_fastapi_server_are_one_line() -> None:
    raw = b'{"detail": [{"loc": ["body", "stop"], "msg": "Extra inputs are not permitted", "input": ["x"]}]}'
    assert error_reason(raw) == "body.stop: Extra inputs are not permitted"


class Refusing:
    """A server that refuses fields, each with its own words."""

    def __init__(self, refused: dict[str, str], bad: dict[str, object] | None = None) -> None:
        self.refused, self.bad = refused, bad or {}

    def __call__(self, body, before):
        for field, reason in self.refused.items():
            if field in body and self.bad.get(field, body[field]) == body[field]:
                return Reply({"error": {"message": reason}}, status=400)
        return good({"temperature": 1, **body}, before)


class TestFields:
    """Fields of sampling."""

    def test_all_are_sent(self) -> None:
        fields = {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.2, "presence_penalty": 0.5,
                  "frequency_penalty": -0.5}  # fmt: skip
        with judge_server(good, models=MODELS) as served:
            answers(backend(served), ask(temperature=0.7, **fields))
        assert served.seen[1][1].items() >= fields.items()

    def test_what_is_not_needed_is_left_out_once_and_said(self) -> None:
        server = Refusing({"stop": "Unsupported parameter: 'stop'", "seed": "seed is not supported"})
        with judge_server(server, models=MODELS) as served:
            made = backend(served, concurrency=1)
            found = answers(made, ask(3, temperature=0.7, stop=(" answer",)))
        assert [r.text.endswith("The") for r in found] == [True] * 3  # the stop string is applied here
        assert len(served.seen) == 1 + 2 + 3
        assert list(made.settings()["left_out"]) == ["stop", "seed"]
        assert sum("refuses stop" in line for line in made.notes()) == 1

    @pytest.mark.parametrize("status", [413, 422, 500, 501])
    def test_servers_refuse_under_several_statuses(self, status: int) -> None:
        def reply(body, before):
            if "stop" in body:
                return Reply({"error": {"message": "stop is not supported"}}, status=status)
            return good(body, before)

        with judge_server(reply, models=MODELS) as served:
            made = backend(served, concurrency=1, tries=2)
            found = answers(made, ask(2, stop=(" answer",)))
        assert [r.text.endswith("The") for r in found] == [True] * 2
        assert len(served.seen) == 1 + (2 if status == 500 else 1) + 2

    def test_the_reason_of_a_failing_server_is_said(self) -> None:
        body = {"error": {"message": "Provider returned error", "metadata": {"raw": "max_tokens: 24 of 3\nis odd"}}}
        with judge_server(lambda *_: Reply(body, status=500), models=MODELS) as served:
            with pytest.raises(
                RequestFailed, match="HTTP 500, 2 times: Provider returned error: max_tokens: 24 of 3 is"
            ):
                answers(backend(served, tries=2), ask())

    def test_a_needed_field_is_one_line_with_a_way_round(self) -> None:
        reason = "'temperature' does not support 0 with this model. Only the default (1) value is supported."
        server = Refusing({"temperature": reason}, {"temperature": 0.0})
        with judge_server(server, models=MODELS) as served:
            with pytest.raises(RequestFailed, match="--gen-kwargs temperature=default") as caught:
                answers(backend(served), ask())
            assert "\n" not in str(caught.value)
            (request,) = ask(temperature=1.0)
            (found,) = answers(backend(served), [replace(request, unset=("temperature",))])
        assert "temperature" not in served.seen[-1][1] and found.text

    def test_the_servers_own_value_is_left_out(self) -> None:
        server = Refusing({"temperature": "temperature: only the default (1) value is supported"})
        with judge_server(server, models=MODELS) as served:
            assert answers(backend(served), ask(temperature=1.0))[0].text

    def test_arguments_of_the_chat_template(self) -> None:
        refused = {"chat_template_kwargs": "Unrecognized request argument supplied: chat_template_kwargs"}
        with judge_server(good, models=MODELS) as served:
            made = backend(served, chat_template_args={"enable_thinking": False})
            answers(made, [*ask(), generation(1, "plain")])
            assert made.fingerprint != backend(served).fingerprint
        sent = [body.get("chat_template_kwargs") for _, body in served.seen[1:] if "GET" not in str(body)]
        assert sorted(sent, key=str) == [None, {"enable_thinking": False}]
        with judge_server(Refusing(refused), models=MODELS) as served:
            with pytest.raises(RequestFailed, match="--chat-template-args"):
                answers(backend(served, chat_template_args={"enable_thinking": False}), ask())
            answers(backend(served, chat_template_args={"reasoning_effort": "high"}), ask())
        assert served.seen[-1][1]["reasoning_effort"] == "high"


class TestLimits:
    """Token limits that a server does not take."""

    @pytest.mark.parametrize("most", [999_999, CONTEXT])
    def test_to_the_context_is_left_out_of_chats(self, most: int) -> None:
        with judge_server(good, models=MODELS) as served:
            answers(backend(served), ask(max_tokens=most))
        assert "max_tokens" not in served.seen[-1][1]

    @pytest.mark.long
    @pytest.mark.parametrize(("reason", "cap"), CAPS)
    def test_a_servers_limit_is_learned_and_recorded(self, reason: str, cap: int) -> None:
        def reply(body, before):
            if body["max_tokens"] > cap:
                return Reply({"error": {"message": reason}}, status=400)
            return good(body, before)

        with judge_server(reply, models=MODELS) as served:
            made = backend(served, concurrency=1)
            found = answers(made, [generation(i, f"plain {i}", max_tokens=999_999) for i in range(3)])
        assert [r.limit for r in found] == [cap] * 3
        assert len(served.seen) == 1 + 1 + 3
        assert made.settings()["largest_token_limit"] == cap and any(str(cap) in line for line in made.notes())

    def test_a_server_that_needs_a_limit_gets_one(self) -> None:
        def reply(body, before):
            if "max_tokens" not in body:
                return Reply({"error": {"message": "max_tokens: Field required"}}, status=400)
            if body["max_tokens"] > 8192:
                return Reply({"error": {"message": CAPS[3][0]}}, status=400)
            return good(body, before)

        with judge_server(reply, models=MODELS) as served:
            found = answers(backend(served, concurrency=1), ask(2, max_tokens=CONTEXT))
        assert [body.get("max_tokens") for _, body in served.seen[1:]] == [None, 1_000_000, 8192, 8192]
        assert [r.limit for r in found] == [8192, 8192]

    def test_a_context_without_the_prompts_length_is_measured(self) -> None:
        def reply(body, before):
            if body["max_tokens"] > 8192 - 11:
                return Reply({"error": {"message": "maximum context length is 8192 tokens."}}, status=400)
            return good(body, before)

        with judge_server(reply, models=MODELS) as served:
            (found,) = answers(backend(served), [generation(0, "plain", max_tokens=20_000)])
        assert found.limit == 8192 - 11

    def test_a_limit_of_the_servers_own_is_said(self) -> None:
        from pupil import completion

        with judge_server(lambda b, _: Reply(completion(b, finish="length")), models=MODELS) as served:
            made = backend(served)
            (found,) = answers(made, ask(max_tokens=CONTEXT))
        assert found.limit == 5 and any("limits of its own" in line for line in made.notes())

    def test_the_read_timeout_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with judge_server(good, models=MODELS) as served:
            made = backend(served, timeout=None)
            waited = []
            post = made.endpoint.post
            monkeypatch.setattr(made.endpoint, "post", lambda *a, **k: (waited.append(k["timeout"]), post(*a, **k))[1])
            answers(made, ask(max_tokens=999_999))
        assert waited == [LONGEST_TIMEOUT]
