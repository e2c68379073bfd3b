"""Reports of `olmes eval` and `olmes gate`: one run of a tracker for each recorded run, continued by later reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from olmes_suite.comparison.gate import GateReport
from olmes_suite.errors import OlmesError, one_line
from olmes_suite.runs.run import Run
from olmes_suite.trackers import content
from olmes_suite.trackers.base import Report, TrackedRun
from olmes_suite.trackers.session import FILE, Session

LOCAL = "trackers"
"""Folder in the run store for files of trackers that write to disk."""


def report_run(names: Sequence[str], path: Path, tell: Callable[[str], None] | None = None) -> None:
    """Report a finished run to trackers: scores, wrong answers and sample answers."""
    _send(names, Run(path), lambda: content.of_run(Run(path)), tell)


def report_gate(
    names: Sequence[str], report: GateReport, candidate: Path | None, runs: Path,
    tell: Callable[[str], None] | None = None,
) -> None:  # fmt: skip
    """Report a verdict to the candidate's run of each tracker; a new one where the candidate has none.

    `candidate` is the folder of the candidate; None for a baseline file.
    """
    if candidate is not None:
        _send(names, Run(candidate), lambda: content.of_gate(report), tell)
        return
    name = (
        re.sub(r"[^\w.-]+", "-", report.candidate).strip(".") or "candidate"
    )  # the file says it, and it names a folder
    session = Session(names, TrackedRun(name, _local(runs, name)), tell=tell)
    session.send(content.of_gate(report), 0)
    session.close()


def _send(
    names: Sequence[str], run: Run, made: Callable[[], Report], tell: Callable[[str], None] | None
) -> None:  # fmt: skip
    """Send a report about a recorded run. What cannot be read is a line for the user, because the run stands."""
    if not names:
        return
    try:
        manifest = run.manifest
        tracked = TrackedRun(
            run.name, _local(run.path.parent, run.name), content.settings_of(manifest, str(run.path.absolute()))
        )
        session = Session(names, tracked, run.path / FILE, tell)
        report, step = made(), manifest.lineage.step or 0
    except OlmesError as error:
        Session(names, TrackedRun(run.name, run.path)).tell(
            f"warning: nothing is reported to {', '.join(names)}: {one_line(error)}"
        )
        return
    session.send(report, step)
    session.close()


def _local(runs: Path, name: str) -> Path:
    return runs / LOCAL / name
