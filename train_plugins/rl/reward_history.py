"""The history of an RLVR training: rewards by step, a line for each log, and the warning of over-optimisation.

The trainer's metrics under `rlvr/` go to `rlvr.jsonl` in the output folder, one line for each log. The evaluations of
`evaluations.jsonl` are joined to them by step, and each new one is compared with all earlier ones (`overoptimisation`).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from olmes_suite.comparison.compare import compare_average, compare_runs
from olmes_suite.comparison.paired_tests import Difference
from olmes_suite.errors import OlmesError
from olmes_suite.files import write_text
from olmes_suite.hooks import Stage, hookimpl
from olmes_suite.runs.scores import RunScores, read_run
from train_plugins.checkpoints import evaluator
from train_plugins.rl.overoptimisation import Overoptimised, judge
from train_plugins.rl.reward_table import Evaluated, history_line, joined, log_line, table, warning

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

FILE = "rlvr.jsonl"
PREFIX = "rlvr/"


class Watching(TrainerCallback):
    """A callback of the trainer's first process and a plugin of the stage, which shows a table at the end."""

    def __init__(self, output: Path, every: int | None = None, say: Callable[[str], None] | None = None) -> None:
        """Record the history in `output`.

        `every` is the number of steps between evaluations, from which their number follows; `say` prints a line.
        """
        self.output = output
        self.every = every
        self.say = say or (lambda line: print(line, file=sys.stderr))
        self.history: list[dict[str, Any]] = []
        self.planned = 1
        self.warned: Overoptimised | None = None
        self.seen: set[int] = set()
        self.runs: dict[int, RunScores] = {}
        self.unread: set[int] = set()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Drop the lines of an earlier start's history after the step from which this one resumes."""
        if not state.is_world_process_zero:
            return
        self.planned = math.ceil(state.max_steps / self.every) if self.every else 1
        self.history = [line for line in read_history(self.output / FILE) if line["step"] <= state.global_step]
        write_text(self.output / FILE, "".join(json.dumps(line) + "\n" for line in self.history))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: Mapping[str, Any] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Record and show the logged metrics; examine evaluations that have finished since."""
        metrics = {name.removeprefix(PREFIX): value for name, value in (logs or {}).items() if name.startswith(PREFIX)}
        if not state.is_world_process_zero or not metrics:
            return
        self.history.append(history_line(state.global_step, metrics))
        with (self.output / FILE).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(self.history[-1]) + "\n")
        self.say(log_line(self.history[-1], state.max_steps))
        self.examine()

    @hookimpl
    def olmes_after_stage(self, stage: Stage, checkpoint: Path, run: Mapping[str, Any]) -> None:
        """Examine the last evaluation, show the table, and add it to the last checkpoint's card."""
        self.examine()
        rows = joined(self.history, self.evaluated())
        projected = any(result.projected for result in self._results())
        note = ["dev: projected to all documents"] if rows and projected else []
        for line in (*table(rows), *note):
            self.say(line)
        card = checkpoint / "README.md"
        if rows and card.is_file():
            section = ["## Reward, KL and dev", "", *table(rows, markdown=True), "", *note, *([""] if note else [])]
            section += [warning(self.warned), ""] if self.warned else []
            write_text(card, card.read_text(encoding="utf-8").rstrip("\n") + "\n\n" + "\n".join(section))

    def examine(self) -> None:
        """Compare new evaluations with all earlier ones; warn only once."""
        results = [result for result in self._results() if result.step not in self.seen]
        for result in sorted(results, key=lambda result: result.step):
            self.seen.add(result.step)
            if self.warned is None and self._read(result):
                rewards = {row.step: row.rewards for row in joined(self.history, self.evaluated())}
                self.warned = judge(result.step, self._falls(result.step), rewards, self.planned)
                if self.warned is not None:
                    self.say(warning(self.warned))

    def evaluated(self) -> list[Evaluated]:
        """Return the evaluations that have an average, by step."""
        results = sorted(self._results(), key=lambda result: result.step)
        return [Evaluated(result.step, result.average or 0.0, self._error(result)) for result in results]

    def _results(self) -> list[evaluator.Result]:
        try:
            results = evaluator.read_results(self.output / evaluator.FILE)
        except OlmesError:  # the evaluator reports a damaged file
            return []
        return [result for result in results if result.average is not None and result.run is not None]

    def _read(self, result: evaluator.Result) -> bool:
        """Return whether the run of an evaluation can be read; an error is shown once."""
        if result.step not in self.runs and result.step not in self.unread:
            try:
                self.runs[result.step] = read_run(Path(str(result.run)))
            except (OlmesError, OSError) as error:
                self.unread.add(result.step)
                self.say(f"the evaluation of step {result.step} cannot be compared: {error}")
        return result.step in self.runs

    def _falls(self, step: int) -> dict[int, Difference]:
        """Return dev at `step` minus dev at each earlier step, over the documents that both have.

        Which documents those are depends on the scores where a run stopped early. The p-value then counts for all looks
        at which it may have stopped (Bonferroni).
        """
        falls = {}
        for earlier, scores in self.runs.items():
            if earlier < step:
                difference = compare_average(compare_runs(scores, self.runs[step]).tasks)
                if difference is not None:
                    looks = max(map(_looks, (scores, self.runs[step])))
                    p = None if difference.p_drop is None else min(1.0, looks * difference.p_drop)
                    falls[earlier] = replace(difference, p_drop=p)
        return falls

    def _error(self, result: evaluator.Result) -> float | None:
        """Return the standard error of the average, from the tasks' standard errors; None if one is unknown."""
        if result.projected:
            return result.stderr
        if not self._read(result):
            return None
        errors = [task.stderr for task in self.runs[result.step].tasks.values()]
        return math.hypot(*(e for e in errors if e is not None)) / len(errors) if None not in errors else None


def _looks(run: RunScores) -> int:
    """Return the number of looks at which a run may have stopped; 1 for a run of fixed documents."""
    return 1 if run.stopped is None else max(run.stopped.of_looks, len(run.stopped.looks), 1)


def read_history(file: Path) -> list[dict[str, Any]]:
    """Read the lines of an earlier start, without one that a kill has cut off."""
    if not file.is_file():
        return []
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]
