"""The token that ends an assistant's turn is one at which generation ends, and is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from models_fixture import make_tiny_tokenizer

from olmes_suite.errors import UsageError
from train_plugins.data.encoding import check_rendered
from train_plugins.data.turn_end import check_turn_end, end_ids, set_eos

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OUTSIDE = CHATML.replace("+ '<|im_end|>' }}{% endgeneration %}", "}}{% endgeneration %}{{ '<|im_end|>' }}")
WITH_BREAK = CHATML.replace("m['content'] + '<|im_end|>' }}{% endgen", "m['content'] + '<|im_end|>\n' }}{% endgen")
ENDLESS = CHATML.replace("<|im_end|>", "")


def tokenizer(template: str) -> Any:
    made = make_tiny_tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = template
    return made


@pytest.mark.parametrize("masked", [True, False])
def test_a_turn_that_ends_in_another_token_names_the_cure(masked: bool) -> None:
    made = tokenizer(CHATML)
    with pytest.raises(UsageError, match=r'<\|im_end\|>.*</s> is.*`eos_token: "<\|im_end\|>"`'):
        check_turn_end(made, [made.eos_token_id], masked)
    set_eos(made, "<|im_end|>")
    check_turn_end(made, [made.eos_token_id], masked)


def test_white_space_behind_the_end_is_passed_over() -> None:
    made = tokenizer(WITH_BREAK)
    set_eos(made, "<|im_end|>")
    check_turn_end(made, [made.eos_token_id], masked=True)


def test_an_end_behind_the_trained_part_is_not_learnt() -> None:
    made = tokenizer(OUTSIDE)
    set_eos(made, "<|im_end|>")
    with pytest.raises(UsageError, match=r"after \{% endgeneration %}"):
        check_turn_end(made, [made.eos_token_id], masked=True)


@pytest.mark.parametrize("masked", [True, False])
def test_a_template_without_an_end(masked: bool) -> None:
    made = tokenizer(ENDLESS)
    with pytest.raises(UsageError, match="writes no end-of-text token"):
        check_turn_end(made, [made.eos_token_id], masked)


def test_ends_are_the_tokenizers_and_generation_configs(tmp_path: Path) -> None:
    made = tokenizer(CHATML)
    assert end_ids(made, str(tmp_path)) == [made.eos_token_id]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert end_ids(made, str(tmp_path)) == [made.eos_token_id, 7, 9]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert end_ids(made, str(tmp_path)) == [made.eos_token_id, 7]


def test_a_token_that_the_tokenizer_lacks() -> None:
    with pytest.raises(UsageError, match=r"eos_token '<\|im_ent\|>': not a token.*did you mean '<\|im_end\|>'"):
        set_eos(tokenizer(CHATML), "<|im_ent|>")


@pytest.mark.parametrize("masked", [True, False])
def test_a_template_that_leaves_out_the_text_is_one_line(masked: bool) -> None:
    made = tokenizer(CHATML.replace("m['content']", "m['contents']|string"))
    with pytest.raises(UsageError, match="leaves out the messages' text"):
        check_turn_end(made, [made.eos_token_id], masked)


def test_a_template_that_raises_is_left_to_the_encoding_of_the_rows() -> None:
    check_turn_end(tokenizer("{{ raise_exception('no') }}"), [1], masked=False)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHATML.replace("+ '<|im_end|>' }}{% endgen", "+ '<|im_end|>done' }}{% endgen"), "more text after"),
        (CHATML.replace("{% if m['role'] == 'assistant' %}", "{% if true %}"), "the user's turns too"),
        (CHATML.replace("{% if m['role'] == 'assistant' %}", "{% if false %}"), "do not enclose"),
    ],
)
def test_marks_in_the_wrong_place_are_named(template: str, said: str) -> None:
    made = tokenizer(template)
    set_eos(made, "<|im_end|>")
    with pytest.raises(UsageError, match=said):
        check_turn_end(made, [made.eos_token_id], masked=True)


def test_what_the_template_leaves_out_is_refused() -> None:
    user, answer = (
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "<think>\nHm.</think>\n\nHi."},
    )
    system = {"role": "system", "content": "Be brief."}
    whole = tokenizer(CHATML.replace("m['content'] + '<|im_end|>' }}{% endgen", "m['content'] }}<|im_end|>{% endgen"))
    check_rendered({"messages": [system, user, answer]}, whole)
    spaced = tokenizer(CHATML.replace("m['content'] +", "(m['content'] | replace('<think>', '<think> ')) +"))
    check_rendered({"messages": [user, answer]}, spaced)
    for template, messages, said in (
        (
            CHATML.replace("messages %}", "messages if m['role'] != 'system' %}", 1),
            [system, user, answer],
            "system turns",
        ),
        (CHATML.replace("m['content'] +", "m['content'].split('</think>')[-1] +"), [user, answer], "thoughts"),
    ):
        with pytest.raises(ValueError, match=f"row 3: it leaves out {said}"):
            check_rendered({"messages": messages, "row": 3}, tokenizer(template))
        check_rendered({"messages": [user, {**answer, "content": "Hi."}]}, tokenizer(template))
