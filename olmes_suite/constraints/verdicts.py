"""Verdicts of a document's constraints on a response, strict and loose, and the metrics of IFEval."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.constraints.loose import loose_variants
from olmes_suite.constraints.registry import Constraint, Profile, find
from olmes_suite.errors import MissingData, OlmesError
from olmes_suite.records import Scored

CHECKER_ERROR = "checker_error"
"""Flags a document with a checker that raised on its response."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of one constraint on a response."""

    name: str
    strict: bool
    loose: bool
    error: str | None
    """The checker's exception, on the response, or on a loose variant where no variant follows the constraint."""


def named(doc: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the document's constraints as (name, arguments as in the data)."""
    for name, arguments in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
        yield name, dict(arguments or {})


def needs(doc: Mapping[str, Any], profile: Profile) -> set[str]:
    """Return the names in `olmes_suite.scoring.language_resources` that the document's checkers read."""
    entries = (find(name, profile) for name, _ in named(doc))
    return {need for entry in entries if entry is not None for need in entry.needs}


def verdicts(doc: Mapping[str, Any], response: str, profile: Profile) -> list[Verdict]:
    """Return one verdict for each of the document's constraints. Raises MissingData where a checker lacks its data.

    Parameters that the reference draws at random come from a generator seeded by the document, and are equal in the
    strict and the loose reading; in the reference itself they differ between runs and between the two readings.
    """
    rng, results = random.Random(f"constraints {doc['key']}"), []
    for name, given in named(doc):
        entry = find(name, profile)
        if entry is None:
            results.append(Verdict(name, False, False, f"profile {profile} has no checker of this name"))
            continue
        try:
            arguments = entry.arguments(given, str(doc["prompt"]), rng)
        except Exception as error:  # an impossible draw raises the reference's own exception
            results.append(Verdict(name, False, False, _line(error)))
            continue
        results.append(_verdict(entry, arguments, response))
    return results


def _verdict(entry: Constraint, arguments: Mapping[str, Any], response: str) -> Verdict:
    strict, strict_error = _follows(entry, response, arguments)
    loose, loose_error = strict, None
    for variant in dict.fromkeys(loose_variants(response)[1:]):
        if not loose and variant != response:
            loose, error = _follows(entry, variant, arguments)
            loose_error = loose_error or error
    return Verdict(entry.name, strict, loose, strict_error or (None if loose else loose_error))


def _follows(entry: Constraint, text: str, arguments: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Return whether the text follows the constraint, and the checker's exception. Blank text follows no constraint."""
    if not text.strip():
        return False, None
    try:
        return bool(entry.check(text, **arguments)), None
    except OlmesError:
        raise
    except ImportError as error:  # the fault of this installation, not of the response
        raise MissingData(f"{entry.name}: {error}; install olmes-suite with all its dependencies") from None
    except Exception as error:  # the exception is recorded, and the constraint counts as not followed
        return False, _line(error)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def scored(doc: Mapping[str, Any], response: str, profile: Profile) -> Scored:
    """Score a response by the four accuracies of IFEval. `extracted` holds the verdict of each constraint as JSON.

    `inst_level_*` are means over the document's constraints, and their number is the document's weight.
    """
    results = verdicts(doc, response, profile)
    return Scored(
        {
            "prompt_level_strict_acc": float(all(verdict.strict for verdict in results)),
            "inst_level_strict_acc": sum(verdict.strict for verdict in results) / len(results),
            "prompt_level_loose_acc": float(all(verdict.loose for verdict in results)),
            "inst_level_loose_acc": sum(verdict.loose for verdict in results) / len(results),
        },
        extracted=report(results),
        failed=not response.strip(),
        weight=float(len(results)),
        flags=(CHECKER_ERROR,) if any(verdict.error for verdict in results) else (),
    )


def report(results: Sequence[Verdict]) -> str:
    """Return the verdicts as JSON: a list of {"constraint", "strict", "loose"[, "error"]}."""
    lines = [
        {"constraint": verdict.name, "strict": verdict.strict, "loose": verdict.loose}
        | ({"error": verdict.error} if verdict.error else {})
        for verdict in results
    ]
    return json.dumps(lines, ensure_ascii=False)
