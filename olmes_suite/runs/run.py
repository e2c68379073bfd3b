"""A recorded run as an object of the Python interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from olmes_suite.runs.schema import FirstPrompt, Manifest, Results


@dataclass(frozen=True)
class Run:
    """A recorded run: its files, and its scores, documents and responses as data frames."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.path.name

    @property
    def results(self) -> Results:
        """The content of results.json."""
        from olmes_suite.runs.schema import read_results

        return read_results(self.path)

    @property
    def manifest(self) -> Manifest:
        """The content of manifest.json: everything needed to repeat the run."""
        from olmes_suite.runs.schema import read_manifest

        return read_manifest(self.path)

    @property
    def prompts(self) -> Mapping[str, FirstPrompt]:
        """The first prompt of each task as the model received it; empty for a run without a model."""
        from olmes_suite.runs.schema import read_prompts

        recorded = read_prompts(self.path)
        return recorded.tasks if recorded is not None else {}

    @property
    def failed(self) -> dict[str, str]:
        """Tasks without a score, with the reason."""
        return {name: str(task.error) for name, task in self.results.tasks.items() if task.failed}

    @property
    def scores(self) -> pd.DataFrame:
        """A table of the tasks: primary metric, value, standard error, 95 % interval, documents, flags."""
        from olmes_suite.runs import frames

        return frames.scores(self.results)

    @property
    def suites(self) -> pd.DataFrame:
        """A table of the suites' averages."""
        from olmes_suite.runs import frames

        return frames.suites(self.results)

    def documents(self, task: str) -> pd.DataFrame:
        """Build a table of the documents of a task or sub-task. Raises UsageError for a task that is not in the run."""
        from olmes_suite.runs import frames

        return frames.documents(self.path, self._tasks, task)

    def responses(self, task: str) -> pd.DataFrame:
        """Build a table of the responses to a task or sub-task. Raises UsageError for a task that is not in the run."""
        from olmes_suite.runs import frames

        return frames.responses(self.path, self._tasks, task)

    @property
    def _tasks(self) -> list[str]:
        return [plan.task for plan in self.manifest.plan]
