"""Templates of prompts by skill: YAML files with texts, a label and examples, shipped or the user's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError, nearest
from olmes_suite.yaml_files import Place

SHIPPED = Path(__file__).parent
PERSONA = "{persona}"
_NEXT = re.compile(r"^\s*\W{0,3}(?:solution|answer|explanation|hint|note)s?\W{0,3}:", re.IGNORECASE | re.MULTILINE)
"""The start of what a model adds to a prompt."""
_QUOTES = (("“", "”"), ('"', '"'), ("«", "»"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The templates of one skill."""

    skill: str
    label: str
    """The word at the start of the model's answer, which is removed."""
    texts: tuple[str, ...]
    """What the model is asked, with `{persona}`; each prompt draws one."""
    seeds: tuple[str, ...] = ()
    """Examples of prompts; each request shows `few_shot` of them."""
    about: str = ""
    least_words: int = 1
    most_words: int = 400
    constraints: bool = False
    """Whether verifiable constraints are added to the prompt."""


def names() -> list[str]:
    """Return the names of the shipped templates."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def find(name: str, place: Place) -> Template:
    """Return the shipped template of a skill, or that of a YAML file. Raises UsageError."""
    if name in names():
        return _read(SHIPPED / f"{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        file = Path(name).expanduser()
        if not file.is_file():
            raise UsageError(f"{place}: {name}: no such file")
        return _read(file)
    known = ", ".join(names())
    raise UsageError(f"{place}: unknown skill {name!r}{nearest(name, names())}; known: {known}, or a YAML file")


def asked(template: Template, text: str, persona: str, examples: Sequence[str]) -> str:
    """Return the request to the model for one prompt."""
    shown = [f"Begin your answer with {template.label!r} and write nothing before or after the text itself."]
    if examples:
        shown = [
            "Texts of this kind, as examples of form and difficulty; yours has another subject:",
            *(f"{template.label} {example}" for example in examples),
            *shown,
        ]
    return "\n\n".join([text.replace(PERSONA, persona).strip(), *shown])


def parsed(template: Template, text: str) -> str | None:
    """Return the prompt after the label, without what follows it; None where the label is missing.

    A second label ends the prompt: small models go on with another one, as in the examples that they were shown.
    Markdown around the label, and quotation marks around the whole prompt, are removed.
    """
    word = re.escape(template.label.rstrip(": "))
    marked = rf"^[*_#>\s]{{0,6}}{word}[*_\s]{{0,3}}:[*_]{{0,3}}\s*"
    _, *parts = re.split(marked, text, flags=re.IGNORECASE | re.MULTILINE)
    if not parts:
        return None
    rest = next((part for part in parts if part.strip()), "")
    if after := _NEXT.search(rest):
        rest = rest[: after.start()]
    rest = rest.strip()
    for start, end in _QUOTES:
        if len(rest) > 2 and rest.startswith(start) and rest.endswith(end) and end not in rest[1:-1]:
            rest = rest[1:-1].strip()
    return rest


@lru_cache(maxsize=64)
def _read(file: Path) -> Template:
    source = yaml_files.read(file, "template")
    template: Template = yaml_files.typed(Template, source.data, Place(str(file), file=source))
    if not template.texts or any(PERSONA not in text for text in template.texts):
        raise UsageError(f"{file}: texts: each text has to contain {PERSONA}")
    if not template.label.strip():
        raise UsageError(f"{file}: label: must not be empty")
    if not 1 <= template.least_words <= template.most_words:
        raise UsageError(f"{file}: least_words {template.least_words} and most_words {template.most_words} fit no text")
    return template
