"""Scores over several samples of a document: pass@k, maj@k, and intervals that cover."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from olmes_suite import stats
from olmes_suite.records import Scored
from olmes_suite.scoring.samples import majority_at, over_samples, sizes


def sample(answer: str | None, score: float = 0.0, *, failed: bool = False) -> Scored:
    return Scored({"m": score}, answer, failed=failed)


def over(*samples: Scored) -> dict[str, float | None]:
    return over_samples(samples[0], samples, "m").scores


def test_sizes_are_powers_of_two_and_the_whole() -> None:
    assert sizes(1) == [1] and sizes(8) == [1, 2, 4, 8] and sizes(10) == [1, 2, 4, 8, 10]


@pytest.mark.parametrize("right", range(7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(right: int) -> None:
    samples = [sample(str(n), float(n < right)) for n in range(6)]
    scores = over(*samples)
    assert scores["m"] == pytest.approx(right / 6)
    for k in (1, 2, 4, 6):
        subsets = [any(s.scores["m"] for s in chosen) for chosen in itertools.combinations(samples, k)]
        assert scores[f"pass_at_{k}"] == pytest.approx(sum(subsets) / len(subsets))


def test_pass_at_k_of_graded_scores_counts_full_ones() -> None:
    scores = over(sample("a", 0.5), sample("b", 1.0))
    assert (scores["m"], scores["pass_at_1"], scores["pass_at_2"]) == (0.75, 0.5, 1.0)


def majority(*samples: Scored) -> float | None:
    return majority_at(len(samples), [(s, s.scores["m"] or 0.0) for s in samples])


def test_majority_takes_the_most_frequent_answer() -> None:
    assert majority(sample("7"), sample("7 "), sample("9", 1.0)) == 0.0
    assert majority(sample("9", 1.0), sample("7"), sample("9", 1.0)) == 1.0


def test_right_answers_vote_together_however_they_are_written() -> None:
    assert majority(sample("1/2", 1.0), sample("7"), sample("0.5", 1.0), sample("8")) == 1.0


def test_a_tie_gives_the_expected_score() -> None:
    assert majority(sample("9", 1.0), sample("7")) == 0.5
    assert majority(sample("9", 1.0), sample("7"), sample("8")) == pytest.approx(1 / 3)


def test_samples_without_an_answer_do_not_vote() -> None:
    none = sample(None, failed=True)
    assert majority(none, none, sample("9", 1.0)) == 1.0
    assert majority(none, none, none) == 0.0


def test_tasks_that_extract_nothing_have_no_majority() -> None:
    assert majority(sample(None, 1.0), sample(None)) is None
    assert "maj_at_2" not in over(sample(None, 1.0), sample(None))


def test_smaller_majorities_are_means_over_blocks() -> None:
    scores = over(sample("9", 1.0), sample("9", 1.0), sample("7"), sample("9", 1.0), sample("7"), sample("7"))
    assert scores["maj_at_2"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores["maj_at_4"] == 1.0 and scores["maj_at_6"] == 0.5


def test_a_task_with_pass_at_k_of_its_own_keeps_it() -> None:
    document = Scored({"pass_at_1": 0.25, "pass_at_10": None})
    samples = [Scored({"pass_at_1": score}) for score in (1.0, 0.0, 0.0, 0.0)]
    scores = over_samples(document, samples, "pass_at_10", votes=False).scores
    assert scores == {"pass_at_1": 0.25, "pass_at_10": None, "pass_at_2": 0.5, "pass_at_4": 1.0}


def test_a_sample_that_could_not_be_run_does_not_count() -> None:
    document = Scored({"pass_at_1": 0.5})
    samples = [Scored({"pass_at_1": score}) for score in (1.0, None, 0.0)]
    scores = over_samples(document, samples, "pass_at_1").scores
    assert scores["pass_at_2"] == 1.0 and scores["pass_at_3"] is None


def test_programs_are_not_put_to_a_vote() -> None:
    samples = [sample("print(1)", 1.0), sample("print(1)", 1.0)]
    assert "maj_at_2" not in over_samples(samples[0], samples, "m", votes=False).scores


@pytest.mark.long
@pytest.mark.parametrize("score", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("concentration", [0.3, 1.0, 10.0, math.inf])
def test_the_interval_of_thirty_documents_covers(score: float, concentration: float) -> None:
    """30 documents of 32 samples, from those that are always or never solved to those that are all alike."""
    rng, size, hits = np.random.default_rng(7), 4000, 0
    for _ in range(size):
        chances = np.full(30, score)
        if math.isfinite(concentration):
            chances = rng.beta(score * concentration, (1 - score) * concentration, 30)
        low, high = stats.mean((rng.binomial(32, chances) / 32).tolist(), sampled=True).ci95 or (0.0, 1.0)
        hits += low <= score <= high
    assert 0.925 <= hits / size <= 0.975


def test_degrees_of_freedom_shrink_with_heavy_tails() -> None:
    normal = np.random.default_rng(1).normal(size=100_000)
    assert stats.degrees_of_freedom(normal) == pytest.approx(99_999, rel=0.02)
    rare = np.array([0.0] * 28 + [1.0] * 2) - 2 / 30
    assert 3 < stats.degrees_of_freedom(rare) < 6
    assert stats.degrees_of_freedom(np.zeros(5)) == 4


def test_few_solved_documents_widen_the_interval() -> None:
    values = [0.0] * 27 + [0.9, 0.8, 0.5]
    plain, sampled = stats.mean(values), stats.mean(values, sampled=True)
    assert plain.ci95 and sampled.ci95 and sampled.stderr == plain.stderr
    assert sampled.ci95[1] - sampled.ci95[0] > plain.ci95[1] - plain.ci95[0]


@pytest.mark.long
@pytest.mark.parametrize("concentration", [0.3, 3.0])
def test_paired_tests_over_means_of_samples_hold_their_level(concentration: float) -> None:
    """Two runs of one model, 30 documents of 16 samples: a significant drop at most in 5 % of comparisons."""
    from olmes_suite.comparison.clusters import Pairs
    from olmes_suite.comparison.paired_tests import compare

    rng, size, alarms, covered = np.random.default_rng(3), 500, 0, 0
    ids, zeros = np.arange(30), np.zeros(30, dtype=np.int64)
    for _ in range(size):
        chances = rng.beta(0.3 * concentration, 0.7 * concentration, 30)
        one, other = (rng.binomial(16, chances) / 16 for _ in range(2))
        found = compare(Pairs(other - one, np.full(30, 1 / 30), zeros, ids, False), 0.05, 0)
        alarms += (found.p_drop or 1.0) <= 0.05
        covered += found.ci95 is not None and found.ci95[0] <= 0 <= found.ci95[1]
    assert alarms / size <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / size)
    assert covered / size >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / size)
