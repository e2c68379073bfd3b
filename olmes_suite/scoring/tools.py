"""What some scorers need beside a response: sandbox, judge, classifier, encoder; looked for before anything runs."""

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
"""Those that are models, named on the command line."""

SCORING = (*MODELS, "length_control")
"""Those that the manifest records under `judge`."""

BUILDERS: dict[str, str] = {
    "sandbox": "olmes_suite.sandbox.grade:build",
    "judge": "olmes_suite.judges.factory:judge",
    "classifier": "olmes_suite.judges.factory:classifier",
    "encoder": "olmes_suite.judges.factory:encoder",
    "length_control": "olmes_suite.judges.length_control:build",
}
"""How each need is met: "module:function"; the function takes the ToolOptions and raises MissingData, in one line,
where they do not give the tool or this machine cannot."""


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What the command line says about tools."""

    judge: str | None = None
    """A served model's name with `judge_base_url`, else a checkpoint."""
    judge_base_url: str | None = None
    classifier: str | None = None
    classifier_base_url: str | None = None
    encoder: str | None = None
    """A checkpoint that turns text into vectors."""
    unsafe_code: bool = False
    """Run model-written code without any isolation."""
    seed: int = 1234
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Options of the backend that runs local checkpoints: device, dtype, batch_size."""
    mirrors: tuple[Path, ...] = ()
    """Folders where a scorer's own data files are looked for."""
    sample: bool = False
    """The documents are the samples: data files that belong to the real ones do not apply."""


@dataclass(slots=True)
class Tools:
    """The tools of one run, each made when it is first asked for."""

    options: ToolOptions = field(default_factory=ToolOptions)
    made: dict[str, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock, repr=False, compare=False)
    """Scoring threads ask at the same time, and every tool is made once."""

    def resolve(self, need: str) -> str:
        """Of alternatives such as `judge|classifier` the first that the command line names, else the last."""
        *preferred, last = need.split("|")
        return next((name for name in preferred if getattr(self.options, name, None) is not None), last)

    def get(self, need: str) -> Any:
        """The tool of that name, or the one that `resolve` picks. Raises MissingData where none is named."""
        need = self.resolve(need)
        with self.lock:
            if need not in self.made:
                if need not in BUILDERS:
                    raise MissingData(f"this version of olmes-suite has no {need}")
                module, function = BUILDERS[need].split(":")
                self.made[need] = getattr(importlib.import_module(module), function)(self.options)
            return self.made[need]

    def fingerprints(self, needs: Iterable[str]) -> dict[str, str]:
        """Need to the fingerprint of the tool that meets it, for tools that have one (models)."""
        made = {need: self.made[need] for need in map(self.resolve, needs) if need in self.made}
        return {need: tool.fingerprint for need, tool in sorted(made.items()) if hasattr(tool, "fingerprint")}

    def record(self) -> dict[str, Any] | None:
        """What the manifest says about the models that score: need to name, fingerprint, tokens; None without any."""
        found = {need: self.made[need].record() for need in SCORING if hasattr(self.made.get(need), "record")}
        return found or None

    def notes(self) -> list[str]:
        """Lines for the user about the tools that were made."""
        return [line for _, tool in sorted(self.made.items()) if hasattr(tool, "notes") for line in tool.notes()]

    def tell(self, report: Callable[[str], None]) -> None:
        """Pass a function that receives lines of progress to the tools that take long."""
        for tool in self.made.values():
            if hasattr(tool, "report_progress"):
                tool.report_progress = report

    def close(self) -> None:
        """Let go of what the tools hold: processes, models, connections."""
        for tool in self.made.values():
            if (close := getattr(tool, "close", None)) is not None:
                close()
        self.made.clear()
