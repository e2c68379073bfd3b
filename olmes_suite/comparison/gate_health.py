"""Health checks of a candidate, which find reasons not to trust the gate's verdict."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from olmes_suite.comparison.compare import TaskComparison, values_of
from olmes_suite.comparison.gate_rules import CONTAMINATED, HEALTH, MORE, MUCH, TOKENS, Rules
from olmes_suite.runs.schema import ENDINGS, Cost
from olmes_suite.runs.scores import RunScores, TaskScores
from olmes_suite.tasks.index import PREFIX
from olmes_suite.wording import count, tokens

Kind = Literal["fail", "error", "note"]
"""fail: the candidate is worse in a way that scores do not show; error: the run is broken; note: information."""

_WORDS = {
    "truncated": "prompts were cut",
    "length": "answers ended at the token limit",
    "unclosed": "answers ended inside a thought",
    "empty": "answers are empty",
    "extraction_failed": "answers have nothing to score",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a health check."""

    check: str
    task: str
    kind: Kind
    text: str
    share: float | None = None
    limit: float | None = None

    def line(self) -> str:
        """Return the finding as one line."""
        name = f"{self.task.removeprefix(PREFIX)}: " if self.task else ""
        return f"{self.kind}: {name}{self.text}"

    def as_json(self) -> dict[str, Any]:
        """Return the finding in the form of the JSON report; shares are fractions."""
        return {
            "check": self.check, "task": self.task, "kind": self.kind, "text": self.text, "share": self.share,
            "limit": self.limit,
        }  # fmt: skip


def findings(
    baseline: RunScores,
    candidate: RunScores,
    tasks: Sequence[TaskComparison],
    judged: Collection[str],
    rules: Rules,
) -> list[Finding]:
    """Return all findings: missing tasks, changed fingerprints, missing documents, broken answers, contamination."""
    results = list(_missing(baseline, candidate, judged))
    for task in tasks:
        results += _changed(task)
        if task.comparable:
            results += _documents(task, candidate)
            results += _answers(task.task, baseline, candidate, rules)
            results += _cost(task, baseline, candidate, rules)
            results += _contaminated(task.task, candidate, rules)
    return results


def _missing(baseline: RunScores, candidate: RunScores, judged: Collection[str]) -> Iterator[Finding]:
    for name in judged:
        if name not in candidate.tasks and (name in candidate.failed or _overlap(baseline, candidate)):
            reason = candidate.failed.get(name, "not part of the run")
            yield Finding("missing_task", name, "error", f"the candidate has no score: {reason}")
        elif name in candidate.tasks and name not in baseline.tasks:
            reason = baseline.failed.get(name, "not part of the run")
            yield Finding("missing_task", name, "error", f"the baseline has no score: {reason}")
    for name, reason in baseline.failed.items():
        if name not in judged:
            text = f"not judged and not in the average, as the baseline has no score: {reason}"
            yield Finding("missing_task", name, "note", text)
    for name in candidate.tasks:
        if name not in baseline.tasks and name not in baseline.failed:
            yield Finding("extra_task", name, "note", "not in the baseline, not judged")


def _overlap(baseline: RunScores, candidate: RunScores) -> bool:
    """Return whether the runs share a task. Runs of different suites are not comparable, rather than broken."""
    return any(name in baseline.tasks for name in candidate.tasks)


def _changed(task: TaskComparison) -> Iterator[Finding]:
    if task.differs:
        yield Finding(
            "fingerprint",
            task.task,
            "note",
            f"{' and '.join(task.differs)} differ{values_of(task)}: the scores are not comparable",
        )
    if task.reason:
        yield Finding("documents", task.task, "error", task.reason)


def _documents(task: TaskComparison, candidate: RunScores) -> Iterator[Finding]:
    if task.reason or task.difference is None:
        return
    if task.only_baseline:
        chosen = candidate.limit is not None or candidate.tasks[task.task].planned
        kind: Kind = "note" if chosen or candidate.imported else "error"
        yield Finding(
            "documents",
            task.task,
            kind,
            f"the candidate lacks {count(task.only_baseline, 'document', separated=True)} of the baseline",
        )
    if task.only_candidate:
        text = f"{task.only_candidate} documents are not in the baseline, not judged"
        yield Finding("documents", task.task, "note", text)


def _answers(name: str, baseline: RunScores, candidate: RunScores, rules: Rules) -> Iterator[Finding]:
    task, before = candidate.tasks[name], baseline.tasks[name]
    for flag in HEALTH:
        share, usual = _share(task, flag), _share(before, flag)
        limit = rules.health.get(flag, min(1.0, usual + MORE))
        if share > limit:
            text = f"{100 * share:.1f} % of {_WORDS[flag]} (baseline {100 * usual:.1f} %, limit {100 * limit:.1f} %)"
            yield Finding(flag, name, "fail", text, share, limit)
    failed, limit = _errors(candidate.request_errors, name, task.flags), rules.health.get("request_errors", 0.0)
    if failed / max(task.n, 1) > limit:
        text = f"{failed} requests failed after all retries: repeat the `olmes eval` command"
        yield Finding("request_errors", name, "error", text, failed / max(task.n, 1), limit)


def _share(task: TaskScores, flag: str) -> float:
    """Return the share of answers with a flag; with several samples of a document, each one is an answer."""
    answers = task.cost.answers
    if answers is None or answers.n <= task.n or flag not in ENDINGS:
        return task.flags.get(flag, 0) / max(task.n, 1)
    return answers.share(flag)


def _cost(task: TaskComparison, baseline: RunScores, candidate: RunScores, rules: Rules) -> Iterator[Finding]:
    """Check tokens per answer, the score over completed answers, and correct answers per million tokens."""
    name, limits = task.task, rules.health
    before, after = baseline.tasks[name].cost, candidate.tasks[name].cost
    for check in TOKENS:
        pair = task.tokens if check == "tokens" else (_tokens(before, check), _tokens(after, check))
        yield from _multiple(check, name, pair or (None, None), limits.get(check))
    if (drop := limits.get("completed")) is not None:
        yield from _completed(name, before, after, drop)
    if (least := limits.get("correct_per_million_tokens")) is not None:
        one, other = before.correct_per_million_tokens, after.correct_per_million_tokens
        if one is None or other is None:
            yield _unknown("correct_per_million_tokens", name, "correct answers per million tokens")
        elif other < least * one:
            text = f"{other:,.0f} correct answers per million tokens (baseline {one:,.0f}, limit {least * one:,.0f})"
            yield Finding("correct_per_million_tokens", name, "fail", text, other / one, least)


def _tokens(cost: Cost, check: str) -> float | None:
    return None if cost.tokens is None else getattr(cost.tokens, check.removesuffix("_tokens"))


_KINDS = {"tokens": "tokens", "thinking_tokens": "tokens of thought", "answer_tokens": "tokens without the thought"}


def _multiple(check: str, name: str, pair: tuple[float | None, float | None], limit: float | None) -> Iterator[Finding]:
    """Compare mean tokens with the baseline's. Without a limit, a much larger total is noted."""
    before, after = pair
    if before is None or after is None:
        if limit is not None:
            yield _unknown(check, name, _KINDS[check])
        return
    largest = MUCH if limit is None and check == "tokens" else limit
    if largest is None or after <= largest * before:
        return
    text = f"{tokens(after)} {_KINDS[check]} per answer (baseline {tokens(before)}"
    text += f", {after / before:.1f} ×" if before else ""
    text += f", limit {limit:g} ×)" if limit is not None else ")"
    yield Finding(check, name, "note" if limit is None else "fail", text, after / before if before else None, limit)


def _completed(name: str, before: Cost, after: Cost, limit: float) -> Iterator[Finding]:
    one = before.completed.value if before.completed is not None else None
    other = after.completed.value if after.completed is not None else None
    if one is None or other is None:
        yield _unknown("completed", name, "a score over completed answers")
    elif one - other > limit:
        text = f"{100 * other:.1f} over the answers that ended by themselves "
        text += f"(baseline {100 * one:.1f}, largest drop {100 * limit:.1f})"
        yield Finding("completed", name, "fail", text, one - other, limit)


def _unknown(check: str, name: str, what: str) -> Finding:
    return Finding(check, name, "note", f"{what}: not known of both runs, not judged")


def _errors(counted: Mapping[str, int], name: str, flags: Mapping[str, int]) -> int:
    return max(counted.get(name, 0), flags.get("request_errors", 0))


def _contaminated(name: str, candidate: RunScores, rules: Rules) -> Iterator[Finding]:
    task = candidate.tasks[name]
    if task.contaminated:
        short = task.contaminated_short
        counted = task.contaminated - short
        share, limit = counted / task.n, rules.health.get("contaminated", CONTAMINATED)
        kind: Kind = "fail" if share > limit else "note"
        text = f"the candidate was trained on {counted} of {task.n} documents ({100 * share:.1f} %)"
        text += f" and holds {short} too short to count" if short else ""
        yield Finding("contaminated", name, kind, text, share, limit)
