"""Sizes, variances and costs of a suite's tasks, from which it is planned: a baseline's documents, or defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from olmes_suite.comparison.alignment import align
from olmes_suite.comparison.clusters import ClusterSums, Pairs
from olmes_suite.comparison.planning import FLOOR, WORST, Candidate
from olmes_suite.errors import UsageError
from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores
from olmes_suite.tasks import suites
from olmes_suite.tasks.index import NESTED, PREFIX, TaskEntry, index, nested_shares
from olmes_suite.tasks.sizes import leaf_sizes

TOKENS = 300
"""Generated tokens of an answer where no run tells them."""
PRIOR = 4
"""Documents of the largest variance that are added to a baseline's: one without a wrong answer is not without error."""
PUBLISHED: Mapping[str, float] = {
    "tulu3_mmlu": 0.682, "tulu3_popqa": 0.291, "tulu3_truthfulqa": 0.550, "tulu3_bbh": 0.690, "tulu3_drop": 0.626,
    "tulu3_math": 0.437, "tulu3_gsm8k": 0.876, "tulu3_humaneval": 0.839, "tulu3_humaneval_plus": 0.792,
    "tulu3_ifeval": 0.824, "tulu3_alpaca_eval": 0.345, "tulu3_safety": 0.855,
}  # fmt: skip
"""Scores of Tülu 3 8B (arXiv 2411.15124, table 6), for tasks without a baseline. Variances are at most p (1 - p)."""
_OF_SEVERAL = re.compile(r"^(pass|maj)_at_(?!1$)")
"""Scores over several samples of a document, which fewer samples do not estimate."""
RANKED = ("multiple_choice", "loglikelihood")
"""Outputs without generated tokens; a document counts as one token."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The tasks of a suite as candidates of a plan."""

    tasks: Sequence[Candidate]
    assumed: Sequence[str] = ()
    """Tasks whose variance and cost are assumed."""
    skills: Mapping[str, str] = field(default_factory=dict)
    """Task to its skill in the suite."""
    uncounted: Sequence[str] = ()
    """Tasks of the baseline without counted tokens, whose cost is assumed."""

    @property
    def unpublished(self) -> Sequence[str]:
        """Those without a published score."""
        return [name for name in self.assumed if name not in PUBLISHED]


def gather(suite: suites.Suite, baseline: RunScores | None) -> Facts:
    """Collect the facts of each task of a suite. Raises UsageError for a task whose size is not known."""
    known = {} if baseline is None else {name: task for name, task in baseline.tasks.items() if _sizes(task, baseline)}
    tasks = [_candidate(entry, known.get(entry.task)) for entry in suite.tasks]
    assumed = [task.name for entry, task in zip(suite.tasks, tasks, strict=True) if entry.task not in known]
    uncounted = [
        name
        for name, task in known.items()
        if name in {entry.task for entry in suite.tasks} and all(leaf.tokens is None for leaf in task.leaves.values())
    ]
    generated = {task.name for task in tasks if task.cost > 1}
    skills = {entry.task: entry.skill for entry in suite.tasks}
    return Facts(tasks, assumed, skills, [name for name in uncounted if name in generated])


def _sizes(task: TaskScores, run: RunScores) -> bool:
    """Tell whether the run knows how many documents the task has; baseline files of limited runs once did not."""
    return run.limit is None or any(leaf.of is not None for leaf in task.leaves.values())


def _candidate(entry: suites.SuiteEntry, scores: TaskScores | None) -> Candidate:
    known = suites.task_of(entry)
    if known is None:
        raise UsageError(f"{entry.task} is not part of this version of olmes-suite; plan with a suite without it")
    leaves = _leaves(known, scores)
    aggregate = entry.aggregate or known.aggregate
    parts = [index().get(name, known) for name in leaves]
    samples = max((part.repeats for part in parts), default=1)
    ranked = bool(parts) and all(part.output in RANKED for part in parts)
    start = Candidate(
        entry.task, leaves, len(leaves) == 1 or aggregate not in ("micro", "stratified"), samples=samples,
        variance=(score := PUBLISHED.get(entry.task, 0.5)) * (1 - score),
        cost=1.0 if ranked else float(TOKENS * samples),
        weights=tuple(nested_shares(list(leaves))) if aggregate == NESTED and len(leaves) > 1 else (),
    )  # fmt: skip
    if any(part.summary for part in parts) or (scores is not None and not scores.by_document):
        start = replace(start, whole="its score is no mean over documents")
    return start if scores is None else _measured(start, scores)


def _leaves(known: TaskEntry, scores: TaskScores | None) -> dict[str, int]:
    """Return the documents of each leaf: those of a run of all of them, else the recorded sizes."""
    if scores is not None and all(name in scores.leaves for name in known.leaves):
        return {name: scores.leaves[name].population for name in known.leaves}
    recorded = leaf_sizes(known.name)
    if recorded is None:
        raise UsageError(
            f"the number of documents of {known.name} is not known: give --baseline RUN, a run with all of them"
        )
    return dict(zip(known.leaves, recorded, strict=True))


def _measured(start: Candidate, scores: TaskScores) -> Candidate:
    leaves = [leaf for name, leaf in scores.leaves.items() if name in start.leaves]
    samples = max((_samples(leaf) for leaf in leaves), default=1) if leaves else start.samples
    tokens = [leaf.tokens for leaf in leaves if leaf.tokens is not None]
    cost = start.cost / start.samples * samples if start.cost > 1 else start.cost
    if tokens:
        cost = max(1.0, float(np.concatenate(tokens).mean()) * samples)
    start = replace(start, samples=samples, cost=cost)
    if start.whole is not None:
        variance = start.variance if scores.stderr is None else scores.stderr**2 * scores.n
        return replace(start, variance=max(variance, 1e-12))
    return replace(start, variance=_variance(leaves), fixed=_fixed(scores))


def _samples(leaf: LeafScores) -> int:
    answers = leaf.cost.answers
    return max(1, round(answers.n / len(leaf.doc_ids))) if answers is not None and len(leaf.doc_ids) else 1


def _variance(leaves: Sequence[LeafScores]) -> float:
    """Return the variance of a document's score within sub-tasks and strata, pooled, with a prior for few documents."""
    total, freedom = PRIOR * WORST, float(PRIOR)
    for leaf in leaves:
        size = np.bincount(leaf.strata)
        means = np.bincount(leaf.strata, weights=leaf.scores) / np.maximum(size, 1)
        total += float(((leaf.scores - means[leaf.strata]) ** 2).sum())
        freedom += float(np.maximum(size - 1, 0).sum())
    return total / freedom


def _fixed(scores: TaskScores) -> float:
    """Return the part of the variance of the score that comes from clusters.

    Documents of a cluster are alike, and a random sample of documents splits clusters: of the variance
    S² (1 + (m - 1) ρ) / n with m documents to a cluster, the part S² (m - 1) ρ / n stays when n and m shrink together.
    """
    aligned = align(scores, scores)
    if aligned is None:
        return 0.0
    values, pairs = aligned.candidate, aligned.pairs
    if len(np.unique(pairs.cluster)) == len(pairs.cluster):
        return 0.0
    alone = np.arange(len(values))
    errors = [
        ClusterSums.of(Pairs(values, pairs.weight, pairs.stratum, cluster, False)).error()[0]
        for cluster in (pairs.cluster, alone)
    ]
    return max(0.0, errors[0] ** 2 - errors[1] ** 2)


def of_difference(tasks: Sequence[Candidate], flips: float) -> list[Candidate]:
    """Return the tasks with the variances of a paired difference, where a share `flips` of documents changes.

    A share f of flips at a score of 50 is a correlation of 1 - 2 f between the two models' scores. With it, the
    variance of a document's difference is 2 S² (1 - ρ) = 4 f S²: f at a score of 50, less where scores vary less.
    Raises UsageError for a share that is not above 0 and at most 1.
    """
    if not 0 < flips <= 1:
        raise UsageError(f"--flips must be a share between 0 and 1, not {flips:g}")
    return [
        replace(task, variance=4 * flips * task.variance, fixed=4 * flips * task.fixed)
        if task.whole is None
        else replace(task, variance=2 * task.variance)
        for task in tasks
    ]


def choosing_samples(tasks: Sequence[Candidate], baseline: RunScores) -> list[Candidate]:
    """Return the tasks so that a plan chooses how many samples of a document it asks, where the score is their mean.

    The variance of one answer follows from the mean p of a document's answers: p (1 - p), for right and wrong ones; for
    others it is at most so large.
    """
    found = []
    for task in tasks:
        scores = baseline.tasks.get(task.name)
        if scores is None or task.samples < 2 or task.whole is not None or _OF_SEVERAL.search(scores.primary):
            found.append(task)
            continue
        means = np.clip(np.concatenate([leaf.scores for leaf in scores.leaves.values()]), 0, 1)
        total = float((means * (1 - means)).sum()) * task.samples / (task.samples - 1)
        found.append(replace(task, within=(total + PRIOR * WORST) / (len(means) + PRIOR)))
    return found


def with_floors(tasks: Sequence[Candidate], least: Mapping[str, int]) -> list[Candidate]:
    """Return the tasks with larger floors, by name."""
    return [replace(task, least=max(FLOOR, least.get(task.name, 0))) for task in tasks]


def documents_of(baseline: RunScores) -> None:
    """Raise UsageError for a baseline that has no documents."""
    if not any(task.by_document for task in baseline.tasks.values()):
        raise UsageError(f"{baseline.name} has no scores of documents, which a plan needs")


def whole(baseline: RunScores, tasks: Sequence[str]) -> None:
    """Raise UsageError for a baseline that lacks documents of a task, where a difference is planned."""
    for name in tasks:
        task = baseline.tasks.get(name)
        if task is None:
            raise UsageError(f"baseline {baseline.name} has no score of {short(name)}: a difference needs one")
        if baseline.limit is not None or task.planned or not task.complete:
            raise UsageError(
                f"baseline {baseline.name} does not have all documents of {short(name)}; {complete(baseline)}"
            )


def complete(baseline: RunScores) -> str:
    """Say how a run of some documents gets the others."""
    option = "--limit" if baseline.limit is not None else "--plan"
    return (
        f"repeat its command without {option if baseline.stopped is None else '--until-decided'}, which asks the rest"
    )


def short(name: str) -> str:
    """Return a task's name without the suites' prefix."""
    return name.removeprefix(PREFIX)
