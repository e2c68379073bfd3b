"""Sending reports to the chosen trackers. An error of a tracker is a warning: it never costs a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path

from olmes_suite.errors import OlmesError, first_line
from olmes_suite.files import read_json, write_json
from olmes_suite.trackers.base import Report, TrackedRun, Tracker
from olmes_suite.trackers.factory import kind

FILE = "trackers.json"
"""File in the folder of a run or a stage: tracker to what identifies its run there, which is then continued."""


class Session:
    """Sends reports to trackers. They are started with the first report."""

    def __init__(
        self, names: Sequence[str], run: TrackedRun, file: Path | None = None,
        tell: Callable[[str], None] | None = None, quiet: bool = True,
    ) -> None:  # fmt: skip
        """Report to the trackers `names`. `file` remembers their runs; `tell` receives lines for the user.

        `quiet` drops what clients print to stdout; False outside the main thread, as stdout is the process's.
        """
        self.names = names
        self.run = run
        self.file = file
        self.tell = tell or (lambda line: print(line, file=sys.stderr))
        self.quiet = quiet
        self.started: dict[str, Tracker] = {}
        self.lost: set[str] = set()
        """Trackers that failed; nothing more is sent to them."""

    def send(self, report: Report, step: int) -> None:
        """Send a report to each tracker."""
        for name in self.names:
            self._guarded(name, lambda name=name: _log(self._tracker(name), report, step))  # type: ignore[misc]

    def close(self) -> None:
        """Finish the runs of the trackers, and say where they are."""
        places: dict[str, str] = {}
        for name, tracker in self.started.items():

            def finish(name: str = name, tracker: Tracker = tracker) -> None:
                places[name] = tracker.finish()

            self._guarded(name, finish)
        self.started.clear()
        for name, place in places.items():
            self.tell(f"{name}: {place}")

    def _tracker(self, name: str) -> Tracker:
        if name not in self.started:
            tracker = kind(name)()
            found = tracker.start(self.run, known(self.file).get(name, {}))
            self.started[name] = tracker
            self._remember(name, found)
        return self.started[name]

    def _remember(self, name: str, found: Mapping[str, str]) -> None:
        if self.file is None or not self.file.parent.is_dir():
            return
        try:
            write_json(self.file, {**known(self.file), name: dict(found)})
        except (OlmesError, OSError) as error:
            self.tell(f"{name}: warning: a later report will start a new run: {first_line(error)}")

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        """Call the client of a tracker, whose errors can be of any type."""
        if name in self.lost:
            return
        try:
            with redirect_stdout(StringIO()) if self.quiet else nullcontext():
                call()
        except Exception as error:
            self.lost.add(name)
            again = f" ({self.file} names the run that was to be continued)" if name in known(self.file) else ""
            self.tell(f"{name}: warning: the report was not sent: {type(error).__name__}: {first_line(error)}{again}")


def _log(tracker: Tracker, report: Report, step: int) -> None:
    if report.scores:
        tracker.log_scores(report.scores, step)
    if report.facts:
        tracker.log_facts(report.facts)
    for table in report.tables:
        tracker.log_table(table, step)


def known(file: Path | None) -> dict[str, dict[str, str]]:
    """Read what identifies the runs of trackers; empty for a file that is missing or damaged."""
    if file is None or not file.is_file():
        return {}
    try:
        content = read_json(file)
    except (OlmesError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {
        name: {key: text for key, text in found.items() if isinstance(text, str)}
        for name, found in entries
        if isinstance(found, dict)
    }
