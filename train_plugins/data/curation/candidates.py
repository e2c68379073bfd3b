"""Candidate answers to prompts: a completion, its filters and its verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError
from train_plugins.data.curation import text_filters
from train_plugins.data.curation.generation.completions import Ask, Failed
from train_plugins.data.curation.prompt_rows import Prompt
from train_plugins.data.curation.text_filters import TextFilters
from train_plugins.verifiers import Call, Verifiers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from olmes_suite.records import Response

AT_ONCE = 1024
"""Verdicts that are asked for in one call."""
ORIGINAL = "original"
"""The model's name of an answer that the row had already."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer to a prompt."""

    model: str
    sample: int
    text: str = ""
    """The answer without its thought."""
    thinking: str | None = None
    fault: str | None = None
    """Why the answer cannot be used before it is verified; None: it can."""
    detail: str = ""
    verified: float | None = None
    """The verified fraction; None where nothing was verified."""
    tokens: int = 0
    """Tokens of the completion."""

    @property
    def failed(self) -> bool:
        """Whether the model gave no answer at all."""
        return self.fault == "request_failed"


Verify = Callable[[Sequence[tuple[Prompt, str]]], list[float | None]]


def of_response(response: Response | Failed, model: str, sample: int, filters: TextFilters) -> Candidate:
    """Return a completion as a candidate, with the first fault that is found."""
    if isinstance(response, Failed):
        return Candidate(model, sample, fault="request_failed", detail=response.reason)
    text = (response.text or "").strip()
    fault = None
    if response.unclosed:
        fault = "unclosed_thought"
    elif response.finish_reason == "length":
        fault = "cut"
    return Candidate(
        model, sample, text, response.thinking, fault or text_filters.fault(text, filters),
        tokens=response.completion_tokens,
    )  # fmt: skip


def ask_of(prompt: Prompt, sample: int) -> Ask:
    """Return the completion to ask for."""
    return Ask(prompt.messages, sample)


@dataclass(slots=True)
class Verdicts:
    """Keys under `verify` of a recipe, and the verdicts of one command."""

    workers: int = 2
    """Processes that verify."""
    timeout: float = 10.0
    """Processor seconds of a verdict."""
    timeouts: int = field(default=0, init=False)

    @contextmanager
    def started(self, prompts: Iterable[Prompt]) -> Iterator[Verify]:
        """Start the verifiers of the prompts, and yield the function that asks them.

        Raises UsageError, or MissingData without a sandbox for programs, before anything is asked of a model.
        """
        names = sorted({prompt.verifier for prompt in prompts if prompt.verifier is not None})
        if not names:
            yield lambda pairs: [None] * len(pairs)
            return
        with Verifiers(names, self.workers, self.timeout) as verifiers:

            def verify(pairs: Sequence[tuple[Prompt, str]]) -> list[float | None]:
                found: list[float | None] = []
                for start in range(0, len(pairs), AT_ONCE):
                    calls = [_call(prompt, text) for prompt, text in pairs[start : start + AT_ONCE]]
                    found += verifiers.verify(calls)
                self.timeouts = verifiers.timeouts
                return found

            yield verify


def check_verification(workers: int, timeout: float, place: Any) -> None:
    """Raise UsageError for a number of processes below one, or an impossible time limit."""
    if workers < 1:
        raise UsageError(f"{place.at('workers')}: expected a whole number of at least 1, not {workers}")
    if not 0 < timeout < math.inf:
        raise UsageError(f"{place.at('timeout')}: expected seconds above 0, not {timeout:g}")


def _call(prompt: Prompt, text: str) -> Call:
    row = {"prompt": prompt.text, **prompt.columns}
    return Call(str(prompt.verifier), text, prompt.truth, row)
