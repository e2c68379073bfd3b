"""Chat templates that fail on some messages: one line, whatever went wrong in them."""

from __future__ import annotations

import pytest
from models_fixture import generation, make_tiny_tokenizer, one_line

from olmes_suite.errors import RequestFailed
from olmes_suite.models.local.encoding import Encoder

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ raise_exception('no assistant') }}{% endif %}{{ m.content }}{% endfor %}"
)
BROKEN = {
    "refuses what is left too": NO_SYSTEM,
    "adds a number": "{% for m in messages %}{{ m.content + 1 if m.role == 'assistant' else m.content }}{% endfor %}",
    "divides by zero": "{{ messages[0].content ~ (1 // (messages | length - 3)) }}",
}
TALK = (("system", "s"), ("user", "u"), ("assistant", "a"))


@pytest.mark.parametrize("template", BROKEN.values(), ids=BROKEN.keys())
def test_a_template_that_fails_is_one_line(template):
    encoder = Encoder(make_tiny_tokenizer(), template)
    request = generation(7, "-", text=None, messages=TALK)
    one_line(lambda: encoder.render(request), "tulu3_test: the chat template refuses document 7", RequestFailed)
    assert not encoder.system_dropped


def test_a_template_without_system_messages_gets_none():
    encoder = Encoder(make_tiny_tokenizer(), NO_SYSTEM)
    assert encoder.render(generation(0, "-", text=None, messages=TALK[:2], prefix=" so")) == "u so"
    assert encoder.system_dropped
