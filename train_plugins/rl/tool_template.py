"""Checks of a chat template for tools: it shows them to the model, and calls that it renders can be read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from importlib import import_module
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FAMILIES = (
    "qwen3", "qwen3_5", "llama3", "glm4moe", "nemotron_3", "lfm2_2_5", "gemma4", "gptoss", "deepseek_r1_distill",
)  # fmt: skip
"""Families of chat templates whose calls TRL can read, by the names of its response templates."""
PROBE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up a word.",
        "parameters": {
            "type": "object",
            "properties": {
                "word": {"type": "string", "description": "The word."},
                "count": {"type": "integer", "description": "How many."},
            },
            "required": ["word", "count"],
        },
    },
}
CALL: dict[str, Any] = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "a b", "count": 3}}}
INSTEAD = "name a template with tools in `chat_template`, or start from a model that was trained with tools"


def prepare(
    tokenizer: PreTrainedTokenizerBase, schemas: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any] | None = None
) -> str | None:
    """Make the tokenizer read calls of tools, and return the template for rollouts; None: the tokenizer's own.

    `arguments` are those of the template. Raises UsageError for a template that does not render tools, calls or
    results, or whose calls cannot be read back.
    """
    trl: Any = import_module("trl.chat_template_utils")
    try:
        if not trl.supports_tool_calling(tokenizer):
            raise UsageError(
                f"rlvr.tools: the chat template does not render calls of tools and their results; {INSTEAD}"
            )
        _check_shown(tokenizer, schemas, dict(arguments or {}))
        _set_reader(trl, tokenizer, dict(arguments or {}))
        return None if trl.is_chat_template_prefix_preserving(tokenizer) else _stable(trl, tokenizer)
    except UsageError:
        raise
    except Exception as error:  # Jinja's errors and those of expressions in the template
        raise UsageError(f"rlvr.tools: the chat template cannot render tools: {one_line(error)}; {INSTEAD}") from None


def _check_shown(
    tokenizer: PreTrainedTokenizerBase, schemas: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]
) -> None:
    """Raise UsageError for a template that does not tell the model of its tools."""
    text = str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "hi"}], tools=list(schemas) or None, tokenize=False, **arguments
        )
    )
    for one in schemas:
        if (name := str(one["function"]["name"])) not in text:
            raise UsageError(f"rlvr.tools: the chat template does not show the model its tools ({name}); {INSTEAD}")


def _stable(trl: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return TRL's variant of a template that renders earlier turns in another way once others follow."""
    try:
        return str(trl.get_training_chat_template(tokenizer))
    except ValueError:
        raise UsageError(
            "rlvr.tools: the chat template renders a turn in another way once a tool's result follows, so the tokens "
            f"sampled would not be those trained on; {INSTEAD}"
        ) from None


def _set_reader(trl: Any, tokenizer: Any, arguments: Mapping[str, Any]) -> None:
    """Set the tokenizer's response template: its own, TRL's for a known chat template, or one that reads a call back.

    Raises UsageError.
    """
    if tokenizer.response_template is None:
        try:
            trl.add_response_schema(tokenizer)
        except ValueError:
            known = (getattr(trl, f"{family}_template", None) for family in FAMILIES)
            reads = (one for one in known if one is not None and _reads(trl, tokenizer, one, arguments))
            tokenizer.response_template = next(reads, None)
    if tokenizer.response_template is None or not _reads(trl, tokenizer, tokenizer.response_template, arguments):
        raise UsageError(
            "rlvr.tools: calls that the chat template renders cannot be read back: it is none of the families that TRL "
            f"reads ({', '.join(FAMILIES)}); {INSTEAD}, or set the tokenizer's `response_template`"
        )


def _reads(trl: Any, tokenizer: Any, response_template: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Return whether the response template reads a call that the chat template has rendered."""
    reader = copy(tokenizer)
    reader.response_template = response_template
    asked = [{"role": "user", "content": "hi"}]
    called = [*asked, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    render = {"tools": [PROBE], "tokenize": True, "return_dict": False, **arguments}
    try:
        prompt = list(tokenizer.apply_chat_template(asked, add_generation_prompt=True, **render))
        whole = list(tokenizer.apply_chat_template(called, **render))
        if whole[: len(prompt)] != prompt:  # the generation prompt may open a thought that the turn does not have
            prompt = list(tokenizer.apply_chat_template(asked, **render))
        read = trl.parse_response(reader, whole[len(prompt) :], prefix=prompt, tools=[PROBE])
    except Exception:  # a response template of another family
        return False
    return bool(read.get("tool_calls") == [CALL])
