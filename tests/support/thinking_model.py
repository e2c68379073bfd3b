"""A tiny model that learned to think: its chat template opens the thought, and its marks are special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models_fixture import make_tiny_tokenizer

OPENING = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
    "{% endif %}"
)
"""A template that opens the thought, and closes an empty one where it is switched off."""
ALWAYS = OPENING.replace("{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}",
                         "{% if true %}")  # fmt: skip
"""A template that always opens the thought."""
SAID = {
    "question 0": "12 * 2 = 24 eggs a day.\n</think>\n\nThe answer is (B). \n",
    "question 1": "the old clock\n</think>no, the children\n</think>A<pad>B",
}
"""What the model says to two questions, without the end-of-text."""


def thinking_tokenizer(template: str = OPENING, special: bool = True) -> Any:
    """The tiny tokenizer with the marks as tokens, and a chat template."""
    from transformers import AddedToken

    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(mark, special=special, normalized=False) for mark in ("<think>", "</think>")])
    tokenizer.chat_template = template
    return tokenizer


def make_thinking_model(folder: Path, **settings: Any) -> Path:
    """Write a Llama that learned SAID by heart, and its tokenizer; returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = thinking_tokenizer()
    shape = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.05,
    }  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=2, **{**shape, **settings})
    )
    rows = []
    for question, answer in SAID.items():
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        rows.append([tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, f"{answer}</s>")])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(80):
        loss = torch.zeros(())
        for prompt_ids, answer_ids in rows:
            labels = torch.tensor([[-100] * len(prompt_ids) + answer_ids])
            loss = loss + model(input_ids=torch.tensor([prompt_ids + answer_ids]), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
