"""Filters of a mix: each returns why a row is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from train_plugins.data.curation import text_filters
from train_plugins.data.curation.mix.convert import turns_in
from train_plugins.data.curation.mix.keys import Filters
from train_plugins.data.messages import UnclosedThought

Verdict = tuple[str, str]
"""Name of the filter, and what it found."""
UNCLOSED = ("closed_thoughts", "a <think> without </think>")
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a converted row that its filters need besides the text."""

    turns: int
    """User and assistant turns."""
    tokens: int
    answers: tuple[int, ...]
    """Tokens of the last assistant turn; of both answers of a pair."""
    thoughts: bool
    tools: bool


class Sieve:
    """The filters of a source: those of the recipe, then its own."""

    def __init__(self, *filters: Filters) -> None:
        self._filters = filters
        self._match = [re.compile(one.match) for one in filters if one.match is not None]
        self._exclude = [re.compile(pattern) for one in filters for pattern in one.exclude]
        self._text = any(
            one.repetition or one.refusal or one.meta or one.closed_thoughts or one.max_chinese is not None
            or one.language is not None
            for one in filters
        )  # fmt: skip

    def of_fault(self, error: ValueError) -> Verdict | None:
        """Return the filter that leaves out a row which cannot be converted; None: the row is a bad one."""
        wanted = any(one.closed_thoughts for one in self._filters)
        return UNCLOSED if wanted and isinstance(error, UnclosedThought) else None

    def of_columns(self, row: Mapping[str, Any]) -> Verdict | None:
        """Return why the source's row is left out, by the values of its columns."""
        for one in self._filters:
            for column, wanted in one.where.items():
                value = row.get(column)
                if value not in wanted if isinstance(wanted, list) else value != wanted:
                    return "where", f"{column} is {value!r:.60}"
        return None

    def __call__(self, row: Mapping[str, Any], facts: Facts) -> Verdict | None:
        """Return why a converted row is left out; None to keep it."""
        for one in self._filters:
            if found := _of_facts(one, facts):
                return found
        if not (self._match or self._exclude or self._text):
            return None
        said = [(str(turn["role"]), str(turn.get("content") or "")) for turn in turns_in(row)]
        for pattern in self._match:
            if not any(pattern.search(text) for _, text in said):
                return "match", pattern.pattern
        for pattern in self._exclude:
            if any(pattern.search(text) for _, text in said):
                return "exclude", pattern.pattern
        for one in self._filters:
            if found := _of_text(one, said):
                return found
        return None


def _of_facts(one: Filters, facts: Facts) -> Verdict | None:
    limits: tuple[tuple[str, int, int | None, Callable[[int, int], bool]], ...] = (
        ("min_turns", facts.turns, one.min_turns, int.__lt__), ("max_turns", facts.turns, one.max_turns, int.__gt__),
        ("min_tokens", facts.tokens, one.min_tokens, int.__lt__),
        ("max_tokens", facts.tokens, one.max_tokens, int.__gt__),
        ("min_answer_tokens", facts.answers[0], one.min_answer_tokens, int.__lt__),
        ("max_answer_tokens", facts.answers[0], one.max_answer_tokens, int.__gt__),
        ("max_length_difference", abs(facts.answers[0] - facts.answers[-1]), one.max_length_difference, int.__gt__),
    )  # fmt: skip
    for name, value, limit, beyond in limits:
        if limit is not None and beyond(value, limit):
            return name, str(value)
    for name, has, wanted in (("thoughts", facts.thoughts, one.thoughts), ("tools", facts.tools, one.tools)):
        if wanted != "any" and has != (wanted == "only"):
            return name, "has some" if has else "has none"
    return None


def _of_text(one: Filters, said: list[tuple[str, str]]) -> Verdict | None:
    answers = [text for role, text in said if role == "assistant"]
    if one.closed_thoughts and any(text.count("<think>") > text.count("</think>") for text in answers):
        return UNCLOSED
    if one.max_chinese is not None:
        text = "".join(text for _, text in said)
        share = len(_CHINESE.findall(text)) / max(len(text), 1)
        if share > one.max_chinese:
            return "max_chinese", f"{share:.3f}"
    for name in ("refusal", "meta"):
        if getattr(one, name) and any(text_filters.has_phrase(text, name) for text in answers):
            return name, ""
    if one.repetition and any(map(text_filters.repeats, answers)):
        return "repetition", ""
    if one.language is not None:
        found = text_filters.languages_of("\n".join(text for _, text in said))
        if found and one.language not in found:
            return "language", found[0]
    return None
