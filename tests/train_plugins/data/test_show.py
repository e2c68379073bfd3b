"""`--show`: what is printed of encoded rows."""

from __future__ import annotations

from typing import Any

from chat_templates import DROPS, chat_tokenizer
from datasets import Dataset
from train_fixture import chat, need_trl

from train_plugins.data import show
from train_plugins.data.encoding import Encoded
from train_plugins.data.pairs import pair_row, whole_pair_row


def test_a_prompt_is_shown_as_the_trainer_renders_it() -> None:
    tokenizer = chat_tokenizer(DROPS)
    encoded = Encoded(Dataset.from_list([{"prompt": chat("Add.")}]), 1, 0, 0, 9)
    for kwargs, end in ((None, "assistant\n"), ({"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n")):
        shown = show.lines(encoded, tokenizer, [tokenizer.eos_token_id], count=1, colour=False, kwargs=kwargs)
        assert shown[-1] == f"<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>{end}"


SMOL = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""As SmolLM2 and Qwen2.5: a line break follows the token that ends a turn."""
PAIR = {"chosen": chat("Hello?", "Hi."), "rejected": chat("Hello?", "No.")}


def shown_pair(encode: Any) -> list[str]:
    tokenizer = chat_tokenizer(SMOL)
    encoded = Encoded(Dataset.from_list([encode(PAIR, tokenizer, None)]), 1, 0, 0, 9)
    ends = [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    return show.lines(encoded, tokenizer, ends, count=1, colour=False)


def test_a_trained_line_break_behind_the_end_of_a_turn_is_visible_and_said() -> None:
    legend, _, heading, text, end, *_ = shown_pair(pair_row)
    assert legend == "[[trained]] text is marked, ⏎ is a trained line break; 1 row"
    assert heading.endswith("5 trained") and text.endswith("<|im_start|>assistant\n[[Hi.<|im_end|>⏎]]")
    said = "; the '\\n' that the chat template writes behind it is trained too, as TRL does"
    assert end == "end of turn: <|im_end|> is trained and ends generation (1 of 1 turn)" + said


def test_trl_trains_the_same_line_break() -> None:
    need_trl()
    from trl import DPOConfig, DPOTrainer

    tokenizer = chat_tokenizer(SMOL)
    rows = Dataset.from_list([{"prompt": chat("Hello?"), **{side: PAIR[side][1:] for side in PAIR}}])
    prepared = DPOTrainer._prepare_dataset(object(), rows, tokenizer, DPOConfig("unused", bf16=False), "train")
    ours = pair_row(PAIR, tokenizer, None)
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert prepared[0][name] == ours[name]
    assert tokenizer.decode(ours["chosen_ids"]) == "Hi.<|im_end|>\n"


def test_a_line_break_inside_a_row_stays_one() -> None:
    tokenizer = chat_tokenizer(SMOL)
    ids = tokenizer("a\nb", add_special_tokens=False)["input_ids"]
    trained = [tokenizer.decode([one]) != "b" for one in ids]
    assert show.marked(tokenizer, ids, trained, ("[[", "]]")) == "[[a⏎]]\nb"


def test_a_reward_model_reads_a_conversation_whole() -> None:
    legend, _, heading, text, end, *_ = shown_pair(whole_pair_row)
    assert legend == "a reward model reads whole conversations; 1 row" and "trained" not in heading
    assert "[[" not in text and end == "the reward is read at the last token, '\\n'"
