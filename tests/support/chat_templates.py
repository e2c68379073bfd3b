"""Chat templates in the manner of today's models, written for the tests, and what each says of a turn by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from models_fixture import make_tiny_tokenizer

_TOOLS = (
    "{%- if tools %}{{- '<|im_start|>system\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}"
    "{{- 'Tools:' }}{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\n' }}"
    "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- endif %}"
)
_RESULT = "{{- '<|im_start|>tool\n' + m.content + '<|im_end|>\n' }}"
_CALLS = (
    "{%- for call in m.tool_calls or [] %}{{- '<tool_call>' }}"
    "{{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}{{- '</tool_call>' }}"
    "{%- endfor %}"
)
_PROMPT = (
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
THINKING = (
    _TOOLS
    + "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    + "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    + "{%- for m in messages %}{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    + "{%- elif m.role == 'tool' %}" + _RESULT
    + "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
    + "{%- set thought = m.reasoning_content or '' %}{%- set said = m.content %}"
    + "{%- if not m.reasoning_content and '</think>' in said %}"
    + "{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    + "{%- set said = said.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    + "{%- if KEPT %}{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}{%- endif %}"
    + "{{- said }}" + _CALLS + "{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}" + _PROMPT
)  # fmt: skip
"""Reasoning with a switch for that of earlier turns (`KEPT` stands for the condition)."""
DROPS = THINKING.replace("KEPT", "loop.index0 > ns.last and (loop.last or thought)")
"""As Qwen3: thoughts before the last question are left out, and a last turn without one gets an empty one."""
SWITCHED = THINKING.replace("KEPT", "(loop.index0 > ns.last or preserve_thinking | default(false)) and thought")
"""As Qwen3.6: an argument keeps all thoughts."""
HEADERS = (
    "{{- bos_token }}{%- for m in messages %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
"""As Llama 3: neither reasoning nor tools."""
HERMES = (
    _TOOLS
    + "{%- for m in messages %}{%- if m.role in ('user', 'assistant') %}"
    + "{{- '<|im_start|>' + m.role + '\n' + m.content }}"
    + _CALLS
    + "{{- '<|im_end|>\n' }}{%- elif m.role == 'tool' %}" + _RESULT + "{%- endif %}{%- endfor %}" + _PROMPT
)  # fmt: skip
"""As Hermes 3 and Qwen 2.5: tools, no reasoning of its own."""
OPENED = DROPS.replace(_PROMPT, _PROMPT.replace("assistant\n' }}", "assistant\n<think>\n' }}"))
"""As DeepSeek R1: the generation prompt opens the thought."""
_BEGIN, _END = "{{- '<|im_start|>assistant\n' }}", "{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
MARKED = DROPS.replace(_BEGIN + "{%- set", _BEGIN + "{% generation %}{%- set").replace(
    _END, "{{- '<|im_end|>' }}{% endgeneration %}{{- '\n' }}{%- endif %}{%- endfor %}"
)
"""As DROPS, with generation markers."""
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@lru_cache(maxsize=1)
def _base() -> Any:
    made = make_tiny_tokenizer()
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    return made


def chat_tokenizer(template: str) -> Any:
    """The tiny tokenizer with a template's control tokens, of which it ends turns in the template's own."""
    made = copy.deepcopy(_base())
    made.chat_template = template
    made.eos_token = "<|eot_id|>" if "<|eot_id|>" in template else "<|im_end|>"
    return made


def said(turn: Mapping[str, Any], template: str) -> str:
    """What a model with the template writes as its last turn, up to the token that ends it."""
    content, thought = turn["content"], turn.get("reasoning_content") or ""
    if not thought and "</think>" in content and template not in (HEADERS, HERMES):
        thought, content = content.split("</think>")[0].split("<think>")[-1].strip("\n"), content.split("</think>")[-1]
        content = content.lstrip("\n")
    calls = "".join(
        "<tool_call>" + json.dumps(call["function"], ensure_ascii=False) + "</tool_call>"
        for call in turn.get("tool_calls") or ()
    )
    if template == HEADERS:
        return f"{content.strip()}<|eot_id|>"
    if template == HERMES or (template == SWITCHED and not thought):
        return f"{content}{calls}<|im_end|>"
    stripped = thought.strip("\n")
    return f"<think>\n{stripped}\n</think>\n\n{content}{calls}<|im_end|>"


def trained(tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The trained texts of encoded rows: for each row, each run of trained tokens."""
    found = []
    for row in rows:
        runs: list[list[int]] = []
        inside = False
        for label in row["labels"]:
            if label != -100:
                runs = runs if inside else [*runs, []]
                runs[-1].append(label)
            inside = label != -100
        found.append([tokenizer.decode(run) for run in runs])
    return found
