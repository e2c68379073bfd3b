"""prompts.json: the first prompt of each task of a run, as the model received it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmes_suite.files import write_json
from olmes_suite.runs.schema.record import OPTIONAL, SCHEMA, Record, read_record

PROMPTS = "prompts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPrompt(Record):
    """The first request of a task's first document."""

    doc_id: int
    """Row of the evaluation split, from 0."""
    rendered: str | None = None
    """The text after the chat template, before any cut to the context; null where a server renders the messages."""
    prompt_tokens: int | None = None
    """Number of token ids that the model received; null where only the server knows it."""
    truncated: bool = field(default=False, metadata=OPTIONAL)
    """The prompt did not fit the context and was cut on the left."""
    messages: tuple[Mapping[str, Any], ...] | None = field(default=None, metadata=OPTIONAL)
    """The messages as sent to a server."""
    continuation: str | None = field(default=None, metadata=OPTIONAL)
    """The first continuation of a log-likelihood task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts(Record):
    """The content of prompts.json. A run of a backend without a model has no such file."""

    schema: str = SCHEMA
    run: str
    tasks: Mapping[str, FirstPrompt] = field(default_factory=dict)
    """Task, or sub-task of a group, to its first prompt."""


def read_prompts(run: Path) -> Prompts | None:
    """Read the first prompts of a run's folder; None for a run without them.

    Raises DataError for a damaged file, UsageError for a newer major version.
    """
    return read_record(Prompts, run / PROMPTS) if (run / PROMPTS).is_file() else None


def write_prompts(run: Path, prompts: Prompts) -> None:
    """Write the first prompts of a run's folder atomically."""
    write_json(run / PROMPTS, prompts.as_json())
