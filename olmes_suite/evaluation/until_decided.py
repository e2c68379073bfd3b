"""`olmes eval --until-decided`: documents are asked in chunks, and the gate looks after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from olmes_suite.comparison import deciding, plan_facts, planning
from olmes_suite.comparison.alignment import align
from olmes_suite.comparison.compare import compare_task
from olmes_suite.comparison.deciding import Look, Looks, Target
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.comparison.plan_purpose import check_tasks
from olmes_suite.errors import UsageError
from olmes_suite.evaluation.plan import Options, TaskPlan, by_strata
from olmes_suite.evaluation.record import estimates
from olmes_suite.models.factory import automatic
from olmes_suite.records import Instance
from olmes_suite.runs.schema import LookTaken, Planned, Stopped
from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores
from olmes_suite.tasks import suites


class Decider:
    """Chooses what is asked next, and stops when more answers would not change the verdict."""

    def __init__(self, options: Options, rules: Rules, baseline: RunScores) -> None:
        self.options, self.rules, self.baseline = options, rules, baseline
        suite = suites.load(options.suite_names[0])
        if missing := [entry.task for entry in suite.tasks if entry.task not in baseline.tasks]:
            raise UsageError(f"baseline {baseline.name} has no score of {missing[0]}, which suite {suite.name} has")
        facts = plan_facts.gather(suite, baseline)
        check_tasks(facts.tasks, rules)
        self.notes = [
            f"{plan_facts.short(task.name)} is asked in full before the first look: {task.whole}"
            for task in facts.tasks
            if task.whole is not None
        ]
        self.plans = planning.chunks(plan_facts.of_difference(facts.tasks, 0.10))
        self.looks = Looks(rules, [self._target(part.task, suite) for part in self.plans[-1].tasks])
        self.taken: list[LookTaken] = []
        self.scored: dict[str, list[Instance]] = {}

    def _target(self, task: planning.Candidate, suite: suites.Suite) -> Target:
        skill = next(entry.skill for entry in suite.tasks if entry.task == task.name)
        aligned = align(self.baseline.tasks[task.name], self.baseline.tasks[task.name])
        weight = aligned.pairs.weight if aligned is not None else np.full(task.size, 1 / task.size)
        information = float(weight @ weight)  # as the comparisons weigh: by sub-tasks, data sets and strata
        required = self.rules.task(task.name).required
        margin = max(self.rules.margin_of(task.name, skill), self.rules.noise_of(task.name))
        return Target(task.name, margin, required, information, task.whole is None)

    @property
    def last(self) -> Look:
        """The last look."""
        return self.looks.last

    def check(self, plans: Sequence[TaskPlan]) -> None:
        """Raise UsageError where the baseline does not have all documents, before a model is loaded."""
        sizes = {name: size for part in self.plans[-1].tasks for name, size in part.task.leaves.items()}
        for leaf in (leaf for plan in plans for leaf in plan.leaves):
            if len(leaf.task.task_docs) != sizes.get(leaf.name):
                raise UsageError(
                    f"baseline {self.baseline.name} has {sizes.get(leaf.name, 0):,} documents of {leaf.name}, "
                    f"not {len(leaf.task.task_docs):,}"
                )
        for plan in plans:
            if plan.error is not None:
                raise UsageError(f"--until-decided needs every task of the suite: {plan.name}: {plan.error}")

    def chunks(self, plans: Sequence[TaskPlan]) -> Iterator[None]:
        """Set the rows of each chunk and yield; the caller asks them and calls `look`. Ends with all rows asked."""
        asked: dict[str, list[int]] = {leaf.name: [] for plan in plans for leaf in plan.leaves}
        self.scored = {plan.name: [] for plan in plans}
        for counts in deciding.chunks(self.plans, self.looks):
            for plan in plans:
                plan.by_plan = True
                for leaf in plan.leaves:
                    rows = by_strata(leaf, counts[leaf.name], self.options.seed)
                    known = set(asked[leaf.name])
                    leaf.rows = [row for row in rows if row not in known]
                    asked[leaf.name] = rows
            yield
            self._finish(plans, asked)
            if any(plan.error is not None for plan in plans):
                break

    def _finish(self, plans: Sequence[TaskPlan], asked: Mapping[str, list[int]]) -> None:
        for plan in plans:
            for leaf in plan.leaves:
                leaf.rows = asked[leaf.name]

    def look(
        self, plans: Sequence[TaskPlan], scored: Mapping[str, list[Instance]], tell: Callable[[str], None]
    ) -> None:
        """Add the scored documents of a chunk, judge all so far, and tell the verdict."""
        for plan in plans:
            self.scored[plan.name] = plan.in_order([*self.scored[plan.name], *scored.get(plan.name, [])])
        if any(plan.error is not None for plan in plans):
            return
        comparisons = [
            compare_task(self.baseline.tasks[plan.name], task_scores(plan, self.scored[plan.name])) for plan in plans
        ]
        self.looks.look(comparisons)
        documents = sum(map(len, self.scored.values()))
        whole = {part.task.name for part in self.plans[-1].tasks if self._asked(part) == part.documents}
        settled = {plan.name for plan in plans} - self.last.open - whole if self.last.verdict == "continue" else set()
        self.taken.append(
            LookTaken(
                documents=documents, tokens=self._tokens(), verdict=self.last.verdict, settled=tuple(sorted(settled))
            )
        )
        names = ", ".join(map(plan_facts.short, sorted(settled)))
        tell(
            f"look {len(self.taken)}: {documents:,} of {self.plans[-1].of:,} documents, {self.last.verdict}"
            + (f"; asked no further: {names}" if names else "")
        )

    def _asked(self, part: planning.TaskAllocation) -> int:
        return len(self.scored.get(part.task.name, ()))

    def _tokens(self) -> int:
        return sum(
            g.thinking_tokens + g.answer_tokens
            for found in self.scored.values()
            for one in found
            for g in one.generated
        )

    def stopped(self) -> Stopped:
        """Return the record of the looks."""
        whole = self.plans[-1]
        return Stopped(
            verdict=self.last.verdict if self.last.verdict != "continue" else "infrastructure",
            baseline=self.baseline.name, failed=self.last.failed, looks=tuple(self.taken),
            of_looks=max(len(self.plans), len(self.taken)),
            documents=sum(map(len, self.scored.values())), of=whole.of, tokens=self._tokens(),
            of_tokens=round(whole.tokens), alpha=self.rules.alpha, margin=self.looks.average_margin,
            margins={target.name: target.margin for target in self.looks.targets.values()},
            required=tuple(target.name for target in self.looks.targets.values() if target.required),
        )  # fmt: skip

    def planned(self, plans: Sequence[TaskPlan]) -> Planned:
        """Return the documents that were asked, as those of a plan."""
        purpose = f"--until-decided --baseline {self.baseline.name}"
        return Planned(purpose=purpose, documents={leaf.name: len(leaf.rows) for plan in plans for leaf in plan.leaves})


def task_scores(plan: TaskPlan, instances: Sequence[Instance]) -> TaskScores:
    """Return the scores of a task as they would be read from the run's record."""
    leaves = {}
    for leaf in plan.leaves:
        found = sorted((one for one in instances if one.task == leaf.name), key=lambda one: one.doc_id)
        values = [one.scored.scores.get(plan.primary) for one in found]
        leaves[leaf.name] = LeafScores(
            np.array([one.doc_id for one in found]),
            np.array([np.nan if value is None else float(value) for value in values]),
            _numbers([one.cluster for one in found]), _numbers([one.stratum for one in found]),
            leaf.fingerprint, of=len(leaf.task.task_docs),
        )  # fmt: skip
    scores = TaskScores(plan.name, leaves, plan.primary, plan.aggregate, plan.skill, planned=True)
    if scores.by_document:
        return scores
    estimate = estimates(plan.leaves[0], instances).get(plan.primary)
    return scores if estimate is None else replace(scores, value=estimate.value, stderr=estimate.stderr)


def _numbers(values: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.unique(np.array(values), return_inverse=True)[1].astype(np.int64)


def decider_of(options: Options, baseline: RunScores | None) -> Decider | None:
    """Return what decides a run; None without `--until-decided`. Raises UsageError for options that exclude it."""
    if options.until_decided is None:
        return None
    if baseline is None:
        raise UsageError("--until-decided needs --baseline RUN: the run that the candidate is held against")
    if options.limit is not None or options.planned is not None or options.task_names or len(options.suite_names) != 1:
        raise UsageError("--until-decided takes one --suite, without --task, --limit and --plan")
    _check_scorers(options)
    return Decider(options, options.until_decided, baseline)


def _check_scorers(options: Options) -> None:
    """Raise UsageError for a local checkpoint that scores beside vLLM, which takes the GPU's memory for itself."""
    if "vllm" not in (options.backend, automatic()):
        return
    for need in ("judge", "classifier"):
        name, url = getattr(options.tools, need), getattr(options.tools, f"{need}_base_url")
        if name and url is None and ":" not in name:
            raise UsageError(
                f"--{need} {name}: a local {need} scores after each chunk, while vLLM holds the GPU's memory; serve it "
                f"and give --{need}-base-url, or evaluate with --backend hf"
            )
