"""SimpleQA in the OLMo 3 regime (allenai/olmes `simpleqa::olmo3:adapt`): a judge grades each answer.

Wei et al. 2024 (arXiv 2411.04368). The judge's prompt is that of openai/simple-evals, `GRADER_TEMPLATE`. Its grade is
the first of the letters A, B, C in its answer, C (not attempted) where there is none. The primary metric f1 is the
harmonic mean of the share of right answers among all and among those attempted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.judges.base import Question
from olmes_suite.judges.per_response import per_response
from olmes_suite.records import Instance, Scored
from olmes_suite.scoring import Item, deferred
from olmes_suite.scoring.tools import Tools
from olmes_suite.stats import Estimate

PROMPT = (Path(__file__).parent / "judge_prompt.txt").read_text(encoding="utf-8").removesuffix("\n")
_GRADE = re.compile("A|B|C")


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the question, unchanged."""
    return str(doc["problem"])


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the right answer."""
    return str(doc["answer"])


def question(doc: Mapping[str, Any], response: str) -> Question:
    """Build the question to the judge about one answer: greedy, at most 2,048 tokens."""
    parts = {"question": doc_to_text(doc), "target": doc_to_target(doc), "predicted_answer": response}
    text = re.sub(r"\{(question|target|predicted_answer)\}", lambda match: parts[match[1]], PROMPT)
    return Question(messages=(("user", text),), max_tokens=2048, temperature=0.0)


def graded(answer: str) -> Scored:
    """Score one answer by the judge's reply."""
    match = _GRADE.search(answer)
    grade = match.group() if match else "C"
    scores: dict[str, float | None] = {
        "is_correct": float(grade == "A"), "is_incorrect": float(grade == "B"), "is_not_attempted": float(grade == "C"),
    }  # fmt: skip
    return Scored(scores, grade, flags=() if match else ("judge_unparsed",))


@deferred()
def score(items: Sequence[Item], tools: Tools) -> Iterator[tuple[int, Scored, list[Scored]]]:
    """Score every answer; the document's first one counts."""
    for position, answers in per_response(items, tools.get("judge"), question):
        samples = [graded(answer.text) for answer in answers]
        yield position, samples[0], samples


def summary(instances: Sequence[Instance]) -> dict[str, Estimate]:
    """Compute f1 and the accuracy among attempted answers, with the delta method's standard error of f1.

    With shares c (correct) and a (attempted) f1 is 2c / (a + 1), whose gradient is (2 / (a + 1), -2c / (a + 1)²).
    """
    n = len(instances)
    correct = [float(i.scored.scores["is_correct"] or 0.0) for i in instances]
    attempted = [1.0 - float(i.scored.scores["is_not_attempted"] or 0.0) for i in instances]
    c, a = sum(correct) / n, sum(attempted) / n
    f1 = 2 * c / (a + 1)
    parts = [2 / (a + 1) * (x - c) - 2 * c / (a + 1) ** 2 * (y - a) for x, y in zip(correct, attempted, strict=True)]
    stderr = (sum(part * part for part in parts) / (n - 1) / n) ** 0.5 if n > 1 else None
    ci95 = None if stderr is None else (max(0.0, f1 - 1.96 * stderr), min(1.0, f1 + 1.96 * stderr))
    figures = {"f1": Estimate(f1, stderr, ci95)}
    if a:
        figures["accuracy_given_attempted"] = Estimate(c / a)
    return figures
