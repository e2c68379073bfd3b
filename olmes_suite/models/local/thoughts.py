"""Thoughts of a model on this machine: its reader, what its chat template opens, and the reading of its tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.models.local.chat_template import USER, ChatTemplate
from olmes_suite.models.local.tokenizer import Tokenizer
from olmes_suite.records import Request
from olmes_suite.thinking import NONE, Parts, Reader, Thoughts, built_in, check_unclosed, choice_of, names

SWITCHES: tuple[dict[str, Any], ...] = ({"enable_thinking": False}, {"thinking": False})
"""Arguments by which chat templates switch the thought off."""
PREFILL = ("send", "drop", "closed")


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a request is rendered."""

    prefix: str
    """The start of the answer that is sent."""
    arguments: Mapping[str, Any]
    """Arguments of the chat template."""
    opened: bool = False
    """Whether the prompt ends inside a thought."""


@dataclass(frozen=True, slots=True)
class LocalThoughts:
    """The thoughts of a model: how they are read, and how prompts avoid to continue one."""

    thoughts: Thoughts
    found: str
    """Where the reader was found."""
    opened: bool
    """Whether the chat template opens a thought at the end of a prompt."""
    switch: Mapping[str, Any] | None
    """Arguments of the chat template that switch the thought off; None where it cannot."""
    prefill: str
    """What becomes of the start of an answer: it is sent as it is, dropped, or sent after an empty thought (closed)."""
    special: frozenset[int]
    """Special tokens that are no part of a mark, which are left out of texts."""
    marks: frozenset[int]
    """Special tokens that are part of a mark."""
    close: int | None
    """The closing mark, where it is one token."""

    @property
    def reader(self) -> Reader:
        """The reader of the thoughts."""
        return self.thoughts.reader

    def rendering(self, request: Request) -> Rendering:
        """Return how a request is rendered: with the thought switched off where an answer is begun or ranked."""
        prefix = request.prefix
        if request.messages is None:
            return Rendering(prefix, {}, _is_open(self.reader, (request.text or "")[-100:] + prefix))
        if request.kind == "loglikelihood":
            return Rendering(prefix, self.switch or {})
        if prefix and self.opened and self.prefill == "closed":
            return Rendering(prefix, self.switch or {}, _is_open(self.reader, prefix))
        if prefix and self.prefill == "drop":
            prefix = ""
        start = self.reader.open if self.opened else ""
        return Rendering(prefix, {}, _is_open(self.reader, start + prefix))

    def texts(self, tokens: Sequence[int], tokenizer: Tokenizer) -> tuple[str, str]:
        """Return (what the model said, with all special tokens; the text with the marks and no other ones)."""
        said = tokenizer.decode(tokens, skip_special_tokens=False)
        return said, said if self.special.isdisjoint(tokens) else self._decode(tokens, tokenizer)

    def _decode(self, tokens: Sequence[int], tokenizer: Tokenizer) -> str:
        kept = [token for token in tokens if token not in self.special]
        return tokenizer.decode(kept, skip_special_tokens=False)

    def count(self, parts: Parts, text: str, tokens: Sequence[int], tokenizer: Tokenizer) -> int | None:
        """Return the number of tokens of the thought and its marks. `text` is what was read, without an end token."""
        if parts.thinking is None:
            return None
        _, end = self.reader.last_close(text)
        if end < 0:
            before = 0 if parts.thinking == text else max(0, text.find(self.reader.open))
            before = before if text[:before].strip() else 0
            return len(tokens) - self._tokens_to(before, tokens, tokenizer)
        if self.close is not None and text.count(self.reader.close[0]) == tokens.count(self.close):
            return len(tokens) - list(reversed(tokens)).index(self.close)
        return self._tokens_to(end, tokens, tokenizer)

    def _tokens_to(self, characters: int, tokens: Sequence[int], tokenizer: Tokenizer) -> int:
        """Return the smallest number of tokens whose text has so many characters."""
        lengths = range(len(tokens) + 1)
        number = bisect_left(lengths, characters, key=lambda n: len(self._decode(tokens[:n], tokenizer)))
        return min(number, len(tokens))

    def settings(self) -> dict[str, Any]:
        """Return what the model's fingerprint holds of the thoughts."""
        rules: dict[str, Any] = {"prefill": self.prefill} if self.opened else {}
        if self.switch is not None:
            rules["log_likelihood"] = dict(self.switch)
        return self.thoughts.settings() | rules

    def notes(self) -> list[str]:
        """Return lines for the user about the reader and the prompts."""
        reader = self.reader
        lines = [f"the answer is read after the thought, {reader.open} … {reader.close[-1]} "
                 f"(reader {reader.name}, {self.found}; --thinking none: not read)"]  # fmt: skip
        switch = "".join(f"{name}={str(value).lower()}" for name, value in (self.switch or {}).items())
        if self.opened:
            lines.append("its chat template opens the thought: starts of answers " + {
                "send": "are sent inside the thought (--prefill send)",
                "drop": "are dropped from the prompts (--prefill drop)",
                "closed": f"follow an empty thought, with {switch} (--prefill closed)",
            }[self.prefill])  # fmt: skip
        if self.switch:
            lines.append(f"log-likelihoods are asked with the thought switched off ({switch})")
        elif self.switch is None and self.opened:
            lines.append("log-likelihoods are asked inside the thought, which the chat template cannot switch off")
        return lines


def find(
    tokenizer: Tokenizer, template: ChatTemplate | None, *, thinking: object = None, unclosed: str | None = None,
    prefill: str | None = None, arguments: Mapping[str, Any] | None = None,
) -> LocalThoughts | None:  # fmt: skip
    """Return the thoughts of a model; None for a model without marks, and for `none`.

    `thinking` is auto (the default), none, a name or a reader; `arguments` are those of the chat template. Raises
    UsageError for wrong values, and for `closed` where the chat template cannot switch a thought off.
    """
    choice, policy = choice_of(thinking), check_unclosed(unclosed)
    if prefill is not None and prefill not in PREFILL:
        raise UsageError(f"--prefill {prefill}: use one of {', '.join(PREFILL)}")
    tail = _tail(template, arguments or {}) or ""
    found: tuple[Reader, str] | None = None
    if isinstance(choice, Reader):
        found = choice, "as given"
    elif choice != NONE:
        found = detect(template.text if template else "", tail, _added(tokenizer))
    if found is not None:
        return _of(tokenizer, template, Thoughts(found[0], policy), found[1], tail, prefill)
    if prefill == "closed":
        raise UsageError("--prefill closed: needs a model whose thoughts are read; use drop or send")
    return None


def _of(
    tokenizer: Tokenizer, template: ChatTemplate | None, thoughts: Thoughts, found: str, tail: str, prefill: str | None
) -> LocalThoughts:
    reader = thoughts.reader
    opened = template is not None and (
        _is_open(reader, tail) if reader.template_opens is None else reader.template_opens
    )
    switch = _switch(reader, template, tail, opened) if template else None
    if prefill == "closed" and switch is None:
        raise UsageError("--prefill closed: the chat template cannot switch the thought off; use drop or send")
    default = ("closed" if switch is not None else "drop") if opened else "send"
    ids = tokenizer(list(reader.marks), add_special_tokens=False)["input_ids"]
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if getattr(added, "special", False)}
    special |= set(tokenizer.all_special_ids)
    marks = special & {token for mark in ids for token in mark}
    closing = tokenizer(list(reader.close), add_special_tokens=False)["input_ids"]
    close = closing[0][0] if len(closing) == 1 and len(closing[0]) == 1 else None
    return LocalThoughts(
        thoughts, found, opened, switch, prefill or default, frozenset(special - marks), frozenset(marks), close
    )


def detect(template: str, tail: str, added: Collection[str]) -> tuple[Reader, str] | None:
    """Return a shipped reader and where its marks stand: in the prompt's end, in the chat template, or as tokens.

    `tail` is the end of a rendered prompt, after the user's message; `added` are the texts of added tokens.
    """
    readers = [built_in(name) for name in names()]
    for text, where in ((tail, "from the rendered chat template"), (template, "from the chat template")):
        for reader in readers:
            if any(mark in text for mark in (reader.open, *reader.close)):
                return reader, where
    for reader in readers:
        if {reader.open, *reader.close} <= set(added):
            return reader, "from the tokenizer's tokens"
    return None


def _added(tokenizer: Tokenizer) -> list[str]:
    return [str(token) for token in tokenizer.added_tokens_decoder.values()]


def _tail(template: ChatTemplate | None, arguments: Mapping[str, Any]) -> str | None:
    """Return the end of a rendered prompt after the user's text; None where the template raises."""
    if template is None:
        return None
    try:
        return template.apply([{"role": "user", "content": USER}], arguments=arguments).rpartition(USER)[2]
    except Exception:  # a template is a program, which may raise anything
        return None


def _switch(reader: Reader, template: ChatTemplate, tail: str, opened: bool) -> Mapping[str, Any] | None:
    """Return the arguments with which the template closes an empty thought, or does not open one."""
    if not opened and reader.last_close(tail)[0] >= 0:
        return {}  # already off
    for arguments in SWITCHES:
        off = _tail(template, arguments)
        if off is None or off == tail or _is_open(reader, off):
            continue
        if opened or reader.last_close(off)[0] >= 0:
            return arguments
    return None


def _is_open(reader: Reader, text: str) -> bool:
    """Return whether a prompt with this end opens a thought."""
    return text.rfind(reader.open) > reader.last_close(text)[0]
