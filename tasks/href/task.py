"""HREF: a response against a baseline's, judged by the method that agrees best with people in its category.

Lyu et al. 2024 (arXiv 2412.15524) and the authors' code (`href/evaluation`). There are three methods. L: a judge reads
both responses. LH: the judge reads a person's response too. E: the response closer to the person's wins (BERTScore F1).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError
from olmes_suite.judges.base import Question
from olmes_suite.judges.per_response import per_response
from olmes_suite.records import Scored
from olmes_suite.scoring import Item, deferred
from olmes_suite.scoring.tools import Tools

Doc = Mapping[str, Any]

METHODS = {
    "Brainstorm": "L",
    "Open QA": "E",
    "Closed QA": "LH",
    "Extract": "LH",
    "Generation": "LH",
    "Rewrite": "LH",
    "Summarize": "L",
    "Classify": "LH",
    "Fact Checking or Attributed QA": "E",
    "Multi-Document Synthesis": "LH",
    "Reasoning Over Numerical Data": "LH",
}
"""Category to method (table 48 of the Tülu 3 paper; `evaluators.py`)."""

SEED = 42
"""Seed of the order in which the judge reads the two responses."""
PROMPT_VERSION = 1
"""Version of the judge's prompts, `judge_L.txt` and `judge_LH.txt`; part of the fingerprint."""
SYSTEM = "You are a helpful assistant that helps us rate an AI model's responses to instructions."
TEMPLATES = {kind: (Path(__file__).parent / f"judge_{kind}.txt").read_text(encoding="utf-8") for kind in ("L", "LH")}
WIN, TIE, LOSS = 1.0, 0.5, 0.0
_VERDICTS = {"A": "A", "a": "A", "B": "B", "b": "B", "tie": "tie", "Tie": "tie", "TIE": "tie"}


def check_categories(rows: Any) -> Any:
    """Return the rows unchanged. Raises DataError for a category without a method in HREF."""
    if unknown := set(rows["category"]) - set(METHODS):
        raise DataError(f"href: unknown category {sorted(map(str, unknown))[0]!r}; known are: {', '.join(METHODS)}")
    return rows


def doc_to_text(doc: Doc) -> str:
    """Return the instruction, unchanged."""
    return doc["instruction"]


def doc_to_target(doc: Doc) -> str:
    """Return the person's response."""
    return doc["reference"]


def metric_of(category: str) -> str:
    """Return `winrate_` and the category in lower case: Open QA is winrate_open_qa."""
    return "winrate_" + re.sub(r"[^a-z]+", "_", category.lower())


def switched(instruction: str) -> bool:
    """Whether the model's response is A and the baseline's is B, drawn from the seed and the instruction.

    The draw is that of alpaca_eval (`processors.py`, version 0.6.6), on which HREF's code is based.
    """
    return random.Random(f"is_switched_outputs{instruction}{SEED}").choices([False, True])[0]


def question(doc: Doc, response: str) -> Question:
    """Build the question to the judge about a document of method L or LH: greedy, at most 100 tokens."""
    first, second = (response, doc["output"]) if switched(doc["instruction"]) else (doc["output"], response)
    parts = {"instruction": doc["instruction"], "response_a": first, "response_b": second, "human": doc["reference"]}
    # One pass over the template, so that braces within a text are not replaced.
    text = re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], TEMPLATES[METHODS[doc["category"]]])
    return Question(messages=(("system", SYSTEM), ("user", text)), max_tokens=100, temperature=0.0)


def parse(text: str) -> str | None:
    """Return "A", "B" or "tie", the last word of the answer without a full stop; None for any other word."""
    words = text.split()
    return _VERDICTS.get(words[-1].removesuffix(".")) if words else None


def outcome(verdict: str | None, model_is_a: bool) -> float:
    """Return win, tie or loss of the model. An unreadable verdict is a loss, and counts in the mean."""
    if verdict == "tie":
        return TIE
    return WIN if verdict is not None and (verdict == "A") == model_is_a else LOSS


def closer(model: float, baseline: float) -> float:
    """Return win, tie or loss from the two similarities to the person's response."""
    return TIE if model == baseline else WIN if model > baseline else LOSS


def scored(doc: Doc, value: float, extracted: str, flags: tuple[str, ...] = ()) -> Scored:
    """Make the score: the win rate, repeated under the document's category and null under all other categories."""
    metric_of_category = metric_of(doc["category"])
    by_category = {metric: value if metric == metric_of_category else None for metric in map(metric_of, METHODS)}
    return Scored({"winrate": value, **by_category}, extracted, flags=flags)


def judged(doc: Doc, answer: str) -> Scored:
    """Score one response by the judge's answer."""
    verdict = parse(answer)
    value = outcome(verdict, switched(doc["instruction"]))
    return scored(doc, value, answer.strip(), () if verdict else ("judge_unparsed",))


@deferred(version=PROMPT_VERSION)
def score(items: Sequence[Item], tools: Tools) -> Iterator[tuple[int, Scored, list[Scored]]]:
    """Score every document by the method of its category."""
    embedded = [n for n, item in enumerate(items) if METHODS[item.doc["category"]] == "E"]
    compared = [n for n, item in enumerate(items) if METHODS[item.doc["category"]] != "E"]
    if embedded:
        by_document = by_similarity([items[n] for n in embedded], tools.get("encoder"))
        for position, samples in zip(embedded, by_document, strict=True):
            yield position, samples[0], samples
    if compared:
        for place, answers in per_response([items[n] for n in compared], tools.get("judge"), question):
            samples = [judged(items[compared[place]].doc, answer.text) for answer in answers]
            yield compared[place], samples[0], samples


def by_similarity(items: Sequence[Item], encoder: Any) -> Iterator[list[Scored]]:
    """Score each document's responses by similarity to the person's, with one call of the encoder for all."""
    pairs = [(text, item.doc["reference"]) for item in items for text in (item.doc["output"], *item.responses)]
    similarities = iter(encoder.f1([text for text, _ in pairs], [reference for _, reference in pairs]))
    for item in items:
        baseline, *values = [float(next(similarities)) for _ in range(1 + len(item.responses))]
        yield [scored(item.doc, closer(value, baseline), f"{value:.6f} against {baseline:.6f}") for value in values]
