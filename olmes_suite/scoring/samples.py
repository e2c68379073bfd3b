"""Several samples of one document as scores: their mean (avg@K), pass@k and the majority's answer (maj@k).

The document stays the unit of every standard error and paired test, so that samples of one document are never counted
as independent documents.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import pass_at

PASS_AT, MAJ_AT = "pass_at_", "maj_at_"
"""Prefixes of the names of metrics of k samples."""
ONE_SAMPLE = PASS_AT + "1"
"""The score of one sample of a task whose metrics are pass@k."""


def sizes(samples: int) -> list[int]:
    """Return the k for which metrics of k samples are reported: the powers of 2 up to `samples`, and `samples`."""
    powers = [2**power for power in range(samples.bit_length()) if 2**power <= samples]
    return powers if powers[-1] == samples else [*powers, samples]


def metric_of_samples(name: str) -> bool:
    """Tell whether a metric's name is that of pass@k or maj@k."""
    return name.startswith((PASS_AT, MAJ_AT))


def sample_score(sample: Scored, primary: str) -> float | None:
    """Return the primary score of one sample; for a pass@k task this is pass@1. None for a failed check."""
    score = sample.scores.get(primary)
    return sample.scores.get(ONE_SAMPLE) if score is None and primary.startswith(PASS_AT) else score


def over_samples(document: Scored, samples: Sequence[Scored], primary: str, *, votes: bool = True) -> Scored:
    """Return the document's scores over all samples: each metric's mean, and pass@k and maj@k of the primary metric.

    `document` is what the task's scorer returned; its own pass@k metrics are kept. A sample without a score, such as a
    program that could not be run, does not count. In pass@k a sample is right if its score is 1. `votes`: what the
    scorer extracts can be put to a vote, which is not so for programs.
    """
    scores: dict[str, float | None] = {
        metric: value if metric_of_samples(metric) else _mean([sample.scores.get(metric) for sample in samples])
        for metric, value in document.scores.items()
    }
    graded = _graded(samples, primary)
    right = sum(score >= 1.0 for _, score in graded)
    for k in sizes(len(samples)) if graded else ():
        scores.setdefault(f"{PASS_AT}{k}", pass_at(k, len(graded), right))
    if votes:
        scores |= majorities(samples, primary)
    flags = tuple(dict.fromkeys(flag for sample in samples for flag in sample.flags)) or document.flags
    return replace(document, scores=scores, failed=all(sample.failed for sample in samples), flags=flags)


def _graded(samples: Sequence[Scored], primary: str) -> list[tuple[Scored, float]]:
    return [(sample, score) for sample in samples if (score := sample_score(sample, primary)) is not None]


def majorities(samples: Sequence[Scored], primary: str) -> dict[str, float | None]:
    """Return maj@k of a document for each k from 2; empty for a task that extracts no answers."""
    graded = _graded(samples, primary)
    found = {f"{MAJ_AT}{k}": majority_at(k, graded) for k in sizes(len(samples)) if k > 1}
    return {name: value for name, value in found.items() if value is not None}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def majority_at(k: int, graded: Sequence[tuple[Scored, float]]) -> float | None:
    """Estimate the score of the most frequent answer among k samples, given (sample, score) pairs.

    The samples are cut into blocks of k, in order, and the blocks' scores are averaged; a remainder is left out. Ties
    give the expected score over the tied answers. Samples without an answer do not vote; a block without any answer
    scores 0. Returns None with fewer than k samples, and where the task extracts no answers.
    """
    if len(graded) < k or all(sample.extracted is None and not sample.failed for sample, _ in graded):
        return None
    blocks = [graded[start : start + k] for start in range(0, len(graded) - k + 1, k)]
    return math.fsum(map(_majority, blocks)) / len(blocks)


def _majority(block: Sequence[tuple[Scored, float]]) -> float:
    """Return the mean score of the most frequent answer; of all tied answers if there are several."""
    votes: dict[Hashable, list[float]] = {}
    for sample, score in block:
        if score >= 1.0 or (sample.extracted is not None and not sample.failed):
            votes.setdefault(_answer(sample, score), []).append(score)
    if not votes:
        return 0.0
    most = max(map(len, votes.values()))
    tied = [math.fsum(scores) / len(scores) for scores in votes.values() if len(scores) == most]
    return math.fsum(tied) / len(tied)


def _answer(sample: Scored, score: float) -> Hashable:
    """Return a value that is equal for equal answers.

    By the task's own equality, two answers that both equal the reference are equal: right answers vote together however
    they are written. Others are compared by their text without regard to case and white space.
    """
    return True if score >= 1.0 else " ".join(str(sample.extracted).split()).casefold()
