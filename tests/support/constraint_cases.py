"""Documents that ask for constraints, and asking a checker itself."""

from __future__ import annotations

from typing import Any

from olmes_suite.constraints.registry import Profile, find

PROFILES: tuple[Profile, ...] = ("reference", "repaired")
ADDED = (
    "count:keywords_multiple", "count:words_japanese", "format:no_whitespace", "format:output_template",
    "format:title_case", "repeat:repeat_change", "repeat:repeat_simple", "repeat:repeat_span",
    "words:keywords_specific_position", "words:words_position",
)  # fmt: skip
"""Repaired constraints that the reference does not have."""


def document(*named: tuple[str, dict[str, Any]], prompt: str = "Say something.") -> dict[str, Any]:
    """A document that asks for these constraints, given by name and arguments."""
    return {
        "key": "1",
        "prompt": prompt,
        "instruction_id_list": [name for name, _ in named],
        "kwargs": [arguments for _, arguments in named],
    }


def follows(name: str, profile: Profile, response: str, **arguments: Any) -> bool:
    """Ask a checker itself."""
    entry = find(name, profile)
    assert entry is not None
    return entry.check(response, **arguments)
