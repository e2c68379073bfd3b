"""Scores of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from olmes_suite.records import Scored
from olmes_suite.sandbox.verdict import Verdict
from olmes_suite.scoring.scorers import pass_at


def scored(
    verdicts: Sequence[Verdict], ks: Sequence[int] = (1,), extracted: Sequence[str] | None = None
) -> tuple[Scored, list[Scored]]:
    """Score a document and each sample.

    A sample with the verdict `error` does not count in the document's scores, and its own score is None, never 0.
    """
    graded = [verdict for verdict in verdicts if verdict.outcome != "error"]
    passed = sum(verdict.passed for verdict in graded)
    scores = {f"pass_at_{k}": pass_at(k, len(graded), passed) for k in ks}
    texts: Sequence[str | None] = extracted or [None] * len(verdicts)
    samples = [
        Scored(
            {"pass_at_1": None if verdict.outcome == "error" else float(verdict.passed)},
            text,
            verdict=f"{verdict.outcome}: {verdict.detail}".rstrip(": "),
        )
        for verdict, text in zip(verdicts, texts, strict=True)
    ]
    return Scored(scores, texts[0]), samples


def verdicts(programs: Sequence[str], check: Callable[[str], Verdict]) -> list[Verdict]:
    """Return the verdict on each program. Equal programs are run once: hash seed and random state are fixed.

    A verdict `error` says nothing about the program, so that its next copy is run again.
    """
    known: dict[str, Verdict] = {}
    found = []
    for program in programs:
        verdict = known[program] if program in known else check(program)
        if verdict.outcome != "error":
            known[program] = verdict
        found.append(verdict)
    return found
