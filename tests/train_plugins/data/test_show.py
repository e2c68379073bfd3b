"""`--show`: what is printed of encoded rows."""

from __future__ import annotations

from chat_templates import DROPS, chat_tokenizer
from train_fixture import chat

from train_plugins.data import show
from train_plugins.data.encoding import Encoded


def test_a_prompt_is_shown_as_the_trainer_renders_it() -> None:
    from datasets import Dataset

    tokenizer = chat_tokenizer(DROPS)
    encoded = Encoded(Dataset.from_list([{"prompt": chat("Add.")}]), 1, 0, 0, 9)
    for kwargs, end in ((None, "assistant\n"), ({"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n")):
        shown = show.lines(encoded, tokenizer, [tokenizer.eos_token_id], count=1, colour=False, kwargs=kwargs)
        assert shown[-1] == f"<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>{end}"
