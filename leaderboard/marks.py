"""Trust marks: what a reader needs to know about a score before trusting it. Pure functions over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.page_data import PARTS, Cell, Row
from olmes_suite.runs.schema import Projected

TROUBLES = {
    "truncated": "prompts cut to the context length",
    "length": "responses cut at the token limit",
    "unclosed": "thoughts that did not end",
    "empty": "empty responses",
    "extraction_failed": "responses in which the scorer found nothing to score",
    "scorer_timeout": "checks that ran out of time",
    "judge_unparsed": "judgements that could not be read",
    "checker_error": "checkers that raised an error",
    "request_errors": "requests that failed",
}
"""Descriptions of the flags of results.json."""
SIGNS = {
    "contaminated": "☣", "differs": "≠", "truncated": "✂", "length": "…", "unclosed": "[", "request_errors": "!",
    "empty": "∅", "extraction_failed": "?", "scorer_timeout": "⏱", "judge_unparsed": "?", "checker_error": "!",
    "judge": "J", "partial": "◔", "planned": "◑", "stopped": "◧",
    "projected": "→", "floor": "▁", "looks": "◉", "imported": "i", "published": "P",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark of a cell."""

    code: str
    """The code in the page's `data-flags`, written as `code` or `code:count`."""
    text: str
    count: int | None = None

    @property
    def token(self) -> str:
        """The mark's entry in `data-flags`."""
        return self.code if self.count is None else f"{self.code}:{self.count}"


def marks(cell: Cell, row: Row, suite: str) -> list[Mark]:
    """List the marks of a cell, except `differs`, which depends on other rows. `suite` is that of the column."""
    cell_marks = []
    if cell.clean is not None:
        clean_score = "no score" if cell.clean.value is None else f"{100 * cell.clean.value:.1f}"
        text = f"{cell.clean.flagged} of {cell.n} documents are in the training data; without them: {clean_score}"
        cell_marks.append(Mark("contaminated", text, cell.clean.flagged))
    for flag, count in cell.flags.items():
        words = TROUBLES.get(flag, flag.replace("_", " "))
        cell_marks.append(Mark(flag, f"{count} of {cell.n} {words}" if cell.n else f"{count} {words}", count))
    if cell.judged:
        cell_marks.append(Mark("judge", "scored by a judge or classifier model"))
    if cell.of is not None:
        cell_marks.append(Mark("partial", f"{cell.n} of {cell.of} documents", cell.n))
        if cell.part == "planned":
            cell_marks.append(Mark("planned", "the documents of a plan"))
        if cell.part == "stopped":
            cell_marks.append(Mark("stopped", f"stopped early: {cell.stopped}"))
    if (found := cell.projected) is not None:
        cell_marks.append(Mark("projected", projected(found)))
    if cell.floor is not None and cell.value is not None and cell.value <= cell.floor and row.kind != "floor":
        cell_marks.append(Mark("floor", f"not above what a constant answer scores ({100 * cell.floor:.1f})"))
    if suite == "unseen" and row.looks:
        text = f"this lineage has looked at the unseen suite {row.looks} time{'s' if row.looks > 1 else ''}"
        cell_marks.append(Mark("looks", text, row.looks))
    if row.kind == "imported":
        cell_marks.append(Mark("imported", "scored elsewhere, imported"))
    if row.kind == "published":
        cell_marks.append(Mark("published", cell.note or "as published"))
    return cell_marks


def projected(found: Projected) -> str:
    """Say a projected score in words, in points."""
    low, high = found.ci95 or (None, None)
    ends = "" if low is None or high is None else f" ({100 * low:.1f} – {100 * high:.1f})"
    value = "–" if found.value is None else f"{100 * found.value:.1f}"
    return f"projected from {found.baseline} on all {found.of} documents: {value}{ends}"


def differs(cell: Cell, above: Cell | None) -> list[str]:
    """List the parts of a cell's fingerprint that differ from the cell above it."""
    if above is None or cell.fingerprint is None or above.fingerprint is None:
        return []
    return [part for part, a, b in zip(PARTS, cell.fingerprint, above.fingerprint, strict=True) if a != b]


def nearest_above(rows: Sequence[Row], at: int, task: str) -> Cell | None:
    """Find the cell of the nearest row above that has a score of the task with a fingerprint."""
    for row in reversed(rows[:at]):
        cell = row.cells.get(task)
        if cell is not None and cell.value is not None and cell.fingerprint is not None:
            return cell
    return None


def ranks(values: Sequence[tuple[float, float] | None]) -> list[tuple[int, int] | None]:
    """Compute rank intervals of (value, standard error) from the numbers of surely better and surely worse values.

    A is surely better than B where their difference exceeds 1.96 times the error of the difference, computed as if the
    two were independent; a paired comparison can distinguish more values.
    """
    having = [value for value in values if value is not None]
    out: list[tuple[int, int] | None] = []
    for value in values:
        if value is None:
            out.append(None)
            continue
        better = sum(other[0] - value[0] > _margin(other, value) for other in having)
        worse = sum(value[0] - other[0] > _margin(other, value) for other in having)
        out.append((1 + better, len(having) - worse))
    return out


def _margin(a: tuple[float, float], b: tuple[float, float]) -> float:
    return 1.959964 * float((a[1] ** 2 + b[1] ** 2) ** 0.5)
