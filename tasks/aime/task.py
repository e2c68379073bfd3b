r"""AIME in the OLMo 3 regime (allenai/olmes `aime:{2024,2025}::olmo3:adapt`): 32 samples, any candidate may be right.

The comparisons are those of MATH (`tasks/math/task.py`). A gold answer loses its leading zeros, "000" all of them, as
in the reference; the repaired variant keeps one and reads the last box alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from olmes_suite.records import SCORER_TIMEOUT, Scored
from olmes_suite.scoring import module_beside, sampled
from olmes_suite.scoring.careful_answers import same_number, stated_answer

KS = (1, 4, 8, 16, 32)
"""The samples of the metrics pass@k."""
_BOX = "\n\nPresent the answer in LaTex format: \\boxed{Your answer}"


@functools.lru_cache(maxsize=1)
def _math() -> ModuleType:
    """`task.py` of MATH."""
    return module_beside(str(Path(__file__).parents[1] / "math" / "task.py"), "task.py")


def year(doc: Mapping[str, Any]) -> str:
    """Return the year of the paper, from the problem's address: …/2024_AIME_I_Problems/Problem_1."""
    return str(doc["url"]).split("/")[-2].split("_")[0]


def of_2024(rows: Any) -> Any:
    """Keep the problems of 2024, with their rows in the whole split."""
    return _of(rows, "2024")


def of_2025(rows: Any) -> Any:
    """Keep the problems of 2025, with their rows in the whole split."""
    return _of(rows, "2025")


def _of(rows: Any, wanted: str) -> Any:
    numbered = rows if "_row" in rows.column_names else rows.add_column("_row", list(range(len(rows))))
    return numbered.select([i for i, doc in enumerate(rows) if year(doc) == wanted])


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn."""
    return f"{doc['problem']}{_BOX}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the answer without leading zeros."""
    return str(doc["answer"]).lstrip("0")


@sampled(ks=KS, isolated=True)
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score 1 if any candidate of MATH's flexible metric equals the gold answer."""
    math, right = _math(), doc_to_target(doc)
    answers = math.candidates(response)
    verdicts: list[bool | None] = []
    for answer in answers:
        verdicts.append(True if math.same_by_text(answer, right) else math.compared_by_sympy(answer, right))
        if verdicts[-1] is True:
            break
    flags = (SCORER_TIMEOUT,) if None in verdicts else ()
    no_answer = math.boxed(response) is None and math.final_answer(response) == "[invalidanswer]"
    return Scored({"pass_at_1": float(True in verdicts)}, answers[0], failed=no_answer, flags=flags)


@sampled(ks=KS)
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score 1 if the last box, otherwise the last stated answer, is the whole number of the gold answer."""
    answer = stated_answer(response)
    return Scored({"pass_at_1": float(same_number(answer, str(doc["answer"])))}, answer, failed=not answer)


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"We count. The answer is $\\boxed{{{doc_to_target(doc)}}}$."


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return "We count. The answer is $\\boxed{98765}$."
