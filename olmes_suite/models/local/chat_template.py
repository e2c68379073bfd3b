"""The use of a tokenizer's chat template, determined by rendering short conversations when the model is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from olmes_suite.errors import ModelError, first_line
from olmes_suite.models.local.tokenizer import Tokenizer
from olmes_suite.records import canonical_json

USER = "Hello from the user"
SYSTEM = "Hello from the system"
ASSISTANT = "Hello from the assistant"
EARLIER = "An earlier question"
DATE = datetime(2024, 7, 26)
"""The date for templates that read the clock, so that prompts do not change by day: Llama 3's default."""
CLOCK = "strftime_now"
"""The function by which templates of transformers read the time."""

DIRECTIVES = (*(f"-{letter}" for letter in "dmyHIMSj"), *"aAbBcdDeFHhIjmMpRSTuUwVWxXyYZz")
"""The parts of a format of strftime that have a value."""
CALL = re.compile(CLOCK + r"""\(\s*(["'])(.*?)\1\s*\)""")

Message = dict[str, Any]


class ChatTemplate:
    """A chat template, probed with short messages and adapted to the messages that it takes, so that no text is lost.

    Raises ModelError where the template cannot render a user's message or leaves out its text.
    """

    def __init__(self, tokenizer: Tokenizer, arguments: Mapping[str, Any] | None = None) -> None:
        """Probe the template, which gets `arguments` (enable_thinking, …) in each rendering."""
        self.tokenizer, self.arguments = tokenizer, dict(arguments or {})
        self.text = str(tokenizer.chat_template)
        self.reads_clock = f"{CLOCK}(" in self.text
        if self.reads_clock:
            self.text = without_clock(self.text)
        self.parts = False
        """Whether the template takes contents as lists of parts instead of text."""
        self.takes_system = True
        """Whether the template takes system messages; otherwise they move to the start of the first user turn."""
        self.lost: str | None = None
        """The turns of a longer conversation that the template leaves out; None for a template that renders all."""
        self._probe_user()
        self._probe_system()
        self._probe_turns()

    def _probe_user(self) -> None:
        try:
            if USER in self.apply([_message("user", USER)]):
                return
        except Exception as error:  # a template is a program, which may raise anything
            reason = first_line(error)
        else:
            reason = "it leaves out the message's text"
        try:
            self.parts = True
            if USER in self.apply([_message("user", USER)]):
                return
        except Exception:  # as above; the reason for plain text is more useful
            pass
        raise ModelError(
            f"the chat template cannot be rendered ({reason}); give another one with --chat-template FILE"
        ) from None

    def _probe_system(self) -> None:
        try:
            text = self.apply([_message("system", SYSTEM), _message("user", USER)])
        except Exception:  # Gemma's template raises for the role
            self.takes_system = False
        else:
            self.takes_system = SYSTEM in text and USER in text

    def _probe_turns(self) -> None:
        turns = [_message("user", EARLIER), _message("assistant", ASSISTANT), _message("user", USER)]
        try:
            text = self.apply(turns)
        except Exception:  # refused again, with its reason, where a task has several turns
            return
        if USER not in text:
            self.lost = "the last turn"
        elif EARLIER not in text or ASSISTANT not in text:
            self.lost = "earlier turns"

    def apply(
        self, messages: Sequence[Message], prompt: bool = True, arguments: Mapping[str, Any] | None = None
    ) -> str:
        """Render messages, with `prompt` up to the start of the assistant's answer.

        `arguments` are further arguments of the template.
        """
        adapted = list(messages) if self.takes_system else _into_user_turn(messages)
        if self.parts:
            adapted = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in adapted]
        template = self.text if self.reads_clock else None
        rendered = self.tokenizer.apply_chat_template(
            adapted,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompt,
            **{**self.arguments, **(arguments or {})},
        )
        return str(rendered)

    def turn_end(self) -> int | None:
        """Return the special or added token that the template writes after an assistant's turn, or None."""
        try:
            text = self.apply([_message("user", USER), _message("assistant", ASSISTANT)], prompt=False)
        except Exception:  # the template cannot render answers
            return None
        _, separator, tail = text.rpartition(ASSISTANT)
        if not separator:
            return None
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        ids = self.tokenizer([tail], add_special_tokens=False)["input_ids"][0]
        return next((token for token in ids if token in special), None)

    def missing_start(self) -> str | None:
        """Return what the template writes before an assistant's text and not at the end of a prompt; None for nothing.

        Templates that only mark the end of the user's turn, such as Llama 2's, write nothing there.
        """
        user, assistant = _message("user", USER), _message("assistant", ASSISTANT)
        try:
            prompt, closed = self.apply([user]), self.apply([user], prompt=False)
            whole = self.apply([user, assistant], prompt=False)
        except Exception:  # the template cannot render answers
            return None
        before, separator, _ = whole.partition(ASSISTANT)
        if len(prompt) > len(closed) or not separator or not before.startswith(prompt):
            return None
        return before[len(prompt) :].strip() or None

    def settings(self) -> dict[str, str]:
        """Return the adaptations for the model's fingerprint; most templates need none."""
        adaptations = {}
        if self.parts:
            adaptations["content"] = "parts"
        if not self.takes_system:
            adaptations["system"] = "first user turn"
        if self.reads_clock:
            adaptations["date"] = DATE.date().isoformat()
        if self.arguments:
            adaptations["arguments"] = canonical_json(self.arguments)
        return adaptations

    def unknown_arguments(self) -> list[str]:
        """Return the arguments whose value makes no difference to short conversations.

        Each is left out and replaced by another value, since the given one may be the template's default.
        """
        given, rendered = self.arguments, self._renderings()
        unknown = []
        try:
            for name in given:
                rest = {other: value for other, value in given.items() if other != name}
                another = not given[name] if isinstance(given[name], bool) else f"{given[name]}?"
                if all(self._with(arguments) == rendered for arguments in (rest, {**rest, name: another})):
                    unknown.append(name)
        finally:
            self.arguments = given
        return unknown

    def _with(self, arguments: dict[str, Any]) -> list[str | None]:
        self.arguments = arguments
        return self._renderings()

    def _renderings(self) -> list[str | None]:
        """Return what short conversations become, None for one that the template refuses."""
        turns = [_message("user", USER), _message("assistant", ASSISTANT), _message("user", USER)]
        rendered: list[str | None] = []
        for messages in (turns[:1], [_message("system", SYSTEM), *turns]):
            try:
                rendered.append(self.apply(messages))
            except Exception:  # a template is a program, which may raise anything
                rendered.append(None)
        return rendered

    def notes(self) -> list[str]:
        """Return lines for the user about the adaptations."""
        lines = [
            f"--chat-template-args {name}={value_of(self.arguments[name])}: the chat template does not use it"
            for name in self.unknown_arguments()
        ]
        if self.parts:
            lines.append("the chat template takes contents as lists of parts; texts are passed in this form")
        if not self.takes_system:
            lines.append("the chat template takes no system message; its text goes to the start of the first user turn")
        if start := self.missing_start():
            lines.append(
                f"the chat template does not start the assistant's turn ({start!r}) at the end of a prompt: the "
                "model has to write it; give a corrected template with --chat-template FILE"
            )
        if self.reads_clock:
            lines.append(f"the chat template reads the clock; it sees the date {DATE.date().isoformat()}")
        return lines


def value_of(value: object) -> str:
    """Return the value of an argument as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def without_clock(template: str) -> str:
    """Replace the time in a template by `DATE`, since transformers does not accept another function for the time.

    Calls with a literal format are replaced; a macro takes the place of the function for all others.
    """
    text = CALL.sub(lambda call: repr(DATE.strftime(call[2])), template)
    if CLOCK not in text:
        return text
    parts = "".join(f"|replace('%{part}', {DATE.strftime(f'%{part}')!r})" for part in DIRECTIVES)
    kept = "format|replace('%%', '\\0')"  # a percent sign of its own
    return f"{{%- macro {CLOCK}(format) -%}}{{{{ {kept}{parts}|replace('\\0', '%') }}}}{{%- endmacro -%}}{text}"


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _into_user_turn(messages: Sequence[Message]) -> list[Message]:
    """Move a leading system message before the text of the first user turn, separated by a blank line."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, rest = messages[0]["content"], list(messages[1:])
    if not rest or rest[0]["role"] != "user":
        return [_message("user", system), *rest]
    return [_message("user", f"{system}\n\n{rest[0]['content']}"), *rest[1:]]
