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
"""The label in front of an option; the reference's pattern takes the first letter of an unlabelled one as well."""
_STATEMENT = r"(?<=the answer is )(.*?)(?=\.)"


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """The one user turn."""
    passage = f"Passage: {doc['passage']}\n" if doc["passage"] else ""
    options = [_LABEL.sub("", option) for option in doc["options"]]
    query = f"{passage}Question: {doc['question']}\n{parenthesised(options)}"
    query = re.sub(r"(\([A-G]\))(\w)", r"\1 \2", query)
    query = re.sub(r"\n{2,}", "\n", query)
    return wrapped(query + "\n", "(A), (B), (C), (D), (E), etc.")


def cluster(doc: Mapping[str, Any]) -> str | None:
    """The passage, which several questions share; None for a question that stands alone."""
    return doc["passage"] or None


def extract(response: str) -> str:
    """The letter that the reference reads; "" where there is none.

    The last "Therefore, the answer is (X)"; else the last "(X)" within the last "the answer is … ." of one line; else
    the last capital A to E, even inside a word.
    """
    if found := last_match(_EXACT_PHRASE, response):
        return found
    return last_match(r"\(([A-E])\)", _last_statement(response)) or last_match("[A-E]", response) or ""


def _last_statement(response: str) -> str:
    """The last match of `_STATEMENT`, "" where there is none.

    What follows the last full stop of a line is in no match; looked at, it would take quadratic time.
    """
    found = ""
    for line in response.split("\n"):
        for found in re.findall(_STATEMENT, line[: line.rfind(".") + 1]):  # noqa: B007 - the last one is wanted
            pass
    return found


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Exact match of the letter."""
    answer = extract(response)
    return Scored({"exact_match": exact_match(answer, doc["label"])}, answer, failed=not answer)


def gold(doc: Mapping[str, Any]) -> str:
    """A response that scores 1."""
    return f"Only this choice fits the question. Therefore, the answer is ({doc['label']})"


def corrupt(doc: Mapping[str, Any]) -> str:
    """A response that scores 0."""
    return f"{gold(doc)}. No. Therefore, the answer is ({another(doc['label'], len(doc['options']))})"
