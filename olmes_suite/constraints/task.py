"""Prompts and scorers of the tasks whose documents name constraints: IFBench and IFEval-OOD.

Reference: allenai/olmes `ifbench::tulu`, formerly `ifeval_ood::tulu`. `*_repaired` use the repaired checkers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.constraints.registry import total_version
from olmes_suite.constraints.verdicts import needs, scored
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import scorer


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the document's prompt unchanged."""
    return doc["prompt"]


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """Return None: there is no reference answer."""


@scorer(version=total_version("reference"))
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score a response by the public checkers with their defects: four accuracies."""
    return scored(doc, response, "reference")


@scorer(version=total_version("repaired"))
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score a response by the repaired checkers: four accuracies."""
    return scored(doc, response, "repaired")


def resources(doc: Mapping[str, Any]) -> set[str]:
    """Return the names of the resources that the document's public checkers read."""
    return needs(doc, "reference")


def resources_repaired(doc: Mapping[str, Any]) -> set[str]:
    """Return the names of the resources that the document's repaired checkers read."""
    return needs(doc, "repaired")


def gold(doc: Mapping[str, Any]) -> str | None:
    """Return a response that follows the prompt; only the sample documents have one."""
    return doc.get("_pass")


def corrupt(doc: Mapping[str, Any]) -> str | None:
    """Return a response that does not follow the prompt; only the sample documents have one."""
    return doc.get("_fail")
