"""AGIEval's English sets as the reference renders and scores them (allenai/olmes `agi_eval_<set>:0shot_cot::tulu3`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import exact_match, last_match, scorer
from olmes_suite.scoring.multiple_choice import another, parenthesised, wrapped

_EXACT_PHRASE = r"Therefore, the answer is \(([A-F])\)"
_LABEL = re.compile(r"^\s*\([A-E]\)\s*|^\s*[A-E][.?]?\s*")
"""The label before an option. The reference's pattern also removes the first letter of an option without a label."""
_STATEMENT = r"(?<=the answer is )(.*?)(?=\.)"


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn."""
    passage = f"Passage: {doc['passage']}\n" if doc["passage"] else ""
    options = [_LABEL.sub("", option) for option in doc["options"]]
    query = f"{passage}Question: {doc['question']}\n{parenthesised(options)}"
    query = re.sub(r"(\([A-G]\))(\w)", r"\1 \2", query)
    query = re.sub(r"\n{2,}", "\n", query)
    return wrapped(query + "\n", "(A), (B), (C), (D), (E), etc.")


def cluster(doc: Mapping[str, Any]) -> str | None:
    """Return the passage, which several questions share; None for a question without one."""
    return doc["passage"] or None


def extract(response: str) -> str:
    """Extract the letter that the reference reads; "" where there is none.

    The last "Therefore, the answer is (X)"; otherwise the last "(X)" within the last "the answer is … ." of one line;
    otherwise the last capital A to E, even inside a word.
    """
    if letter := last_match(_EXACT_PHRASE, response):
        return letter
    return last_match(r"\(([A-E])\)", _last_statement(response)) or last_match("[A-E]", response) or ""


def _last_statement(response: str) -> str:
    """Find the last match of `_STATEMENT`; "" where there is none.

    No match contains text after the last full stop of a line; searching it too would take quadratic time.
    """
    statement = ""
    for line in response.split("\n"):
        for statement in re.findall(_STATEMENT, line[: line.rfind(".") + 1]):  # noqa: B007 - only the last one is used
            pass
    return statement


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter."""
    answer = extract(response)
    return Scored({"exact_match": exact_match(answer, doc["label"])}, answer, failed=not answer)


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"Only this choice fits the question. Therefore, the answer is ({doc['label']})"


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return f"{gold(doc)}. No. Therefore, the answer is ({another(doc['label'], len(doc['options']))})"
