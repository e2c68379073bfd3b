"""How a tokenizer's chat template is used: found out by rendering short conversations when the model is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from olmes_suite.errors import ModelError, first_line
from olmes_suite.models.local.tokenizer import Tokenizer

USER = "Hello from the user"
SYSTEM = "Hello from the system"
ASSISTANT = "Hello from the assistant"
DATE = datetime(2024, 7, 26)
"""The date that templates see which read the clock: the default of Llama 3's template. Prompts do not change by day."""
CLOCK = "strftime_now"
"""The function by which transformers gives templates the time."""

CALL = re.compile(CLOCK + r"""\(\s*(["'])(.*?)\1\s*\)""")

Message = dict[str, Any]


class ChatTemplate:
    """A chat template that loses no text: probed with short messages, and adapted to what it takes.

    Raises ModelError where the template cannot render a user's message, or leaves out its text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.text = str(tokenizer.chat_template)
        self.reads_clock = f"{CLOCK}(" in self.text
        if self.reads_clock:
            self.text = without_clock(self.text)
        self.parts = False
        """The template takes contents as lists of parts, not as text."""
        self.takes_system = True
        """False: a system message goes to the start of the first user turn."""
        self._probe_user()
        self._probe_system()

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
        except Exception:  # as above; what it says of a plain text is more to the point
            pass
        raise ModelError(
            f"the chat template cannot be rendered ({reason}); give another with --chat-template FILE"
        ) from None

    def _probe_system(self) -> None:
        try:
            text = self.apply([_message("system", SYSTEM), _message("user", USER)])
        except Exception:  # Gemma's raises for the role
            self.takes_system = False
        else:
            self.takes_system = SYSTEM in text

    def apply(self, messages: Sequence[Message], prompt: bool = True) -> str:
        """Render messages; `prompt`: up to where the assistant's answer starts."""
        adapted = list(messages) if self.takes_system else _into_user_turn(messages)
        if self.parts:
            adapted = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in adapted]
        template = self.text if self.reads_clock else None
        rendered = self.tokenizer.apply_chat_template(
            adapted, chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
        return str(rendered)

    def turn_end(self) -> int | None:
        """Return the special or added token that the template writes after an assistant's turn, or None."""
        try:
            text = self.apply([_message("user", USER), _message("assistant", ASSISTANT)], prompt=False)
        except Exception:  # a template that renders no answers
            return None
        _, found, tail = text.rpartition(ASSISTANT)
        if not found:
            return None
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        ids = self.tokenizer([tail], add_special_tokens=False)["input_ids"][0]
        return next((token for token in ids if token in special), None)

    def settings(self) -> dict[str, str]:
        """Return what the fingerprint of a model holds beside its template; nothing for most templates."""
        found = {}
        if self.parts:
            found["content"] = "parts"
        if not self.takes_system:
            found["system"] = "first user turn"
        if self.reads_clock:
            found["date"] = DATE.date().isoformat()
        return found

    def notes(self) -> list[str]:
        """Return lines for the user."""
        lines = []
        if self.parts:
            lines.append("the chat template takes contents as parts; texts are given to it as such")
        if not self.takes_system:
            lines.append("the chat template takes no system message; its text goes to the start of the first user turn")
        if self.reads_clock:
            lines.append(f"the chat template reads the clock; it sees the date {DATE.date().isoformat()}")
        return lines


def without_clock(template: str) -> str:
    """Write `DATE` into a template in place of the time; transformers lets no function of ours be given to it.

    A call with another argument than a literal text gives the date in ISO form.
    """
    text = CALL.sub(lambda call: repr(DATE.strftime(call[2])), template)
    if f"{CLOCK}(" not in text:
        return text
    return f"{{%- macro {CLOCK}(format) -%}}{DATE.date().isoformat()}{{%- endmacro -%}}{text}"


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _into_user_turn(messages: Sequence[Message]) -> list[Message]:
    """Put a leading system message before the text of the first user turn, a blank line between them."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, rest = messages[0]["content"], list(messages[1:])
    if not rest or rest[0]["role"] != "user":
        return [_message("user", system), *rest]
    return [_message("user", f"{system}\n\n{rest[0]['content']}"), *rest[1:]]
