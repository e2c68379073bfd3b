"""Prompt and scorers of tasks whose documents name constraints: the task files of IFBench and IFEval-OOD point here.

Reference: allenai/olmes `ifbench::tulu`, once `ifeval_ood::tulu`; `*_repaired` are the repaired checkers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.constraints.registry import total_version
from olmes_suite.constraints.verdicts import needs, scored
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import scorer


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """The prompt, as it stands."""
    return doc["prompt"]


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """None: there is no reference answer."""


@scorer(version=total_version("reference"))
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Four accuracies, by the public checkers with their defects."""
    return scored(doc, response, "reference")


@scorer(version=total_version("repaired"))
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Four accuracies, by the repaired checkers."""
    return scored(doc, response, "repaired")


def resources(doc: Mapping[str, Any]) -> set[str]:
    """What the public checkers of a document read beside the response."""
    return needs(doc, "reference")


def resources_repaired(doc: Mapping[str, Any]) -> set[str]:
    """What the repaired checkers of a document read beside the response."""
    return needs(doc, "repaired")


def gold(doc: Mapping[str, Any]) -> str | None:
    """A response that follows the prompt; only the sample documents have one."""
    return doc.get("_pass")


def corrupt(doc: Mapping[str, Any]) -> str | None:
    """A response that does not; only the sample documents have one."""
    return doc.get("_fail")
