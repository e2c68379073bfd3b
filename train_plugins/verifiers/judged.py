"""Rewards by a judge model: what it is asked, and how its reply is read. Pure functions.

`judge` rates a response from 1 to 10, with a reference answer or without; its value is a tenth of the rating. `rubric`
rates how far a response meets each criterion, from 0 to 2; its value is the mean of the halves, weighted by the size of
the criteria's weights. A criterion with a negative weight describes a fault. Source of both scales: open-instruct's
`ground_truth_utils.py`; the prompts are our own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.thinking import built_in
from train_plugins.verifiers.base import Malformed, shown

BEST = 10
"""The highest rating of `judge`."""
MET = 2
"""The rating of a criterion that is fully met."""
PLACES = ("prompt", "response", "reference", "criteria")
"""Names in braces that a prompt's file may contain."""
JUDGE_PROMPT = """\
Rate how well an assistant answered. Consider whether the answer is correct, complete, helpful and follows the \
instructions. Its length does not count.

<conversation>
{prompt}
</conversation>

<answer>
{response}
</answer>
{reference}
Reply with one JSON object and nothing else, with a whole number from 1 (useless) to 10 (excellent):
{"reason": "one sentence", "score": 7}
"""
RUBRIC_PROMPT = """\
Check an assistant's answer against criteria.

<conversation>
{prompt}
</conversation>

<answer>
{response}
</answer>

<criteria>
{criteria}
</criteria>

Rate each criterion: 0 if the answer does not meet it, 1 if it meets it in part, 2 if it meets it fully. Reply with \
one JSON object and nothing else, with a rating for each criterion by its number:
{"1": 2, "2": 0}
"""
AGAIN = "\n\nYour earlier reply could not be read. Reply with the JSON object alone. (Attempt {number})"
_REFERENCE = "\n<reference>\n{text}\n</reference>\nThe reference is a good answer; others may be as good.\n"
_OBJECT = re.compile(r"\{[^{}]*\}")
_SCORE = re.compile(
    r"\b(?:score|rating)\b[\"'*]*\s*[:=]\s*[\"'*]*\s*(\d+(?:\.\d+)?)(?:\s*/\s*10)?(?![\d.]*\d|\s*/)", re.IGNORECASE
)
_DESCRIPTION = ("description", "criterion", "title", "rubric", "text")
_WEIGHT = ("weight", "points", "score")


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a rubric."""

    description: str
    weight: float
    """Not 0; below 0 for a fault."""


def reference_of(truth: Any) -> str | None:
    """Return the reference answer of a truth; None without one. Raises Malformed."""
    if truth is None or truth == "":
        return None
    if isinstance(truth, list | tuple) and len(truth) == 1:
        truth = truth[0]
    if not isinstance(truth, str | int | float) or isinstance(truth, bool):
        raise Malformed(f"a reference answer must be text, not {shown(truth)}")
    return str(truth)


def criteria_of(truth: Any) -> tuple[Criterion, ...]:
    """Return the criteria of a truth: a list, or {"rubrics": [{"description", "weight"}]}, or its JSON.

    Raises Malformed.
    """
    if isinstance(truth, str):
        try:
            truth = json.loads(truth)
        except (ValueError, RecursionError):
            raise Malformed("it is not JSON") from None
    if isinstance(truth, Mapping):
        truth = truth.get("rubrics", truth.get("rubric", truth.get("criteria")))
    if not isinstance(truth, Sequence) or isinstance(truth, str) or not truth:
        raise Malformed("expected criteria: a list `rubrics` with a description and a weight each")
    return tuple(_criterion(one, number) for number, one in enumerate(truth, 1))


def _criterion(value: Any, number: int) -> Criterion:
    if isinstance(value, str):
        value = {"description": value}
    if not isinstance(value, Mapping):
        raise Malformed(f"criterion {number} is no mapping: {shown(value)}")
    text = next((value[name] for name in _DESCRIPTION if value.get(name)), None)
    weight = next((value[name] for name in _WEIGHT if value.get(name) is not None), 1.0)
    if not isinstance(text, str) or not text.strip():
        raise Malformed(f"criterion {number} has no description")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight == 0:
        raise Malformed(f"criterion {number}: the weight must be a number other than 0, not {shown(weight)}")
    return Criterion(text.strip(), float(weight))


def check_judged(name: str, truth: Any) -> None:
    """Raise Malformed for a truth that the verifier cannot read."""
    if name == "rubric":
        criteria_of(truth)
    else:
        reference_of(truth)


def question(name: str, response: str, truth: Any, row: Mapping[str, Any], template: str | None = None) -> str:
    """Return what the judge is asked about a response. `template` replaces the prompt. Raises Malformed."""
    fields = {"prompt": _conversation(row), "response": response.strip(), "reference": "", "criteria": ""}
    if name == "rubric":
        criteria = criteria_of(truth)
        fields["criteria"] = "\n".join(f"{number}. {one.description}" for number, one in enumerate(criteria, 1))
    elif (reference := reference_of(truth)) is not None:
        fields["reference"] = reference if template else _REFERENCE.replace("{text}", reference)
    text = template or (RUBRIC_PROMPT if name == "rubric" else JUDGE_PROMPT)
    # one pass, so that braces in a response are not filled
    return re.sub("{(" + "|".join(PLACES) + ")}", lambda match: fields[match[1]], text)


def check_template(text: str) -> str | None:
    """Return what is wrong with a prompt's file; None for a usable one."""
    if doubled := next((name for name in PLACES if "{{" + name + "}}" in text), None):
        return f"{{{{{doubled}}}}} would never be filled; write {{{doubled}}}"
    return None if "{response}" in text else "it has no {response}, the place of what is judged"


def value_of(name: str, reply: str, truth: Any) -> float | None:
    """Return the value of a judge's reply, from 0 to 1; None for one that cannot be read."""
    parts = built_in("think").split(reply)
    if parts.unclosed:
        return None
    return _rubric(parts.answer, criteria_of(truth)) if name == "rubric" else _rating(parts.answer)


def _rating(reply: str) -> float | None:
    """Return a tenth of the rating, where the reply states exactly one that is possible."""
    found = {float(match[1]) for match in _SCORE.finditer(reply)}
    if not found and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*10)?\s*\.?\s*", reply)):
        found = {float(match[1])}
    rating = found.pop() if len(found) == 1 else 0.0
    return rating / BEST if 1 <= rating <= BEST else None


def _rubric(reply: str, criteria: Sequence[Criterion]) -> float | None:
    """Return the weighted mean, where the reply rates each criterion once and nothing else."""
    objects = []
    for match in _OBJECT.finditer(reply):
        try:
            objects.append(dict(json.loads(match[0])))
        except (ValueError, TypeError, RecursionError):
            continue
    wanted = [str(number) for number in range(1, len(criteria) + 1)]
    ratings = [one for one in objects if set(one) == set(wanted)]
    if len(ratings) != 1 or not all(_possible(value) for value in ratings[0].values()):
        return None
    shares = [ratings[0][number] / MET for number in wanted]
    kept = [abs(one.weight) * (share if one.weight > 0 else 1 - share)
            for one, share in zip(criteria, shares, strict=True)]  # fmt: skip
    return sum(kept) / sum(abs(one.weight) for one in criteria)


def _possible(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MET


def _conversation(row: Mapping[str, Any]) -> str:
    """Return the turns of a row as text; a single turn without its role."""
    turns = row.get("messages", row.get("prompt", ""))
    if isinstance(turns, str):
        return turns
    texts = [(str(turn.get("role")), str(turn.get("content") or "")) for turn in turns if isinstance(turn, Mapping)]
    return texts[0][1] if len(texts) == 1 else "\n\n".join(f"{role}: {text}" for role, text in texts)
