"""The content of reports to trackers: the scores and documents of a run, the verdict of a gate, rollouts.

Trackers only pass it on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olmes_suite.runs.run import Run
from olmes_suite.runs.schema import InstanceRow, Manifest, Metric, Projected, Results
from olmes_suite.trackers.base import Cell, Report, Table

if TYPE_CHECKING:
    from olmes_suite.comparison.gate import GateReport, TaskVerdict

WRONG = 10
"""Documents of a task in the table of wrong answers, those with the lowest scores."""
SAMPLED = 2
"""Documents of a task in the table of sample answers, the first ones."""
ROWS = 200
"""Rows of a table at most."""
LONGEST = 2000
"""Characters of a text. Of a question the end is kept, because examples stand before it; of other texts the start."""
DOCUMENT = (
    "question", "answer", "reference", "extracted", "score", "choices", "thought", "flags", "task", "doc_id", "note",
)  # fmt: skip
SCORED = ("task", "metric", "value", "stderr", "ci95_low", "ci95_high", "n", "error")
VERDICTS = (
    "task", "verdict", "baseline", "candidate", "difference", "lower_bound", "margin", "n", "required", "sentence",
)  # fmt: skip
ROLLOUT = ("prompt", "response", "advantage")


def of_run(run: Run, documents: bool = True) -> Report:
    """Return the scores of a run with intervals and, with `documents`, wrong and sample answers. Raises OlmesError."""
    results = run.results
    scores = dict(_scores(results))
    failed = {name: str(task.error) for name, task in results.top_tasks.items() if task.failed}
    facts = {"run": run.name, "model": results.model}
    if failed:
        facts["tasks_without_a_score"] = "; ".join(f"{name}: {error}" for name, error in failed.items())
    rows = [_scored(name, task.primary, task.score, task.n, task.error) for name, task in results.tasks.items()]
    rows += [_scored(f"suite {name}", "mean", suite, None, None) for name, suite in results.suites.items()]
    tables = [Table("scores", SCORED, tuple(rows))]
    if documents:
        tables += _documents(run, [name for name, task in results.top_tasks.items() if not task.failed])
    return Report(scores, {name: clean(text) for name, text in facts.items()}, tuple(tables))


def _scores(results: Results) -> Iterator[tuple[str, float]]:
    """Yield the scores of the top-level tasks and the suites with their standard errors and intervals."""
    for name, task in results.top_tasks.items():
        yield from _numbers("score", name, task.score)
        yield from _numbers("projected", name, task.projected)
        if task.tokens is not None:
            yield f"tokens/{name}", task.tokens.total
    for name, suite in results.suites.items():
        yield from _numbers("average", name, suite)
        yield from _numbers("average_projected", name, suite.projected)


def _numbers(kind: str, name: str, metric: Metric | Projected | None) -> Iterator[tuple[str, float]]:
    if metric is None:
        return
    low, high = metric.ci95 or (None, None)
    for suffix, value in (("", metric.value), ("_stderr", metric.stderr), ("_low", low), ("_high", high)):
        if value is not None and math.isfinite(value):
            yield f"{kind}{suffix}/{name}", value


def _scored(name: str, metric: str, score: Metric | None, n: int | None, error: str | None) -> tuple[Cell, ...]:
    found = score or Metric()
    low, high = found.ci95 or (None, None)
    return name, metric, found.value, found.stderr, low, high, n, None if error is None else clean(error)


def _documents(run: Run, tasks: Sequence[str]) -> list[Table]:
    """Return the tables of wrong and of sample answers."""
    from olmes_suite.evaluation.described import describe, rows_of

    wrong: list[tuple[Cell, ...]] = []
    sampled: list[tuple[Cell, ...]] = []
    for task in tasks:
        rows = rows_of(run, task)
        worst = sorted((row for row in rows if _lost(row)), key=lambda row: row.score or 0.0)[:WRONG]
        first = rows[:SAMPLED]
        chosen = {(row.task, row.doc_id): row for row in (*worst, *first)}
        described = {(one["task"], one["doc_id"]): document(one) for one in describe(run, task, [*chosen.values()])}
        wrong += [described[row.task, row.doc_id] for row in worst]
        sampled += [described[row.task, row.doc_id] for row in first]
    found = (("wrong_answers", wrong), ("sample_answers", sampled))
    return [Table(name, DOCUMENT, tuple(rows[:ROWS])) for name, rows in found]


def _lost(row: InstanceRow) -> bool:
    return row.score is not None and row.score < 1


def document(described: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Return the row of a described document, with its texts cut."""
    answer = described["run"]
    choices = described["choices"]
    row: dict[str, Any] = {
        "question": clean(described["question"], tail=True),
        "answer": clean(answer.get("response")),
        "reference": clean(described["reference"]),
        "extracted": clean(answer["extracted"]),
        "score": answer["score"],
        "choices": clean("\n".join(map(str, choices)) if choices else None),
        "thought": clean(answer.get("thinking")),
        "flags": ", ".join(answer["flags"]),
        "task": described["task"],
        "doc_id": str(described["doc_id"]),
        "note": clean(described["note"]),
    }
    return tuple(row[name] for name in DOCUMENT)


def of_gate(report: GateReport) -> Report:
    """Return the verdict of a gate, with a row for each task and for the average."""
    findings = [clean(line) for line in report.findings()]
    facts = {
        "gate": report.verdict,
        "gate_sentence": clean(report.suite.sentence()),
        "gate_baseline": clean(report.baseline),
        **({"gate_findings": "\n".join(findings)} if findings else {}),
    }
    rows = tuple(_verdict(row) for row in report.rows)
    return Report({"gate/exit_status": float(report.exit)}, facts, (Table("gate", VERDICTS, rows),))


def _verdict(row: TaskVerdict) -> tuple[Cell, ...]:
    d = row.difference
    return (
        row.task, row.verdict, row.baseline, row.candidate, d.delta if d else None, d.lower if d else None, row.margin,
        d.n if d else None, str(row.required), clean(row.sentence()),
    )  # fmt: skip


def of_rollouts(
    prompts: Iterable[Any], responses: Iterable[Any], advantages: Iterable[Any], *, rewards: Mapping[str, Iterable[Any]]
) -> Report:
    """Return a table of rollouts with their rewards. Texts may be lists of chat messages."""
    columns = (*ROLLOUT, *rewards)
    lines = zip(prompts, responses, advantages, *rewards.values(), strict=False)
    rows = (
        (clean(_text(prompt), tail=True), clean(_text(response)), *map(_number, numbers))
        for prompt, response, *numbers in lines
    )
    return Report(tables=(Table("rollouts", columns, tuple(rows)[:ROWS]),))


def _text(value: Any) -> str:
    """Return a text, or the contents of chat messages below each other."""
    if isinstance(value, list) and all(isinstance(turn, Mapping) for turn in value):
        return "\n".join(f"{turn.get('role', '')}: {turn.get('content') or ''}" for turn in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def settings_of(manifest: Manifest, path: str) -> dict[str, Any]:
    """Return the facts of a run by which trackers group and filter."""
    found: dict[str, Any] = {
        "path": path,
        "model": manifest.model.path,
        "revision": manifest.model.revision,
        "model_fingerprint": manifest.engine.fingerprint,
        "backend": manifest.engine.backend,
        "suites": ", ".join(manifest.suites),
        "tasks": ", ".join(plan.task for plan in manifest.plan),
        "limit": manifest.limit,
        "seed": manifest.seed,
        "parent": manifest.lineage.parent,
        "stage": manifest.lineage.stage,
        "step": manifest.lineage.step,
        "settings": json.dumps(manifest.settings, ensure_ascii=False) if manifest.settings else None,
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def clean(text: Any, tail: bool = False) -> str:
    """Return a text without control characters, cut to `LONGEST`: its end with `tail`, otherwise its start."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in str("" if text is None else text))
    if len(shown) <= LONGEST:
        return shown
    return f"… {shown[-LONGEST:]}" if tail else f"{shown[:LONGEST]} …"
