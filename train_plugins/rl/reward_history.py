"""Watching a training by verifiable rewards: its history by step, a line for each log, and over-optimisation.

What the trainer logs under `rlvr/` goes to `rlvr.jsonl` in the output folder, one line for each log. The evaluations
of `evaluations.jsonl` are joined to it by step: each new one is compared with all before it (`overoptimisation`).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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

FILE = "rlvr.jsonl"
PREFIX = "rlvr/"


class Watching(TrainerCallback):
    """A callback of the trainer, on its first process, and a plugin of the stage, which ends in a table."""

    def __init__(self, output: Path, every: int | None = None, say: Callable[[str], None] | None = None) -> None:
        """`every`: steps between evaluations, from which their number follows. `say`: where lines go."""
        self.output = output
        self.every = every
        self.say = say or (lambda line: print(line, file=sys.stderr))
        self.history: list[dict[str, Any]] = []
        self.planned = 1
        self.warned: Overoptimised | None = None
        self.seen: set[int] = set()
        self.runs: dict[int, RunScores] = {}
        self.unread: set[int] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep of an earlier start's history what comes before the step at which this one goes on."""
        if not state.is_world_process_zero:
            return
        self.planned = math.ceil(state.max_steps / self.every) if self.every else 1
        self.history = [line for line in read_history(self.output / FILE) if line["step"] <= state.global_step]
        write_text(self.output / FILE, "".join(json.dumps(line) + "\n" for line in self.history))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Keep and show what was logged; look at evaluations that have ended since."""
        found = {name.removeprefix(PREFIX): value for name, value in (logs or {}).items() if name.startswith(PREFIX)}
        if not state.is_world_process_zero or not found:
            return
        self.history.append(history_line(state.global_step, found))
        with (self.output / FILE).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(self.history[-1]) + "\n")
        self.say(log_line(self.history[-1], state.max_steps))
        self.look()

    @hookimpl
    def olmes_after_stage(self, stage: Stage, checkpoint: Path, run: Mapping[str, Any]) -> None:
        """Look at the last evaluation, show the table of all, and add it to the last checkpoint's card."""
        self.look()
        rows = joined(self.history, self.evaluated())
        for line in table(rows):
            self.say(line)
        card = checkpoint / "README.md"
        if rows and card.is_file():
            told = ["## Reward, KL and dev", "", *table(rows, markdown=True), ""]
            told += [warning(self.warned), ""] if self.warned else []
            write_text(card, card.read_text(encoding="utf-8").rstrip("\n") + "\n\n" + "\n".join(told))

    def look(self) -> None:
        """Compare evaluations that have not been looked at with all before them; warn the first time only."""
        results = [one for one in self._results() if one.step not in self.seen]
        for result in sorted(results, key=lambda one: one.step):
            self.seen.add(result.step)
            if self.warned is None and self._read(result):
                rewards = {one.step: one.rewards for one in joined(self.history, self.evaluated())}
                found = judge(result.step, self._falls(result.step), rewards, self.planned)
                if found is not None:
                    self.warned = found
                    self.say(warning(found))

    def evaluated(self) -> list[Evaluated]:
        """The evaluations that have an average, by step."""
        results = sorted(self._results(), key=lambda one: one.step)
        return [Evaluated(one.step, one.average or 0.0, self._error(one)) for one in results]

    def _results(self) -> list[evaluator.Result]:
        try:
            results = evaluator.read_results(self.output / evaluator.FILE)
        except OlmesError:  # not ours to complain of
            return []
        return [one for one in results if one.average is not None and one.run is not None]

    def _read(self, result: evaluator.Result) -> bool:
        """Whether the run of an evaluation could be read; why not is said once."""
        if result.step not in self.runs and result.step not in self.unread:
            try:
                self.runs[result.step] = read_run(Path(str(result.run)))
            except (OlmesError, OSError) as error:
                self.unread.add(result.step)
                self.say(f"the evaluation of step {result.step} cannot be compared: {error}")
        return result.step in self.runs

    def _falls(self, step: int) -> dict[int, Difference]:
        """Dev at `step` minus dev at each earlier step, over the documents that both have."""
        found = {}
        for earlier, scores in self.runs.items():
            if earlier < step:
                difference = compare_average(compare_runs(scores, self.runs[step]).tasks)
                if difference is not None:
                    found[earlier] = difference
        return found

    def _error(self, result: evaluator.Result) -> float | None:
        """Standard error of the average, as the tasks' errors have it."""
        if not self._read(result):
            return None
        errors = [task.stderr for task in self.runs[result.step].tasks.values()]
        return math.hypot(*(e for e in errors if e is not None)) / len(errors) if None not in errors else None


def read_history(file: Path) -> list[dict[str, Any]]:
    """The lines of an earlier start; one that a kill has cut off is left out."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict) and isinstance(line.get("step"), int)]
