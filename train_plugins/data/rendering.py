"""Conversations as the text of a chat template, and the parts of it that its generation markers enclose."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from train_plugins.data.control_tokens import broken, control_tokens
from train_plugins.data.fields import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CURE = "remove them from the data, or name another template in `chat_template`"
Turns = Sequence[Mapping[str, Any]]
_MARKER = re.compile(r"\{%-?\s*generation\b")


def has_markers(template: str) -> bool:
    """Whether a chat template marks assistant turns with `{% generation %}`."""
    return _MARKER.search(template) is not None


class Renderer:
    """A tokenizer's chat template with what it is given beside the turns."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tools: Any = None, kwargs: Mapping[str, Any] | None = None,
        template: str | None = None,
    ) -> None:  # fmt: skip
        self.tokenizer = tokenizer
        self.template = template or str(tokenizer.chat_template)
        self.tools = tools or None
        self.kwargs = dict(kwargs or {})
        self._text_arguments = False
        """Whether the template takes a call's arguments as JSON text, as DeepSeek's do."""
        self._environment = "environment" in self.template and not re.search(r"""["']tool["']""", self.template)

    @property
    def marked(self) -> bool:
        """Whether the template has generation markers."""
        return has_markers(self.template)

    def text(self, turns: Turns, prompt: bool = False) -> str:
        """Return the text of the turns; with `prompt`, up to where the assistant's next turn begins."""
        arguments = [call["function"]["arguments"] for turn in turns for call in turn.get("tool_calls") or ()]
        if self._text_arguments or not any(arguments):
            return self._text(turns, prompt)
        try:
            text = self._text(turns, prompt)
        except TypeError:  # of a template that joins the arguments to texts
            return self._with_text_arguments(turns, prompt)
        if any(one and repr(one) in text for one in arguments):  # written as Python writes them, unless a turn says so
            try:
                other = self._with_text_arguments(turns, prompt)
            except Exception:  # a template may raise anything
                return text
            if not any(one and repr(one) in other for one in arguments):
                return other
            self._text_arguments = False
        return text

    def _with_text_arguments(self, turns: Turns, prompt: bool) -> str:
        """Return the text with the arguments of calls as JSON, and keep to it unless that fails too."""
        self._text_arguments = True
        try:
            return self._text(turns, prompt)
        except Exception:
            self._text_arguments = False
            raise

    def _text(self, turns: Turns, prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                self._named(turns), tools=self.tools, tokenize=False, add_generation_prompt=prompt,
                chat_template=self.template, **self.kwargs,
            )
        )  # fmt: skip

    def marks(self, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of the turns and the (start, end) of what the generation markers enclose."""
        from transformers.utils.chat_template_utils import render_jinja_template

        if any(turn.get("tool_calls") for turn in turns):
            self.text(turns)  # finds how the template takes arguments
        turns = [{key: value for key, value in turn.items() if value is not None} for turn in self._named(turns)]
        texts, marks = render_jinja_template(
            conversations=[turns], tools=self.tools, chat_template=self.template, return_assistant_tokens_mask=True,
            add_generation_prompt=False, **{**self.tokenizer.special_tokens_map, **self.kwargs},
        )  # fmt: skip
        return str(texts[0]), [(int(start), int(end)) for start, end in marks[0] if end > start]

    def ignored(self, turns: Turns, text: str) -> str | None:
        """Return "the tools" if the text of the turns is the same without them."""
        if self.tools is None or Renderer(self.tokenizer, None, self.kwargs, self.template).text(turns) != text:
            return None
        return "the tools"

    def _named(self, turns: Turns) -> list[dict[str, Any]]:
        """Return the turns with the name of the role tool that the template knows (OLMo's is `environment`)."""
        other = {"role": "environment"} if self._environment else {}
        named = [{**turn, **(other if turn["role"] == "tool" else {})} for turn in turns]
        if not self._text_arguments:
            return named
        return [
            {**turn, "tool_calls": _texts(turn["tool_calls"])} if turn.get("tool_calls") else turn for turn in named
        ]


def _texts(calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return calls with their arguments as JSON text."""
    functions = [dict(call["function"]) for call in calls]
    for one in functions:
        one["arguments"] = json.dumps(one["arguments"], ensure_ascii=False)
    return [{**call, "function": one} for call, one in zip(calls, functions, strict=True)]


def neutral(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> Conversation:
    """Return the conversation with its control tokens broken, if they are to be encoded as plain text."""
    tokens = control_tokens(tokenizer) if conversation.neutral else None
    if tokens is None:
        return conversation
    messages, tools = broken(conversation.messages, tokens), broken(conversation.tools, tokens)
    return replace(conversation, messages=messages, tools=tools)


def left_out(conversation: Conversation, text: str, last: int) -> str | None:
    """Return what of the turns before `last` and of the tools is not in their rendered text; None if all is.

    Thoughts of earlier assistant turns may be left out on purpose and are not looked for.
    """
    names = {"system": "system turns", "tool": "tool results", "assistant": "assistant turns"}
    for turn in conversation.messages[:last]:
        said = answer_of(turn["content"]) if turn["role"] == "assistant" else turn["content"].strip()
        if not shown(said, text) and not (turn["role"] == "tool" and _written(said, text)):
            return names.get(turn["role"], f"{turn['role']} turns")
        if any(call["function"]["name"] not in text for call in turn.get("tool_calls") or ()):
            return "tool calls"
    if any(tool["function"]["name"] not in text for tool in conversation.tools or ()):
        return "the tools"
    return None


def unsaid(turn: Mapping[str, Any], said: str) -> str | None:
    """Return what of an assistant turn is not in the text that is trained; None if all is."""
    thought, _, _ = turn["content"].rpartition("</think>")
    thoughts = [turn.get("reasoning_content") or "", thought.rpartition("<think>")[2]]
    if not all(shown(one, said) for one in thoughts):
        return "thoughts"
    if not shown(answer_of(turn["content"]), said):
        return "the content of assistant turns" + (" with tool calls" if turn.get("tool_calls") else "")
    if not shown(turn.get("function_calls") or "", said):
        return "tool calls"
    calls = [call["function"] for call in turn.get("tool_calls") or ()]
    for call in calls:
        if said.count(call["name"]) < sum(other["name"] == call["name"] for other in calls):
            return "tool calls"
        if not all(_written(leaf, said) for leaf in _leaves(call["arguments"])):
            return "arguments of tool calls"
    return None


def answer_of(content: str) -> str:
    """Return an assistant's text behind its thought."""
    return content.rpartition("</think>")[2].strip()


def shown(part: str, text: str) -> bool:
    """Whether a text is in another, apart from white space around it and from how lines break."""
    part = part.strip()
    return part in text or part.replace("\r\n", "\n") in text


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value, *(leaf for one in value.values() for leaf in _leaves(one))]
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value]


def _written(leaf: Any, text: str) -> bool:
    """Whether a name or a value of a call's arguments stands in the text, as it is or as JSON writes it."""
    if leaf is None or isinstance(leaf, bool | float):
        return True
    if not isinstance(leaf, str):
        return str(leaf) in text
    forms = [json.dumps(leaf, ensure_ascii=flag)[1:-1] for flag in (False, True)]
    unquoted = forms[0].replace('\\"', '"').replace("\\t", "\t")  # between single quotes, as in calls of a program
    return leaf.strip() in text or any(one in text for one in (*forms, unquoted, unquoted.replace("'", "\\'")))
