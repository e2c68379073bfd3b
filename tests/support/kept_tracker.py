"""A tracker that keeps what it receives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from olmes_suite import extras
from olmes_suite.trackers import factory, session
from olmes_suite.trackers.base import Table, TrackedRun, Tracker


class Kept(Tracker):
    """A tracker that keeps what it receives."""

    name = "kept"
    runs: dict[str, list[Any]] = {}
    broken: str | None = None
    """Name of the method that fails."""

    def _note(self, method: str, *values: Any) -> None:
        if self.broken == method:
            raise ConnectionError("no route to host\nsecond line")
        self.runs[self.id].append((method, *values))

    def start(self, run: TrackedRun, known: Mapping[str, str]) -> Mapping[str, str]:
        self.id = known.get("id") or f"{run.name}#{len(self.runs)}"
        self.runs.setdefault(self.id, [])
        self._note("start", dict(run.config))
        return {"id": self.id}

    def log_scores(self, scores: Mapping[str, float], step: int) -> None:
        self._note("scores", dict(scores), step)

    def log_facts(self, facts: Mapping[str, str]) -> None:
        self._note("facts", dict(facts))

    def log_table(self, table: Table, step: int) -> None:
        self._note("table", table, step)

    def finish(self) -> str:
        print("a client prints")
        self._note("finish")
        return f"https://tracker/{self.id}"

    @classmethod
    def received(cls, run: str, method: str) -> list[Any]:
        return [event[1:] for event in cls.runs[run] if event[0] == method]


def use(monkeypatch: pytest.MonkeyPatch) -> type[Kept]:
    """Make `kept` a known tracker, without runs so far."""
    monkeypatch.setattr(Kept, "runs", {})
    monkeypatch.setattr(Kept, "broken", None)
    monkeypatch.setattr(factory, "kind", lambda name: Kept)
    monkeypatch.setattr(session, "kind", lambda name: Kept)
    monkeypatch.setitem(factory.BUILT_IN, "kept", "kept_tracker:Kept")
    monkeypatch.setitem(extras.MODULES, "kept", ())
    return Kept


def tables(kept: type[Kept], run: str) -> dict[str, Table]:
    """The last table of each name."""
    return {found.name: found for found, _ in kept.received(run, "table")}
