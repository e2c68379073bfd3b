"""A tiny policy that calls tools: its chat template has them, and tokens of its vocabulary are whole calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models_fixture import make_tiny_tokenizer

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}"
    "{% for call in turn.tool_calls or [] %}<tool_call>\n"
    '{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLS = [
    *(("add", {"a": n, "b": 1}) for n in range(6)),
    *(("divide", {"a": n, "b": 0}) for n in range(3)),  # raises
    *(("multiply", {"a": n, "b": 2}) for n in range(2)),  # does not exist
    ("add", {"wrong": 1}),
]


def text_of(name: str, arguments: dict[str, Any]) -> str:
    """A call as the template renders it."""
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def make_tool_model(folder: Path, **shape: Any) -> Path:
    """Write the policy to `folder`; many of its turns hold a call."""
    import torch
    from transformers import AddedToken, LlamaConfig, LlamaForCausalLM

    tokenizer = make_tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.add_tokens([AddedToken(text_of(*call), normalized=False) for call in CALLS])
    tokenizer.chat_template, tokenizer.eos_token = TEMPLATE, "<|im_end|>"
    config = LlamaConfig(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=False,
        **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
           "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.2, **shape},
    )  # fmt: skip
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = folder / "generation_config.json"
    calls = range(len(tokenizer) - len(CALLS), len(tokenizer))
    often = [config.eos_token_id, *calls, *range(20, calls.start - 2, 12)]  # a turn ends with its call, or soon
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": often}))
    return folder


TOOLS_MODULE = '''
"""Tools of a test."""


def add(a: int, b: int) -> int:
    """
    Add two numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return a + b


async def divide(a: int, b: int) -> float:
    """
    Divide two numbers.

    Args:
        a: The dividend.
        b: The divisor.
    """
    return a / b


def untyped(a):
    """
    Nothing.

    Args:
        a: It.
    """


def undescribed(a: int) -> int:
    return a


def starred(*numbers: int) -> int:
    """
    Add.

    Args:
        numbers: Them.
    """
    return 0


def yields(a: int) -> str:
    """
    Count.

    Args:
        a: The limit.
    """
    yield a


number = 3


class Counter:
    """An environment: `add` counts."""

    def __init__(self) -> None:
        self.total = 0

    def reset(self, goal=None, prompt=None, ground_truth=None, **row):
        assert prompt[-1]["role"] == "user" and "number" in prompt[-1]["content"]
        self.goal, self.total = goal, 0
        return f" The goal is {goal}."

    def add(self, a: int, b: int) -> int:
        """
        Add two numbers.

        Args:
            a: The first number.
            b: The second number.
        """
        self.total += a + b
        return self.total

    def get_reward(self) -> float:
        return float(self.total % 3)


class Resets(Counter):
    def reset(self, **row):
        raise OSError("the server is gone")


class Loses(Counter):
    async def get_reward(self) -> float:
        raise RuntimeError("no score")


class Breaks(Counter):
    def add(self, a: int, b: int) -> int:
        """
        Add two numbers.

        Args:
            a: The first number.
            b: The second number.
        """
        raise ConnectionError("the server is gone")


class Needs(Counter):
    def __init__(self, port: int) -> None:
        self.port = port


class NoReset:
    def add(self, a: int, b: int) -> int:
        """
        Add two numbers.

        Args:
            a: The first number.
            b: The second number.
        """
        return 0
'''


def write_tools(folder: Path, name: str) -> str:
    """Write the module beside the recipe, under a name of the test's own; returns the name."""
    (folder / f"{name}.py").write_text(TOOLS_MODULE)
    return name
