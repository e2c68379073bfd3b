"""RULER (arXiv 2404.06654) at one length, on documents that lm-eval's generators made for the model's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import scorer


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the share of the wanted texts that the response contains, in any case of letters."""
    text = response.strip().lower()
    wanted = list(doc["outputs"])
    return Scored({"recall": sum(one.lower() in text for one in wanted) / len(wanted)}, text[:200], failed=not text)


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return ", ".join(doc["outputs"])


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return "?"
