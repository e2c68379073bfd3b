"""A tiny Llama with random weights and a byte-level BPE tokenizer, made on the spot, and requests to ask it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.errors import OlmesError
from olmes_suite.models.base import Backend
from olmes_suite.records import Request, Response

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{{ (eos_token if message['role'] == 'assistant' else '') + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

TEXT = """\
Question: A farmer has twelve hens and each hen lays two eggs a day. How many eggs are there after three days?
Answer: Each day the hens lay 12 * 2 = 24 eggs. After three days there are 24 * 3 = 72 eggs. The answer is 72.

Question: Which of these is a colour?
 (A) seven (B) green (C) slowly (D) under
Answer: Therefore, the answer is (B).

The old clock in the hall strikes nine, and the children run down the stairs to see who has come to the door.
def add(first, second):
    return first + second
"""

WORDS = "time year people way day man thing woman life child world school state family student group country problem"


def make_tiny_model(
    folder: Path, chat_template: bool = True, seed: int = 0, max_length: int = 512, **settings: Any
) -> Path:
    """Write a Llama of about 0.2 million parameters and its tokenizer to `folder`; returns the folder.

    The weights are drawn wide, so that the logits are far apart and greedy answers do not hang on rounding.
    `settings` go to the configuration.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tiny_tokenizer(chat_template)
    shape = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": max_length, "initializer_range": 0.2,
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        **{**shape, **settings},
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


SMALL = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.2,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "mistral with a window": ("Mistral", {"sliding_window": 24}),
    "gemma2": ("Gemma2", {"sliding_window": 24, "num_hidden_layers": 4, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3Text", {"sliding_window": 24, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16}),
    "gemma4": ("Gemma4Text", {"sliding_window": 24}),
    "olmo2": ("Olmo2", {}),
    "doge": ("Doge", {"keep_window_size": 16}),
    "rwkv": ("Rwkv", {}),
    "mamba": ("Mamba", {"state_size": 4, "time_step_rank": 4}),
}
"""Class of the configuration, less "Config", and what of it is not as in SMALL."""


def make_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a small model of one of ARCHITECTURES with random weights, and the tokenizer; returns the folder."""
    import torch
    import transformers

    name, own = ARCHITECTURES[kind]
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **own})
    torch.manual_seed(seed)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return Path(folder)


def make_tiny_tokenizer(chat_template: bool = True) -> Any:
    """A byte-level BPE tokenizer of 400 tokens that puts <s> before a text by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([TEXT, WORDS] * 4, trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    if chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


STARTS = (
    "Question: How many eggs are there?\nAnswer:",
    "The old clock",
    "def add(first, second):\n    return",
    "Which of these is a colour?",
)
PROMPTS = [f"{STARTS[i % 4]}{' and the people of the school' * (i % 5)}{i}" for i in range(16)]
STOPS = ("ea", "\n", "72", "</s>")


def generation(i: int, prompt: str | None = None, **changes: Any) -> Request:
    """A greedy request for 24 tokens."""
    settings: dict[str, Any] = {"text": prompt or PROMPTS[i], "max_tokens": 24, "temperature": 0.0, **changes}
    return Request(task="tulu3_test", doc_id=i, index=0, kind="generate", **settings)


def choice(i: int, index: int, text: str, continuation: str) -> Request:
    """A log-likelihood request."""
    return Request("tulu3_test", i, index, "loglikelihood", text=text, continuation=continuation)


def answers(
    backend: Backend, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]] | None = None
) -> list[Response]:
    """All responses, by request and sample."""
    rows = seeds if seeds is not None else [[0]] * len(requests)
    found = sorted(backend.run(requests, rows), key=lambda item: item[:2])
    return [response for _, _, response in found]


def one_line(action: Callable[[], Any], match: str, kind: type[OlmesError] = OlmesError) -> None:
    """The action fails with one of our errors, whose text is one line."""
    with pytest.raises(kind, match=match) as caught:
        action()
    assert "\n" not in str(caught.value)
