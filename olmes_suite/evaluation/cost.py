"""Tokens of a task's answers and counts of answers that were cut, computed from scored documents. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from olmes_suite.records import Generated, Instance, Scored
from olmes_suite.runs.schema import Answers, Cost, Tokens
from olmes_suite.scoring.samples import PASS_AT, sample_score
from olmes_suite.scoring.scorers import pass_at
from olmes_suite.stats import Estimate

Score = Callable[[Sequence[Instance]], Estimate | None]
"""Function from documents to the estimate of their primary metric; None without a score."""


def cost(instances: Sequence[Instance], primary: str) -> Cost:
    """Count tokens and endings over all answers. `primary` names the metric of the rate of correct answers."""
    generated = [answer for instance in instances for answer in instance.generated]
    if not generated:
        return Cost()
    n = len(generated)
    answers = None
    if all(answer.finish_reason is not None for answer in generated):
        answers = Answers(
            n=n,
            length=sum(answer.finish_reason == "length" for answer in generated),
            unclosed=sum(answer.unclosed for answer in generated),
            empty=sum(answer.empty for answer in generated),
        )
    total = sum(answer.tokens for answer in generated)
    if not total:
        return Cost(answers=answers)
    tokens = Tokens(
        thinking=sum(answer.thinking_tokens for answer in generated) / n,
        answer=sum(answer.answer_tokens for answer in generated) / n,
    )
    scores = [score for instance in instances for score in _scores(instance, primary)]
    if not scores or not all(0 <= score <= 1 for score in scores):
        return Cost(answers=answers, tokens=tokens)
    rate = 1e6 * math.fsum(scores) / total
    return Cost(answers=answers, tokens=tokens, correct_per_million_tokens=rate)


def _scores(instance: Instance, primary: str) -> Iterator[float]:
    for sample in instance.samples or (instance.scored,):
        score = sample_score(sample, primary)
        if score is not None:
            yield score


def by_itself(answer: Generated) -> bool:
    """Tell whether an answer ended by itself and not at the token limit."""
    return answer.finish_reason != "length"


def completed(instances: Sequence[Instance], primary: str, averaged: bool, score: Score) -> tuple[Estimate | None, int]:
    """Score the answers that ended by themselves; returns the estimate and the number of these answers.

    `averaged`: a document's score is the mean over its samples. Otherwise it is pass@k, or the score of its first
    sample. The estimate is None without a score, for example if no answer ended by itself.
    """
    kept = [part for instance in instances for part in _completed(instance, primary, averaged)]
    return score([part for part, _ in kept]) if kept else None, sum(number for _, number in kept)


def _completed(instance: Instance, primary: str, averaged: bool) -> Iterator[tuple[Instance, int]]:
    """Yield the document with the scores of its completed answers, and their number.

    With `averaged` each answer is yielded by itself; the document stays its cluster.
    """
    ended = [by_itself(answer) for answer in instance.generated]
    samples = instance.samples
    if len(ended) != len(samples) or len(ended) < 2:
        if ended and all(ended):
            yield instance, len(ended)
    elif primary.startswith(PASS_AT):
        kept = [sample for sample, whole in zip(samples, ended, strict=True) if whole]
        graded = [score for sample in kept if (score := sample_score(sample, primary)) is not None]
        value = pass_at(int(primary.removeprefix(PASS_AT)), len(graded), sum(score >= 1.0 for score in graded))
        if kept:
            yield _with(instance, Scored({primary: value})), len(kept)
    elif averaged:
        for sample, whole in zip(samples, ended, strict=True):
            if whole:
                yield _with(instance, sample), 1
    elif ended[0]:
        yield _with(instance, samples[0]), 1


def _with(instance: Instance, scored: Scored) -> Instance:
    return replace(instance, scored=scored, samples=())


def by_sample(instances: Sequence[Instance], score: Score) -> list[float]:
    """Score the first sample of all documents, then the second, and so on; empty if a sample has no score."""
    number = min((len(instance.samples) for instance in instances), default=0)
    values = []
    for place in range(number):
        estimate = score([_with(instance, instance.samples[place]) for instance in instances])
        if estimate is None:
            return []
        values.append(estimate.value)
    return values


def spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation of the samples' scores; None for fewer than two samples."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
