"""Plans: the allocation is the cheapest, keeps its bounds, and reaches what it promises."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmes_suite.comparison import plan_facts, plan_purpose, planning
from olmes_suite.comparison.gate_rules import Rules, TaskRule
from olmes_suite.comparison.planning import Candidate
from olmes_suite.errors import UsageError
from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores
from olmes_suite.tasks import suites
from olmes_suite.tasks.index import index, nested_shares
from olmes_suite.tasks.suites import Suite, SuiteEntry

TASKS = (
    Candidate("big", {"big": 14_000}, cost=200),
    Candidate("group", dict.fromkeys("abcdefghij", 400) | {"k": 30}, cost=300),
    Candidate("micro", {"x": 300, "y": 5000}, macro=False, cost=1000, variance=0.1),
    Candidate("small", {"small": 164}, cost=4000, variance=0.15),
)


def test_the_allocation_is_the_cheapest() -> None:
    """Moving tokens from any task to any other one makes the error larger."""
    plan = planning.for_tokens(TASKS, 1_500_000)
    assert 0.999 * 1_500_000 < plan.tokens <= 1_500_000
    slopes = {}
    for part in plan.tasks:
        low, high = part.task.bounds
        counts = np.array(list(part.leaves.values()))
        if (counts > low).all() and (counts < high).all():  # inside its bounds
            slopes[part.task.name] = (part.task.variance_of(counts) - part.task.fixed) / (
                part.documents * part.task.cost
            )
    assert len(slopes) >= 2
    assert max(slopes.values()) == pytest.approx(min(slopes.values()), rel=0.03)


def test_a_nested_average_weighs_data_sets_alike() -> None:
    """Two of three sub-tasks share a data set, and the third one weighs as much as both."""
    leaves = ("olmo3_omega_trans_circles", "olmo3_omega_trans_matrix_rank", "olmo3_omega_comp_n_gon")
    task = Candidate("olmo3_omega", dict.fromkeys(leaves, 400), cost=100, weights=tuple(nested_shares(leaves)))
    assert task.shares.tolist() == [0.25, 0.25, 0.5]
    [part] = planning.for_tokens([task], 40_000).tasks
    assert list(part.leaves.values()) == pytest.approx([100, 100, 200], abs=2)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(3, 5000), st.floats(0.001, 0.25), st.floats(1, 30_000), st.integers(1, 5), st.booleans()),
        min_size=1, max_size=6,
    ),
    st.floats(0, 1),
)  # fmt: skip
def test_every_plan_keeps_its_bounds(drawn: list[tuple[int, float, float, int, bool]], share: float) -> None:
    tasks = [
        Candidate(str(i), {f"{i}.{leaf}": size + leaf for leaf in range(leaves)}, macro, variance, 0.0, cost)
        for i, (size, variance, cost, leaves, macro) in enumerate(drawn)
    ]
    least = sum(task.bounds[0].sum() * task.cost for task in tasks)
    whole = sum(task.size * task.cost for task in tasks)
    budget = least + share * (whole - least) + 1e-6
    plan = planning.for_tokens(tasks, budget)
    assert plan.tokens <= budget * (1 + 1e-9)
    for part in plan.tasks:
        assert part.documents >= min(planning.FLOOR, part.task.size)
        assert all(min(2, size) <= part.leaves[name] <= size for name, size in part.task.leaves.items())
    again = planning.for_error(tasks, plan.stderr * (1 + 1e-9))
    assert again.stderr <= plan.stderr * (1 + 1e-9)
    assert again.tokens <= plan.tokens * (1 + 1e-9)


def test_larger_plans_contain_smaller_ones() -> None:
    plans = [planning.for_tokens(TASKS, tokens) for tokens in (500_000, 1_000_000, 3_000_000)]
    for small, large in itertools.pairwise(plans):
        for one, other in zip(small.tasks, large.tasks, strict=True):
            assert all(one.leaves[name] <= other.leaves[name] for name in one.leaves)


def test_what_is_promised_is_reached() -> None:
    plan = plan_purpose.precision(TASKS, 2.5)
    assert planning.half_width(plan.stderr) <= 0.025
    assert planning.half_width(plan.stderr) == pytest.approx(0.025, rel=0.01)
    found = plan_purpose.detect(TASKS, 2.0, 0.8, 0.1)
    assert found.stderr <= 0.02 / 2.8
    rules = Rules(suite_margin=0.02, tasks={"group": TaskRule(margin=0.03, required=True)})
    gated = plan_purpose.gate(TASKS, rules, 0.8, 0.1)
    group = next(part for part in gated.tasks if part.task.name == "group")
    assert group.stderr <= 0.03 / 2.486
    assert group.documents > next(p for p in found.tasks if p.task.name == "group").documents


def test_margins_of_a_required_task_are_those_of_the_gate() -> None:
    required = {"group": TaskRule(required=True)}
    plans = [
        plan_purpose.gate(TASKS, Rules(suite_margin=0.02, tasks=required, **more), 0.8, 0.1, {"group": "math"})
        for more in ({"margin": 0.03}, {"margin": 0.01, "skills": {"math": 0.03}})
    ]
    assert [part.documents for part in plans[0].tasks] == [part.documents for part in plans[1].tasks]


def test_data_sets_of_a_nested_average_weigh_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_facts, "leaf_sizes", lambda name: [100] * len(index()[name].leaves))
    entry = SuiteEntry("olmo3_omega", "math")
    task = plan_facts.gather(Suite("mine", (entry,)), None).tasks[0]
    shares = dict(zip(task.leaves, task.shares, strict=True))
    assert shares == pytest.approx(dict(zip(task.leaves, nested_shares(list(task.leaves)), strict=True)))
    assert len(set(task.weights)) > 1 and sum(task.weights) == pytest.approx(1)


def test_the_least_budget_that_is_named_suffices() -> None:
    tasks = [Candidate("one", {"one": 400}, cost=61.07)]
    with pytest.raises(UsageError, match=r"smallest plan takes 3\.06k tokens"):
        planning.for_tokens(tasks, 100)
    assert planning.for_tokens(tasks, 3060).documents == 50


def test_the_suite_of_the_issue_costs_a_quarter_for_a_tenth_of_width() -> None:
    facts = plan_facts.gather(suites.load("dev"), None)
    whole = sum(task.size * task.cost for task in facts.tasks)
    plan = planning.for_tokens(facts.tasks, 0.28 * whole)
    assert plan.stderr / plan.stderr_of_all < 1.12
    alpaca = next(part for part in plan.tasks if part.task.name == "tulu3_alpaca_eval")
    assert alpaca.documents == alpaca.task.size == 805 and alpaca.task.whole
    humaneval = next(part for part in plan.tasks if part.task.name == "tulu3_humaneval")
    assert humaneval.task.samples == 20


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plan_purpose.precision(TASKS, 0.1), "--precision 0.1 is out of reach: all 23,494 documents"),
        (lambda: plan_purpose.precision(TASKS, math.nan), "--precision must be"),
        (lambda: plan_purpose.detect(TASKS, 0.2, 0.8, 0.1), "--detect 0.2 is out of reach"),
        (lambda: plan_purpose.detect(TASKS, 2, 0.2, 0.1), "--power must lie"),
        (lambda: plan_purpose.detect(TASKS, 2, 0.8, 0), "--flips must be"),
        (lambda: plan_purpose.gate(TASKS, Rules(tasks={"nope": TaskRule()}), 0.8, 0.1), "names the task nope"),
        (lambda: planning.for_tokens(TASKS, 1000), "the smallest plan takes"),
        (lambda: plan_purpose.number("20X", "--tokens"), "expected a number above 0"),
        (lambda: plan_purpose.number("-5", "--tokens"), "expected a number above 0"),
        (lambda: plan_purpose.tokens_of_hours(1, None), "--hours needs --baseline"),
        (lambda: plan_purpose.tokens_of_dollars(5, plan_purpose.Prices(0), None), "must be above 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_said(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        call()


def test_numbers_of_tokens() -> None:
    assert [plan_purpose.number(text, "") for text in ("250000", "20M", "1.5k", "2G")] == [250e3, 20e6, 1500, 2e9]
    assert [planning.amount(value) for value in (12, 999, 12_345, 4_560_000)] == ["12", "999", "12.3k", "4.56M"]
    assert [planning.amount(value) for value in (999.6, 999_499, 999_700, 999_999_999)] == ["1k", "999k", "1M", "1G"]


def leaf(scores: list[float], clusters: list[int] | None = None, tokens: float | None = None) -> LeafScores:
    n = len(scores)
    return LeafScores(
        np.arange(n), np.array(scores, dtype=float), np.array(clusters or range(n)), np.zeros(n, dtype=np.int64),
        tokens=None if tokens is None else np.full(n, tokens),
    )  # fmt: skip


def test_a_baseline_gives_variances_and_costs() -> None:
    scores = [1.0] * 90 + [0.0] * 10
    run = RunScores("b", "m", {"tulu3_gsm8k": TaskScores("tulu3_gsm8k", {"tulu3_gsm8k": leaf(scores, tokens=700)})})
    facts = plan_facts.gather(suites.load("smoke"), run)
    gsm8k = facts.tasks[0]
    assert (gsm8k.size, gsm8k.cost) == (100, 700)
    assert gsm8k.variance == pytest.approx((9 + 1) / (99 + 4), rel=1e-6)
    assert facts.assumed == ["tulu3_mmlu_mc_abstract_algebra", "tulu3_ifeval"]


def test_the_variance_of_clusters_does_not_shrink() -> None:
    """A sample of documents splits clusters: simulated against the plan's formula."""
    rng = np.random.default_rng(3)
    size, per = 2000, 10
    clusters = np.repeat(np.arange(size // per), per)

    def draw() -> np.ndarray:
        return (rng.random(size) < np.repeat(rng.beta(1, 1, size // per), per)).astype(float)

    task = TaskScores("tulu3_gsm8k", {"tulu3_gsm8k": leaf(draw().tolist(), clusters.tolist())})
    planned = plan_facts.gather(suites.load("smoke"), RunScores("b", "m", {"tulu3_gsm8k": task})).tasks[0]
    assert planned.fixed > 0
    for n in (100, 500, 2000):
        means = [rng.choice(draw(), n, replace=False).mean() for _ in range(3000)]
        assert math.sqrt(planned.variance_of(np.array([n]))) == pytest.approx(np.std(means), rel=0.12)


SAMPLED = Candidate("sampled", {"sampled": 300}, variance=0.15, cost=8000.0, samples=8, within=0.08)
"""300 documents of 8 samples: between documents 0.14, within 0.08."""


@pytest.mark.parametrize("tokens", [60_000, 200_000, 400_000, 900_000, 2_000_000])
def test_samples_are_chosen_for_the_smallest_error(tokens: float) -> None:
    """No other number of documents and samples of the same cost has less variance."""
    (found,) = planning.for_tokens([SAMPLED], tokens).tasks
    between = SAMPLED.variance - SAMPLED.within / 8
    best = min(
        between / n + SAMPLED.within / (n * m)
        for m in range(1, 9)
        for n in (min(300, int(tokens / (1000 * m))),)
        if n >= planning.FLOOR
    )
    assert found.tokens <= tokens and found.stderr**2 <= 1.12 * best  # a whole number of samples
    assert found.task.samples == max(1, min(8, int(tokens // 300_000)))


def test_all_documents_have_all_samples() -> None:
    plan = planning.for_tokens([SAMPLED, TASKS[0]], 1e9)
    assert plan.tasks[0].task.samples == 8 and plan.tokens == plan.tokens_of_all == 300 * 8000 + 14_000 * 200
    small = planning.for_tokens([SAMPLED, TASKS[0]], 500_000)
    assert small.tasks[0].task.samples == 1 and small.tokens_of_all == plan.tokens_of_all


def test_variance_within_documents_comes_from_their_means() -> None:
    rng = np.random.default_rng(3)
    chance = rng.beta(2, 2, 4000)
    means = rng.binomial(8, chance) / 8
    ids, none = np.arange(4000), np.zeros(4000, dtype=np.int64)
    leaf = LeafScores(ids, means, ids, none)
    run = RunScores("r", "m", {"t": TaskScores("t", {"t": leaf}, "pass_at_1")})
    task = Candidate("t", {"t": 4000}, samples=8, cost=800)
    (found,) = plan_facts.choosing_samples([task], run)
    assert found.within == pytest.approx((chance * (1 - chance)).mean(), rel=0.03)
    for name, primary, samples in (("t", "pass_at_10", 8), ("t", "maj_at_8", 8), ("t", "pass_at_1", 1), ("u", "m", 8)):
        other = RunScores("r", "m", {name: TaskScores(name, {name: leaf}, primary)})
        (left,) = plan_facts.choosing_samples([replace(task, samples=samples)], other)
        assert left.within == 0
