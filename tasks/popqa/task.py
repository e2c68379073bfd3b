"""PopQA, 15-shot, as the reference renders and scores it (allenai/olmes `popqa::tulu`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import scorer


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the question, on one line with the answer's label."""
    return f"Q: {doc['question']} A:"


def doc_to_target(doc: Mapping[str, Any]) -> list[str]:
    """List the accepted answers."""
    answers: list[str] = json.loads(doc["possible_answers"])
    return answers


def fewshot(task: Any) -> list[dict[str, str]]:
    """Return the fifteen pairs of the protocol (rows of the data set, which are scored too)."""
    pairs: list[dict[str, str]] = json.loads(
        Path(__file__).with_name("popqa_examples.json").read_text(encoding="utf-8")
    )
    return pairs


def fewshot_target(doc: Mapping[str, Any]) -> str:
    """Return an exemplar's answer."""
    return doc["answer"]


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score 1 if an answer, or its lower-case or capitalised form, is a substring: "repainters" has "Painter"."""
    answers = doc_to_target(doc)
    hit = any(form in response for answer in answers for form in (answer, answer.lower(), answer.capitalize()))
    return Scored({"exact_match": float(hit)}, response.strip(), failed=not response.strip())


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return doc_to_target(doc)[0]


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0 (unless an answer is the empty string)."""
    return "~"
