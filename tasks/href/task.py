"""HREF: a response against a baseline's, judged by the method that agrees best with people in its category.

Lyu et al. 2024 (arXiv 2412.15524), code of its authors (`href/evaluation`). Three methods: L, a judge reads both
responses; LH, it reads a person's response too; E, the response closer to the person's wins (BERTScore F1).
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
"""Of the order in which the two responses are shown."""
PROMPT_VERSION = 1
"""Of the judge's prompts, `judge_L.txt` and `judge_LH.txt`; part of the fingerprint."""
SYSTEM = "You are a helpful assistant that helps us rate an AI model's responses to instructions."
TEMPLATES = {kind: (Path(__file__).parent / f"judge_{kind}.txt").read_text(encoding="utf-8") for kind in ("L", "LH")}
WIN, TIE, LOSS = 1.0, 0.5, 0.0
_VERDICTS = {"A": "A", "a": "A", "B": "B", "b": "B", "tie": "tie", "Tie": "tie", "TIE": "tie"}


def check_categories(rows: Any) -> Any:
    """The rows as they are. Raises DataError for a category that HREF has no method for."""
    if unknown := set(rows["category"]) - set(METHODS):
        raise DataError(f"href: unknown category {sorted(map(str, unknown))[0]!r}; known are: {', '.join(METHODS)}")
    return rows


def doc_to_text(doc: Doc) -> str:
    """The instruction as it stands."""
    return doc["instruction"]


def doc_to_target(doc: Doc) -> str:
    """The person's response."""
    return doc["reference"]


def metric_of(category: str) -> str:
    """`winrate_` and the category in small letters: Open QA is winrate_open_qa."""
    return "winrate_" + re.sub(r"[^a-z]+", "_", category.lower())


def switched(instruction: str) -> bool:
    """Whether the model's response is shown as A and the baseline's as B: drawn from the seed and the instruction.

    The draw is alpaca_eval's (`processors.py`, version 0.6.6), on which HREF's code stands.
    """
    return random.Random(f"is_switched_outputs{instruction}{SEED}").choices([False, True])[0]


def question(doc: Doc, response: str) -> Question:
    """What the judge is asked about a document of method L or LH: greedy, at most 100 tokens."""
    first, second = (response, doc["output"]) if switched(doc["instruction"]) else (doc["output"], response)
    parts = {"instruction": doc["instruction"], "response_a": first, "response_b": second, "human": doc["reference"]}
    # One pass over the template, so that braces inside a text stay what they are.
    text = re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], TEMPLATES[METHODS[doc["category"]]])
    return Question(messages=(("system", SYSTEM), ("user", text)), max_tokens=100, temperature=0.0)


def parse(text: str) -> str | None:
    """ "A", "B" or "tie": the last word of the last line without a full stop behind it; None for anything else."""
    words = text.split()
    return _VERDICTS.get(words[-1].removesuffix(".")) if words else None


def outcome(verdict: str | None, model_is_a: bool) -> float:
    """Win, tie or loss of the model. An unreadable verdict is neither win nor tie, and stays in the mean."""
    if verdict == "tie":
        return TIE
    return WIN if verdict is not None and (verdict == "A") == model_is_a else LOSS


def closer(model: float, baseline: float) -> float:
    """Win, tie or loss from the two similarities to the person's response."""
    return TIE if model == baseline else WIN if model > baseline else LOSS


def scored(doc: Doc, value: float, said: str, flags: tuple[str, ...] = ()) -> Scored:
    """The win rate, also as that of the document's own category; null in all others'."""
    own = metric_of(doc["category"])
    by_category = {metric: value if metric == own else None for metric in map(metric_of, METHODS)}
    return Scored({"winrate": value, **by_category}, said, flags=flags)


def judged(doc: Doc, answer: str) -> Scored:
    """The score of one response from the judge's answer."""
    verdict = parse(answer)
    value = outcome(verdict, switched(doc["instruction"]))
    return scored(doc, value, answer.strip(), () if verdict else ("judge_unparsed",))


@deferred(version=PROMPT_VERSION)
def score(items: Sequence[Item], tools: Any) -> Iterator[tuple[int, Scored, list[Scored]]]:
    """Every document by the method of its category."""
    embedded = [n for n, item in enumerate(items) if METHODS[item.doc["category"]] == "E"]
    asked = [n for n, item in enumerate(items) if METHODS[item.doc["category"]] != "E"]
    if embedded:
        found = by_similarity([items[n] for n in embedded], tools.get("encoder"))
        for position, samples in zip(embedded, found, strict=True):
            yield position, samples[0], samples
    if asked:
        for place, answers in per_response([items[n] for n in asked], tools.get("judge"), question):
            samples = [judged(items[asked[place]].doc, answer.text) for answer in answers]
            yield asked[place], samples[0], samples


def by_similarity(items: Sequence[Item], encoder: Any) -> Iterator[list[Scored]]:
    """Scores of each document's responses by similarity to the person's; the encoder is called once for all."""
    pairs = [(text, item.doc["reference"]) for item in items for text in (item.doc["output"], *item.responses)]
    found = iter(encoder.f1([text for text, _ in pairs], [reference for _, reference in pairs]))
    for item in items:
        baseline, *own = [float(next(found)) for _ in range(1 + len(item.responses))]
        yield [scored(item.doc, closer(value, baseline), f"{value:.6f} against {baseline:.6f}") for value in own]
