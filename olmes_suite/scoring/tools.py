"""Tools of scorers: sandbox, judge, classifier and encoder, checked before anything runs."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmes_suite.errors import MissingData

NEEDS = ("sandbox", "judge", "classifier", "encoder", "length_control")
"""Names that a task file may list under `needs`, or alternatives of them: `judge|classifier`."""
MODELS = ("judge", "classifier", "encoder")
"""Needs that are models, named on the command line."""

SCORING = (*MODELS, "length_control")
"""Needs that the manifest records under `judge`."""

BUILDERS: dict[str, str] = {
    "sandbox": "olmes_suite.sandbox.grade:build",
    "judge": "olmes_suite.judges.factory:judge",
    "classifier": "olmes_suite.judges.factory:classifier",
    "encoder": "olmes_suite.judges.factory:encoder",
    "length_control": "olmes_suite.judges.length_control:build",
}
"""Need to "module:function". The function takes the ToolOptions and raises MissingData, with one line, if the options
do not name the tool or the machine cannot run it."""


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """The options of the command line about tools."""

    judge: str | None = None
    """A served model's name with `judge_base_url`, otherwise a checkpoint."""
    judge_base_url: str | None = None
    classifier: str | None = None
    classifier_base_url: str | None = None
    encoder: str | None = None
    """A checkpoint that embeds texts."""
    unsafe_code: bool = False
    """Run model-written code without any isolation."""
    seed: int = 1234
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Options of the backend that runs local checkpoints: device, dtype, batch_size."""
    mirrors: tuple[Path, ...] = ()
    """Folders searched for data files of scorers."""
    sample: bool = False
    """Whether the documents are samples, to which data files of the full data sets do not apply."""


@dataclass(slots=True)
class Tools:
    """The tools of a run, each built on first use."""

    options: ToolOptions = field(default_factory=ToolOptions)
    made: dict[str, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock, repr=False, compare=False)
    """Ensures that concurrent scoring threads build each tool once."""

    def resolve(self, need: str) -> str:
        """Choose from alternatives such as `judge|classifier` the first that the options name, otherwise the last."""
        *preferred, last = need.split("|")
        return next((name for name in preferred if getattr(self.options, name, None) is not None), last)

    def get(self, need: str) -> Any:
        """Return the tool for a need, as `resolve` chooses it. Raises MissingData if it is unavailable."""
        need = self.resolve(need)
        with self.lock:
            if need not in self.made:
                if need not in BUILDERS:
                    raise MissingData(f"this version of olmes-suite has no {need}")
                module, function = BUILDERS[need].split(":")
                self.made[need] = getattr(importlib.import_module(module), function)(self.options)
            return self.made[need]

    def fingerprints(self, needs: Iterable[str]) -> dict[str, str]:
        """Return the fingerprints of the tools (models) that have one, by need."""
        made = {need: self.made[need] for need in map(self.resolve, needs) if need in self.made}
        return {need: tool.fingerprint for need, tool in sorted(made.items()) if hasattr(tool, "fingerprint")}

    def record(self) -> dict[str, Any] | None:
        """Describe the scoring models for the manifest: need to name, fingerprint and usage; None without any."""
        records = {need: self.made[need].record() for need in SCORING if hasattr(self.made.get(need), "record")}
        return records or None

    def notes(self) -> list[str]:
        """Return lines for the user about the tools."""
        return [line for _, tool in sorted(self.made.items()) if hasattr(tool, "notes") for line in tool.notes()]

    def tell(self, report: Callable[[str], None]) -> None:
        """Pass a function that receives lines of progress to the tools that take long."""
        for tool in self.made.values():
            if hasattr(tool, "report_progress"):
                tool.report_progress = report

    def close(self) -> None:
        """Release the processes, models and connections of the tools."""
        for tool in self.made.values():
            if (close := getattr(tool, "close", None)) is not None:
                close()
        self.made.clear()
