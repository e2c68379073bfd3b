"""The check before a training stage: which evaluation items its data contain, and what to do about them.

`check` is one call for any training script; the hook `olmes_before_stage` judges the rows that a stage trains on in
the same way. The cache folder stores scans by the content of the data and of the evaluations, so that a stage that
runs again, or on a copy of its mix, is not scanned again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from decontam import clean as cleaning
from decontam import report, scan
from decontam.items import items
from decontam.matching import prepared_index
from decontam.matching.index import Index
from decontam.matching.prepared_index import Prepared
from decontam.scan import Runner, SetParts, Settings
from decontam.training_data import sources
from olmes_suite.errors import OlmesError
from olmes_suite.files import cache_folder, storage
from olmes_suite.tasks.documents import DataSource

OnContamination = Literal["stop", "filter", "warn"]


class Contaminated(OlmesError):
    """Raised where data overlap an evaluation by more than the rule allows and the recipe does not say what to do."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Judged:
    """The finished scan of a stage's sets."""

    sets: list[SetParts]
    index: Index
    report: dict[str, Any]
    """`report.json` of the scan."""
    flags: dict[str, list[int | str]]
    """Task to the doc_ids of items that the data contain."""
    short: dict[str, list[int | str]]
    """The entries of `flags` that are due to short matches alone."""
    scanned: tuple[str, ...]
    """The tasks that the data were compared with."""
    warnings: tuple[str, ...]
    """One line for every set and evaluation over the rule's share, or with short matches only."""

    @property
    def matches(self) -> bool:
        """Whether there is anything to filter."""
        return any(entry["hit"] or entry["short_hit"] for entry in self.report["sets"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The data that the stage trains on, and the findings that its lineage records."""

    paths: tuple[str, ...]
    """The paths that the caller named, or their clean copies."""
    flags: dict[str, list[int | str]]
    """Task to the doc_ids of items that the data contain: `flags` of the lineage. Empty after filtering."""
    short: dict[str, list[int | str]]
    """`short` of the lineage. Empty after filtering."""
    scanned: tuple[str, ...]
    """`scanned` of the lineage: the tasks that the data were compared with."""
    report: dict[str, Any]
    """`report.json` of the scan."""
    warnings: tuple[str, ...] = ()


def check(
    trains: Sequence[str], out: Path, *, suites: Sequence[str] = (), source: DataSource | None = None,
    on_contamination: OnContamination = "stop", settings: Settings | None = None, workers: int = 1,
) -> Outcome:  # fmt: skip
    """Scan a stage's training sets and write the report to `out`.

    `filter` returns clean copies in `out`/clean, `warn` the unchanged data with the items flagged. Raises Contaminated
    under `stop`, and for data that could not be read in full; UsageError and DataError for wrong arguments.
    """
    where = source or DataSource.from_environment()
    sets = [sources.by_content(sources.find(name, where, out=out)) for name in dict.fromkeys(trains)]
    judged = judge(sets, out, suites, where, on_contamination, settings=settings, workers=workers)
    if on_contamination == "filter" and judged.matches:
        written = cleaning.clean(judged.sets, judged.index, out)
        return Outcome(tuple(str(one.path) for one in written), {}, {}, judged.scanned, judged.report, judged.warnings)
    return Outcome(tuple(trains), judged.flags, judged.short, judged.scanned, judged.report, judged.warnings)


def judge(
    sets: Sequence[sources.TrainSet], out: Path, suites: Sequence[str], source: DataSource,
    on_contamination: OnContamination, *, settings: Settings | None = None, workers: int = 1,
) -> Judged:  # fmt: skip
    """Scan sets against suites (all of them where none is named) and write the report to `out`.

    Raises Contaminated under `stop`, and for data that could not be read in full.
    """
    rules = settings or Settings()
    prepared = prepared_index.of_suites(items.of_suites(suites, (), {}), source, rules.rule)
    parts = cache_folder() / "decontam" / "parts"
    parts_of_sets, finished = scanned(sets, rules, prepared, out, scan.in_processes(workers), parts=parts)
    if finished.data["problems"]:
        raise Contaminated(f"the data could not be read in full: {finished.data['problems'][0]}")
    over = [entry for entry in finished.data["sets"] if entry["contaminated"]]
    lines = tuple(
        f"{e['train']}: {e['hit']} of {e['instances']} items of {e['task']} ({e['percent']:.1f} %): {e['verdict']}"
        for e in over
    )
    if over and on_contamination == "stop":
        raise Contaminated(f"{'; '.join(lines)}; on_contamination: filter removes the rows, warn trains on them")
    below = tuple(
        f"{e['train']}: {e['hit']} of {e['instances']} items of {e['task']} are in its {e['rows']} rows: no more than "
        f"the limit of {100 * rules.rule.share:g} % ({out / report.PAIRS} lists them; share: 0 allows none)"
        for e in finished.data["sets"]
        if e["hit"] and not e["contaminated"]
    )
    apart = tuple(
        f"{e['train']}: {e['short_hit']} short items of {e['task']}, flagged and no part of its share"
        for e in finished.data["sets"]
        if e["short_hit"] and not e["hit"]
    )
    index = prepared.index
    scanned_tasks = {name for task, _ in index.leaves for name in index.same.get(task, [task])}
    return Judged(
        parts_of_sets, index, finished.data, report.read_flags(out), report.read_flags(out, short=True),
        tuple(sorted(scanned_tasks)), lines + below + apart,
    )  # fmt: skip


def scanned(
    sets: Sequence[sources.TrainSet], settings: Settings, prepared: Prepared, out: Path, run: Runner, *,
    watch: Callable[[int, int], None] = lambda done, total: None, parts: Path | None = None,
) -> tuple[list[SetParts], report.Report]:  # fmt: skip
    """Scan and write the report, continuing from what an unfinished scan of the same data left in `parts`."""
    folder = parts or out / ".parts"
    with storage(folder):
        parts_of_sets = scan.scan(sets, settings, prepared.folder, prepared.index.key, folder, run=run, watch=watch)
    return parts_of_sets, report.write(parts_of_sets, prepared.index, settings, out)
