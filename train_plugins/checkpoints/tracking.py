"""Reports of a stage to experiment trackers: one run for the stage, with the scores of each evaluated checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import first_line
from olmes_suite.runs.run import Run
from olmes_suite.trackers import content
from olmes_suite.trackers.base import Report, TrackedRun
from olmes_suite.trackers.session import FILE, Session, known

if TYPE_CHECKING:
    from olmes_suite.comparison.gate import GateReport
    from train_plugins.checkpoints.evaluator import Evaluator, Result
    from train_plugins.config.recipe import Recipe

LOCAL = "trackers"
"""Folder in the stage's output for files of trackers that write to disk."""
ROLLOUTS = 16
"""Rollouts of a table."""


class Tracking:
    """Sends a stage's evaluations, rollouts and verdict in a thread of its own, so that the training does not wait."""

    def __init__(self, names: Sequence[str], recipe: Recipe, output: Path) -> None:
        """Report to the trackers `names`; a resumed stage continues its run, which a file in `output` identifies."""
        self.output = output
        facts = {"stage": recipe.kind, "model": recipe.model, "output": str(output.absolute()), "seed": recipe.seed}
        run = TrackedRun(output.absolute().name, output / LOCAL, facts)
        self.session = Session(names, run, output / FILE, quiet=False)
        self.thread = ThreadPoolExecutor(max_workers=1)

    def follow(self, evaluator: Evaluator) -> None:
        """Report what the evaluator finds; first what it found before, to trackers that have no run of the stage."""
        evaluator.told = self.evaluated
        if not {*self.session.names} <= {*known(self.session.file)}:
            for result in evaluator.results():
                self.evaluated(result)

    def evaluated(self, result: Result) -> None:
        """Report the scores of a checkpoint; of the last one also wrong answers and sample answers."""
        if result.run is not None:
            run = Run(Path(result.run))
            last = Path(result.checkpoint) == self.output
            self._submit(lambda: _with_average(content.of_run(run, documents=last), result.average), result.step)

    def judged(self, report: GateReport, step: int) -> None:
        """Report the verdict of the stage's gate."""
        self._submit(lambda: content.of_gate(report), step)

    def rollouts(self, trainer: Any, step: int) -> None:
        """Report the last rollouts of an RLVR trainer; other trainers have none."""
        logs = getattr(trainer, "_logs", None)  # TRL keeps the texts of the last rollouts there
        if not logs or not logs.get("prompt"):
            return
        kept = [list(logs[name])[-ROLLOUTS:] for name in ("prompt", "completion", "advantages")]
        rewards = {name: list(values)[-ROLLOUTS:] for name, values in logs["rewards"].items()}
        self._submit(lambda: content.of_rollouts(*kept, rewards=rewards), step)

    def close(self) -> None:
        """Send what is waiting, and end the trackers' runs."""
        self.thread.submit(self.session.close)
        self.thread.shutdown(wait=True)

    def _submit(self, made: Callable[[], Report], step: int) -> None:
        self.thread.submit(self._send, made, step)

    def _send(self, made: Callable[[], Report], step: int) -> None:
        try:
            self.session.send(made(), step)
        except Exception as error:  # the run is recorded: a report is not worth the training
            print(f"warning: step {step} is not reported: {first_line(error)}", file=sys.stderr)


def _with_average(report: Report, average: float | None) -> Report:
    """Add the stage's own average, which chooses the best checkpoint."""
    return report if average is None else replace(report, scores={**report.scores, "average/all_tasks": average})
