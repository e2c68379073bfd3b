"""Chat templates that fail on some messages: one line, whatever went wrong in them."""

from __future__ import annotations

from typing import Any

import pytest
from models_fixture import generation, make_tiny_tokenizer, one_line

from olmes_suite.errors import ModelError, RequestFailed
from olmes_suite.models.local.encoding import Encoder
from olmes_suite.models.local.jobs import Ends
from olmes_suite.records import Request

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ raise_exception('no assistant') }}{% endif %}{{ m.content }}{% endfor %}"
)
BROKEN = {
    "refuses what is left too": NO_SYSTEM,
    "adds a number": "{% for m in messages %}{{ m.content + 1 if m.role == 'assistant' else m.content }}{% endfor %}",
    "divides by zero": "{% for m in messages %}{{ m.content ~ (1 // (messages | length - 3)) }}{% endfor %}",
}
TALK = (("system", "s"), ("user", "u"), ("assistant", "a"))


@pytest.mark.parametrize("template", BROKEN.values(), ids=BROKEN.keys())
def test_a_template_that_fails_is_one_line(template):
    encoder = Encoder(make_tiny_tokenizer(), template)
    request = generation(7, "-", text=None, messages=TALK)
    one_line(lambda: encoder.render(request), "tulu3_test: the chat template refuses document 7", RequestFailed)


def encoder(template: str, **more: Any) -> Encoder:
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    return Encoder(tokenizer, template, **more)


def ask(*messages: tuple[str, str], prefix: str = "") -> Request:
    return generation(0, "-", text=None, messages=messages, prefix=prefix)


@pytest.mark.parametrize(
    "template",
    [NO_SYSTEM, "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"],
    ids=["refuses", "drops"],
)
def test_a_system_message_that_a_template_does_not_take_goes_into_the_first_user_turn(template: str) -> None:
    made = encoder(template)
    assert made.render(ask(("system", "s"), ("user", "u"), prefix=" so")) == "s\n\nu so"
    assert made.render(ask(("user", "u"))) == "u"
    assert made.settings() == {"system": "first user turn"}
    assert any("takes no system message" in line for line in made.notes("m"))


def test_a_template_that_takes_parts_gets_parts() -> None:
    """String contents would be rendered as nothing, so that every prompt were the same."""
    made = encoder(
        "{% for m in messages %}[{{ m.role }}]{% for part in m['content'] %}{% if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    assert made.render(ask(("user", "What is 1 + 1?"))) == "[user]What is 1 + 1?"
    assert made.settings() == {"content": "parts"}


def test_a_template_that_loses_the_question_is_one_line() -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.contents }}{% endfor %}"
    one_line(lambda: encoder(template), "it leaves out the message's text", ModelError)


def test_a_system_message_may_not_take_the_place_of_the_question() -> None:
    made = encoder("{{ messages[0].content }}|")
    assert made.render(ask(("system", "s"), ("user", "u"))) == "s\n\nu|"


@pytest.mark.parametrize(
    ("template", "lost"), [("{{ messages[0].content }}", "the last"), ("{{ messages[-1].content }}", "earlier")]
)
def test_a_template_that_loses_turns_refuses_few_shot_examples(template: str, lost: str) -> None:
    made = encoder(template)
    assert made.render(ask(("user", "u"))) == "u"
    request = ask(("user", "u"), ("assistant", "a"), ("user", "v"))
    one_line(
        lambda: made.render(request), f"the chat template leaves out {lost} turns? .*--chat-template", RequestFailed
    )


OPENS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (OPENS, True),
        (OPENS + PROMPT.replace("if add", "if not add"), True),
        (OPENS + PROMPT, False),
        (
            "{% for m in messages %}{{ '[I]' ~ m.content ~ '[/I]' if m.role == 'user' else m.content }}{% endfor %}",
            False,
        ),
    ],
    ids=["never", "the other way round", "opens", "instruction"],
)
def test_a_template_that_does_not_start_the_answer_is_noted(template: str, said: bool) -> None:
    notes = encoder(template).notes("m")
    assert any("does not start the assistant's turn ('<|assistant|>')" in line for line in notes) == said


def test_a_template_that_reads_the_clock_sees_one_date() -> None:
    made = encoder("{{ strftime_now('%d %b %Y') }}{% for m in messages %}|{{ m.content }}{% endfor %}")
    assert made.render(ask(("user", "u"))) == "26 Jul 2024|u"
    assert made.settings() == {"date": "2024-07-26"}
    made = encoder("{% set f = '%Y' %}{{ strftime_now(f) }}{% for m in messages %}|{{ m.content }}{% endfor %}")
    assert made.render(ask(("user", "u"))) == "2024|u"
    made = encoder(
        "{% macro day(f) %}{{ strftime_now(f ~ ' %B %-d') }}{% endmacro %}{{ day('%A, %%') }} "
        "{{ strftime_now(format='%m') }}"
        "{% if strftime_now is defined %}!{% endif %}{% for m in messages %}|{{ m.content }}{% endfor %}"
    )
    assert made.render(ask(("user", "u"))) == "Friday, % July 26 07!|u"


CHATML = "{% for m in messages %}{{ m.role + ':' + m.content + '<|im_end|>\n' }}{% endfor %}"


def test_answers_end_at_the_token_after_a_turn() -> None:
    made = encoder(CHATML)
    ends = Ends.of(made, None)
    end = made.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ends.turn == end and end in ends.ids and made.tokenizer.eos_token_id in ends.ids
    assert ends.settings(made.tokenizer) == {"ends_at": "<|im_end|>"}
    assert "<|im_end|>" in ends.notes(made.tokenizer, "m")[0]
    known = Ends.of(made, [end])
    assert known.turn is None and known.settings(made.tokenizer) == {} and known.notes(made.tokenizer, "m") == []


def test_most_templates_leave_no_trace_in_the_fingerprint() -> None:
    made = Encoder(make_tiny_tokenizer())
    assert made.settings() == {} and made.notes("m") == []
    assert Ends.of(made, None).settings(made.tokenizer) == {}


def test_ids_without_an_embedding() -> None:
    """Tokens were added to the tokenizer, and the model was not resized."""
    made = encoder(CHATML)
    added = made.tokenizer.convert_tokens_to_ids("<|im_end|>")
    made.check_ids(added + 1, "m")
    one_line(lambda: made.check_ids(added, "m"), rf"id {added}.*{added} embeddings", ModelError)
    made = Encoder(made.tokenizer, "{% for m in messages %}{{ m.content }}{% endfor %}")
    made.check_ids(added, "m")
    one_line(lambda: made.prompts([ask(("user", "a<|im_end|>"))]), f"id {added}", RequestFailed)


SWITCHED = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if enable_thinking is defined and not enable_thinking %}"
    "[briefly]{% endif %}{% endif %}"
)


def test_arguments_reach_the_template_and_the_fingerprint() -> None:
    made = Encoder(make_tiny_tokenizer(), SWITCHED, {"enable_thinking": False})
    assert made.render(ask(("user", "u"))) == "[user]u[assistant][briefly]"
    assert made.settings() == {"arguments": '{"enable_thinking":false}'} and made.notes("m") == []
    on = Encoder(make_tiny_tokenizer(), SWITCHED, {"enable_thinking": True})
    assert on.render(ask(("user", "u"))) == "[user]u[assistant]"
    assert on.notes("m") == []  # the template's default is no unknown argument


def test_an_argument_that_the_template_does_not_use_is_said() -> None:
    made = Encoder(make_tiny_tokenizer(), SWITCHED, {"enable_thinking": False, "thinking": False, "effort": "high"})
    assert made.notes("m") == [
        "m: --chat-template-args thinking=false: the chat template does not use it",
        "m: --chat-template-args effort=high: the chat template does not use it",
    ]
    plain = Encoder(make_tiny_tokenizer(chat_template=False), None, {"thinking": False})
    assert any("no effect without a chat template" in line for line in plain.notes("m"))
