r"""MATH and MATH-500 in the OLMo 3 regime (allenai/olmes `minerva_math_<subject>::olmo3:adapt`, `minerva_math_500`),
and a variant with repaired reading.

The prompt is 0-shot and requests a box. The flexible metric accepts what the strict one does; otherwise it reads the
last box, without one the text between the last two `$`, without those the whole response. Minerva's sentence is no
candidate of its own, as it is in the 4-shot regime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.records import SCORER_TIMEOUT, Scored
from olmes_suite.scoring import module_beside, scorer
from olmes_suite.scoring.careful_answers import stated_answer

BOX = "\n\nPresent the answer in LaTex format: \\boxed{Your answer}"


def _task() -> Any:
    return module_beside(__file__, "task.py")


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn."""
    return f"{doc['problem'].strip()}{BOX}"


def candidate(text: str) -> str:
    """Return the answer that the flexible metric tries, normalised."""
    if (box := _task().boxed(text)) is not None:
        return str(_task().normalize(box))
    parts = text.split("$")
    return str(_task().normalize(parts[-2] if len(parts) > 2 else text))


@scorer(isolated=True)
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score both metrics; the extracted answer is the flexible one's."""
    task = _task()
    right, answer = task.gold_answer(doc["solution"]), candidate(response)
    strict = task.compared_by_sympy(task.final_answer(response), right)
    flexible: bool | None = strict is True or task.same_by_text(answer, right)
    if not flexible:
        flexible = task.compared_by_sympy(answer, right)
    flags = (SCORER_TIMEOUT,) if None in (strict, flexible) else ()
    no_answer = task.final_answer(response) == "[invalidanswer]" and task.boxed(response) is None
    scores = {"exact_match": float(strict is True), "exact_match_flex": float(flexible is True)}
    return Scored(scores, answer, failed=no_answer, flags=flags)


@scorer(isolated=True)
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score whether the last box, otherwise the last stated answer, equals the gold answer by either comparison."""
    task = _task()
    right, answer = task.gold_answer(doc["solution"]), task.normalize(stated_answer(response))
    value: bool | None = task.same_by_text(answer, right)
    if not value:
        value = task.compared_by_sympy(answer, right)
    flags = (SCORER_TIMEOUT,) if value is None else ()
    return Scored({"exact_match_flex": float(value is True)}, answer, failed=not answer, flags=flags)
