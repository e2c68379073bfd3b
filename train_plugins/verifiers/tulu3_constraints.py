"""The 25 constraints of Tülu 3's RLVR data (`func_name` and its arguments) as instructions of IFEval.

Names and arguments: allenai/RLVR-GSM-MATH-IF-Mixed-Constraints and open-instruct's `if_functions.py`. There each name
has a function, which differs from IFEval's checker in details (it counts substrings as forbidden words, letters by
case, ...). Here each name maps to the instruction of IFEval that it derives from, and the evaluator's checker checks
it. IFEval knows only "at least" and "less than": an exact number becomes both, "around" becomes a range.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from olmes_suite.tasks.index import nearest
from train_plugins.verifiers.base import Malformed, shown

Condition = tuple[str, dict[str, Any]]
"""An instruction of IFEval and its arguments."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The condition that the response contains one of the options; IFEval's instruction has three fixed ones."""

    options: tuple[str, ...]

    def followed(self, text: str) -> bool:
        """Return whether the text contains an option, case-sensitively, and not as a part of a longer word."""
        return any(re.search(rf"(?<!\w){re.escape(option.strip())}(?!\w)", text) for option in self.options)


def conditions(constraint: Mapping[str, Any]) -> list[Condition] | Choice:
    """Return the conditions of a constraint, all of which must hold.

    Raises Malformed for an unknown name or a missing argument.
    """
    name = constraint["func_name"]
    if not isinstance(name, str) or name not in _TABLE:
        raise Malformed(f"unknown func_name {shown(name)}{nearest(str(name), sorted(_TABLE))}")
    return _TABLE[name](_Arguments(name, constraint))


@dataclass(frozen=True, slots=True)
class _Arguments:
    name: str
    values: Mapping[str, Any]

    def number(self, key: str, least: int = 0) -> int:
        value = self.values.get(key)
        try:
            number = int(value)  # type: ignore[arg-type]
            if isinstance(value, bool) or number != float(value) or number < least:  # type: ignore[arg-type]
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise Malformed(
                f"{self.name}: {key} must be a whole number of at least {least}, not {shown(value)}"
            ) from None
        return number

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise Malformed(f"{self.name}: {key} must be text, not {shown(value)}")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.values.get(key)
        items: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
        if not items or not all(isinstance(item, str) and item.strip() for item in items):
            raise Malformed(f"{self.name}: {key} must be a list of texts, not {shown(value)}")
        return items

    def letter(self) -> str:
        value = self.text("letter").strip()
        if len(value) != 1 or not "a" <= value.lower() <= "z":  # IFEval's checker would replace it by a random letter
            raise Malformed(f"{self.name}: letter must be one letter from a to z, not {shown(value)}")
        return value


def _range(
    instruction: str, values: Mapping[str, Any], *, count: str, relation: str, low: int, high: int | None = None
) -> list[Condition]:
    """Return the conditions for a number from `low` to `high`; `count` and `relation` name the arguments."""
    bounds = [(low, "at least")] if low > 0 else []
    bounds += [(high + 1, "less than")] if high is not None else []
    return [(instruction, {**values, count: number, relation: how}) for number, how in bounds]


def _exactly(instruction: str, count: str, relation: str, values: Callable[[_Arguments], dict[str, Any]]
) -> Callable[[_Arguments], list[Condition]]:  # fmt: skip
    def read(arguments: _Arguments) -> list[Condition]:
        number = arguments.number("N")
        return _range(instruction, values(arguments), count=count, relation=relation, low=number, high=number)

    return read


def _quantified(instruction: str, count: str, relation: str, slack: Callable[[int], int]
) -> Callable[[_Arguments], list[Condition]]:  # fmt: skip
    def read(arguments: _Arguments) -> list[Condition]:
        number, how = arguments.number("N"), arguments.text("quantifier")
        room = slack(number)
        bounds = {"at least": (number, None), "at most": (0, number), "around": (number - room, number + room)}
        if how not in bounds:
            raise Malformed(f"{arguments.name}: quantifier must be one of {', '.join(bounds)}, not {shown(how)}")
        low, high = bounds[how]
        return _range(instruction, {}, count=count, relation=relation, low=low, high=high)

    return read


def _one(instruction: str, **keys: Callable[[_Arguments], Any]) -> Callable[[_Arguments], list[Condition]]:
    return lambda arguments: [(instruction, {key: read(arguments) for key, read in keys.items()})]


def _tenth(number: int) -> int:
    """Return the slack of "around" for words: a tenth, but at least one."""
    return max(round(number * 0.1), 1)


def _number(key: str) -> Callable[[_Arguments], int]:
    return lambda arguments: arguments.number(key, 1)


def _text(key: str) -> Callable[[_Arguments], str]:
    return lambda arguments: arguments.text(key)


def _texts(key: str) -> Callable[[_Arguments], list[str]]:
    return lambda arguments: arguments.texts(key)


_TABLE: dict[str, Callable[[_Arguments], list[Condition] | Choice]] = {
    "verify_keywords": _one("keywords:existence", keywords=_texts("keyword_list")),
    "verify_keyword_frequency": _exactly(
        "keywords:frequency", "frequency", "relation", lambda a: {"keyword": a.text("word")}
    ),
    "validate_forbidden_words": _one("keywords:forbidden_words", forbidden_words=_texts("forbidden_words")),
    "verify_letter_frequency": _exactly(
        "keywords:letter_frequency", "let_frequency", "let_relation", lambda a: {"letter": a.letter()}
    ),
    "validate_response_language": _one("language:response_language", language=_text("language")),
    "verify_paragraph_count": _one("length_constraints:number_paragraphs", num_paragraphs=_number("N")),
    "validate_word_constraint": _quantified("length_constraints:number_words", "num_words", "relation", _tenth),
    "verify_sentence_constraint": _quantified(
        "length_constraints:number_sentences", "num_sentences", "relation", lambda number: 1
    ),
    "validate_paragraphs": _one(
        "length_constraints:nth_paragraph_first_word",
        num_paragraphs=_number("N"), nth_paragraph=_number("i"), first_word=_text("first_word"),
    ),
    "verify_postscript": _one("detectable_content:postscript", postscript_marker=_text("postscript_marker")),
    "validate_placeholders": _one("detectable_content:number_placeholders", num_placeholders=_number("N")),
    "verify_bullet_points": _one("detectable_format:number_bullet_lists", num_bullets=_number("N")),
    "validate_title": _one("detectable_format:title"),
    "validate_choice": lambda a: Choice(tuple(a.texts("options"))),
    "validate_highlighted_sections": _one("detectable_format:number_highlighted_sections", num_highlights=_number("N")),
    "validate_sections": _one(
        "detectable_format:multiple_sections", section_spliter=_text("section_splitter"), num_sections=_number("N")
    ),
    "validate_json_format": _one("detectable_format:json_format"),
    "validate_repeat_prompt": _one("combination:repeat_prompt", prompt_to_repeat=_text("original_prompt")),
    "validate_two_responses": _one("combination:two_responses"),
    "validate_uppercase": _one("change_case:english_capital"),
    "validate_lowercase": _one("change_case:english_lowercase"),
    "validate_frequency_capital_words": _quantified(
        "change_case:capital_word_frequency", "capital_frequency", "capital_relation", _tenth
    ),
    "validate_end": _one("startend:end_checker", end_phrase=_text("end_phrase")),
    "validate_quotation": _one("startend:quotation"),
    "validate_no_commas": _one("punctuation:no_comma"),
}  # fmt: skip
