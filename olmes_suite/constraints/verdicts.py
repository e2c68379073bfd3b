"""A document's constraints applied to a response, strictly and loosely: the metrics of IFEval."""

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
"""Flag of a document on whose response a checker raised."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one constraint says about a response."""

    name: str
    strict: bool
    loose: bool
    error: str | None
    """Why the checker raised: on the response, or on a loose variant where no variant follows the constraint."""


def named(doc: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(constraint, its arguments as the data hold them) of a document."""
    for name, arguments in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
        yield name, dict(arguments or {})


def needs(doc: Mapping[str, Any], profile: Profile) -> set[str]:
    """Names of `olmes_suite.scoring.language_resources` that the document's checkers read."""
    found = (find(name, profile) for name, _ in named(doc))
    return {need for entry in found if entry is not None for need in entry.needs}


def verdicts(doc: Mapping[str, Any], response: str, profile: Profile) -> list[Verdict]:
    """One verdict for each of the document's constraints. Raises MissingData where a checker lacks its data.

    Parameters that the reference draws at random come from a generator seeded by the document, and are the same for the
    strict and the loose reading; in the reference itself they differ from run to run, and between the two readings.
    """
    rng = random.Random(f"constraints {doc['key']}")
    return [_verdict(find(name, profile), name, given, doc, response, rng) for name, given in named(doc)]


def _verdict(
    entry: Constraint | None,
    name: str,
    given: Mapping[str, Any],
    doc: Mapping[str, Any],
    response: str,
    rng: random.Random,
) -> Verdict:
    if entry is None:
        return Verdict(name, False, False, "there is no such checker")
    try:
        arguments = entry.arguments(given, str(doc["prompt"]), rng)
    except Exception as error:  # a draw that cannot be made raises what the reference's own raises
        return Verdict(name, False, False, _line(error))
    strict, problem = _follows(entry, response, arguments)
    loose, trouble = strict, None
    for variant in dict.fromkeys(loose_variants(response)[1:]):
        if not loose:
            loose, raised = _follows(entry, variant, arguments)
            trouble = trouble or raised
    return Verdict(name, strict, loose, problem or (None if loose else trouble))


def _follows(entry: Constraint, text: str, arguments: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Whether the text follows the constraint, and why its checker raised. Blank text follows nothing."""
    if not text.strip():
        return False, None
    try:
        return bool(entry.check(text, **arguments)), None
    except OlmesError:
        raise
    except ImportError as error:  # this installation's fault, not the response's
        raise MissingData(f"{entry.name}: {error}; install olmes-suite with all it depends on") from None
    except Exception as error:  # a checker that raises is recorded, and not followed
        return False, _line(error)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def scored(doc: Mapping[str, Any], response: str, profile: Profile) -> Scored:
    """The four accuracies of IFEval. `extracted` holds each constraint's verdicts as JSON.

    `inst_level_*` are means over the document's constraints, whose number is the document's weight.
    """
    found = verdicts(doc, response, profile)
    return Scored(
        {
            "prompt_level_strict_acc": float(all(one.strict for one in found)),
            "inst_level_strict_acc": sum(one.strict for one in found) / len(found),
            "prompt_level_loose_acc": float(all(one.loose for one in found)),
            "inst_level_loose_acc": sum(one.loose for one in found) / len(found),
        },
        extracted=report(found),
        failed=not response.strip(),
        weight=float(len(found)),
        flags=(CHECKER_ERROR,) if any(one.error for one in found) else (),
    )


def report(found: Sequence[Verdict]) -> str:
    """The verdicts as JSON: a list of {"constraint", "strict", "loose"[, "error"]}."""
    lines = [
        {"constraint": one.name, "strict": one.strict, "loose": one.loose} | ({"error": one.error} if one.error else {})
        for one in found
    ]
    return json.dumps(lines, ensure_ascii=False)
