"""Run `olmes eval` on the stage's checkpoints in a separate process while the stage trains; a plugin of the stage.

A checkpoint's model files are hard-linked before they are read, so that they survive until the evaluation ends even if
the trainer rotates the checkpoint away. One evaluation runs at a time; `evaluations.jsonl` holds one result per step.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError
from olmes_suite.files import write_text
from olmes_suite.hooks import Stage, hookimpl
from olmes_suite.processes import end_with_parent
from olmes_suite.runs.schema import Lineage, Results
from train_plugins.checkpoints import lineage
from train_plugins.checkpoints.adapters import is_adapter
from train_plugins.checkpoints.eval_command import asked, command, devices, environment, merging
from train_plugins.checkpoints.rivals import Rivals, rivals
from train_plugins.config.evaluation import Evaluation
from train_plugins.config.recipe import Recipe

FILE = "evaluations.jsonl"
LINKS = "evaluating"
BEST = "best"
"""Folder in the stage's output with hard links to the best checkpoint's files; its own folder may be rotated away."""
NOT_THE_MODEL = ("optimizer", "scheduler", "rng_state", "trainer_state", "training_args", "scaler")


@dataclass(frozen=True, slots=True)
class Result:
    """Scores of one checkpoint, as fractions."""

    step: int
    checkpoint: str
    run: str | None
    """Folder of the run; None if the evaluation failed."""
    tasks: Mapping[str, float | None]
    """Each top-level task's primary metric."""
    average: float | None
    """Unweighted mean of the tasks; None unless every task has a score."""
    error: str | None = None
    asked: str | None = None
    """Description of the evaluation (see `asked`); only averages with the same description are compared."""
    projected: bool = False
    """Whether scores are projected to all documents, as the run stopped when its gate was decided."""
    stderr: float | None = None
    """Standard error of a projected average."""


class Evaluator:
    """Evaluates the checkpoints of one stage."""

    def __init__(self, settings: Evaluation, output: Path, rivals: Rivals | None = None) -> None:
        """Evaluate by these settings; `rivals` is what `until_decided` holds checkpoints against."""
        self.settings = settings
        self.output = output
        self.rivals = rivals
        self.asked = asked(settings) if rivals is None else f"{asked(settings)} {rivals.described}"
        self.baseline = None if rivals is None else rivals.run
        self.done = read_results(output / FILE)
        self.pool = ThreadPoolExecutor(max_workers=1)
        self.waiting: list[Future[None]] = []
        self.process: subprocess.Popen[str] | None = None
        self.told: Callable[[Result], None] | None = None
        """Receives each result, beside the file."""
        self.live: str | None = None
        """Address of the training's engine while it can answer (see `live_engine`)."""
        self.pending: Future[None] | None = None
        """The evaluation that waits for the training's engine."""
        self.started: set[int] = set()
        self.closed = False
        self.finished = False

    @hookimpl
    def olmes_after_checkpoint(self, stage: Stage, checkpoint: Path) -> None:
        """Start the evaluation of a checkpoint whose step is a multiple of `every`, without waiting for it."""
        self._periodic(checkpoint)

    @hookimpl(tryfirst=True)
    def olmes_after_stage(self, stage: Stage, checkpoint: Path, run: Mapping[str, Any]) -> None:
        """Evaluate the last checkpoint, wait for all evaluations, and write the scores into its card."""
        self._finish(checkpoint, Lineage.from_json(run))

    def _periodic(self, checkpoint: Path) -> None:
        step = lineage.step(checkpoint)
        if self.settings.every is not None and step % self.settings.every == 0:
            self._start(checkpoint, step)

    def _finish(self, checkpoint: Path, run: Lineage) -> None:
        step = run.step or 0
        self._start(checkpoint, step)
        self.wait()
        self.finished = True
        best = self.best()
        if best is not None and best.step == step:  # the output itself is the best
            shutil.rmtree(self.output / BEST, ignore_errors=True)
        scores = [asdict(result) for result in self.results() if result.error is None]
        lineage.rewrite_card(checkpoint, run, scores)

    def catch_up(self) -> None:
        """Evaluate what an earlier start of the stage saved but did not evaluate; wait for it if the stage is finished.

        A checkpoint that was rotated away before its evaluation is read from the links that the earlier start left.
        """
        left = sorted((self.output / LINKS).glob("*"))
        finished = (self.output / lineage.FILE).is_file()
        if finished:
            self._start(self.output, lineage.step(self.output))
        for checkpoint in lineage.whole_checkpoints(self.output):
            self._periodic(checkpoint)
        for folder in left:
            self._evaluate_link(folder)
        self._mend()
        if finished:
            self._finish(self.output, lineage.read(self.output))

    def results(self) -> list[Result]:
        """Return the results of the current evaluation, by step; `eval` may have changed since an earlier start."""
        return sorted((result for result in self.done if result.asked == self.asked), key=lambda result: result.step)

    def best(self) -> Result | None:
        """Return the evaluated checkpoint with the highest average, the earliest of equals."""
        scored = [result for result in self.results() if result.average is not None]
        return max(scored, key=lambda result: (result.average or 0.0, -result.step), default=None)

    def wait(self) -> None:
        """Wait for the evaluations that were started."""
        for future in self.waiting:
            future.result()
        self.waiting.clear()

    def close(self) -> None:
        """Stop the running evaluation and drop the waiting ones."""
        self.closed = True
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
        self.pool.shutdown(wait=True, cancel_futures=True)
        if self.finished:  # otherwise a later start evaluates them
            shutil.rmtree(self.output / LINKS, ignore_errors=True)

    def _start(self, checkpoint: Path, step: int) -> None:
        if self._is_covered(step):
            return
        self.started.add(step)
        last = checkpoint == self.output
        folder = checkpoint if last else link(checkpoint, self.output / LINKS / f"{self.output.name}-step{step}")
        future = self.pool.submit(self._evaluate, folder, checkpoint, step, self.live)
        self.waiting.append(future)
        self.pending = future if self.live else None

    def begin_last(self, checkpoint: Path) -> None:
        """Start the evaluation of the last checkpoint while the training's engine still runs."""
        self._start(checkpoint, lineage.step(checkpoint))

    def take_pending(self) -> Future[None] | None:
        """Return the evaluation that waits for the training's engine, once."""
        pending, self.pending = self.pending, None
        return pending

    def _evaluate_link(self, folder: Path) -> None:
        """Evaluate the linked checkpoint of an earlier start, unless it is evaluated or its own folder is queued."""
        step = step_of(folder)
        if step is None or (self._is_covered(step) and step not in self.started):
            shutil.rmtree(folder, ignore_errors=True)
        elif step not in self.started:
            self.started.add(step)
            checkpoint = self.output / f"checkpoint-{step}"
            self.waiting.append(self.pool.submit(self._evaluate, folder, checkpoint, step))

    def held(self) -> set[str]:
        """Return the checkpoints that an endpoint has not yet read; it reads their own folders, not the links."""
        waiting = self.started - {result.step for result in self.done}
        at_endpoint = self.settings.device == "endpoint"
        return {str(self.output / f"checkpoint-{step}") for step in waiting} if at_endpoint else set()

    def _is_covered(self, step: int) -> bool:
        """Return whether the step is evaluated already or will be."""
        done = any(result.step == step and result.error is None for result in self.results())
        return step in self.started or done

    def _evaluate(self, folder: Path, checkpoint: Path, step: int, live: str | None = None) -> None:
        stdout, stderr, status = "", "", 0
        if folder != checkpoint and is_adapter(folder):
            stdout, stderr, status = self._call(merging(folder))
        if status == 0:
            stdout, stderr, status = self._ask(folder, checkpoint, live)
        if self.closed:
            return
        result = replace(judged(stdout, stderr, status, str(checkpoint), step), asked=self.asked)
        self.done = [one for one in self.done if one.step != step] + [result]
        write_text(self.output / FILE, "".join(json.dumps(asdict(one)) + "\n" for one in self.done))
        shown = "failed: " + result.error if result.error else "average " + _percent(result.average)
        shown += " (projected to all documents)" if result.projected else ""
        print(f"evaluation of step {step}: {shown}", file=sys.stderr)
        if self.told is not None:
            self.told(result)
        if folder != checkpoint:
            self._put_away(folder, result)

    def _ask(self, folder: Path, checkpoint: Path, live: str | None) -> tuple[str, str, int]:
        """Evaluate a checkpoint; with `until_decided`, evaluate the parent on all documents before the first one."""
        line = command(self.settings, folder, checkpoint, live)
        if self.rivals is None:
            return self._call(line)
        if self.baseline is None:
            model = str(self.rivals.model)
            parent = judged(*self._call(command(self.settings, model)), model, 0)
            if parent.run is None:
                return "", f"the parent {model} has no scores: {parent.error}", 1
            self.baseline = parent.run
        return self._call([*line, *self.rivals.options(self.baseline)])

    def _call(self, line: list[str]) -> tuple[str, str, int]:
        """Return (stdout, stderr, exit status) of a command that `close` can end."""
        if self.closed:
            return "", "closed", 130
        env = environment() | devices(self.settings)
        self.process = _start_evaluator(line, env)
        stdout, stderr = self.process.communicate()
        return stdout, stderr, self.process.returncode

    def _mend(self) -> None:
        """Create the `best` folder if an earlier start was killed before it did."""
        best = self.best()
        if best is None or Path(best.checkpoint) == self.output or step_of(self.output / BEST) == best.step:
            return
        if Path(best.checkpoint).is_dir():
            self.waiting.append(self.pool.submit(self._restore, best))

    def _restore(self, best: Result) -> None:
        folder = link(Path(best.checkpoint), self.output / LINKS / f"{self.output.name}-step{best.step}")
        if not is_adapter(folder) or self._call(merging(folder))[2] == 0:
            self._put_away(folder, best)

    def _put_away(self, folder: Path, result: Result) -> None:
        """Move the links of the best checkpoint so far to `best`, safe from rotation; delete other links."""
        best = self.best()
        if best is not None and best.step == result.step:
            shutil.rmtree(self.output / BEST, ignore_errors=True)
            folder.replace(self.output / BEST)
        shutil.rmtree(folder, ignore_errors=True)

    def best_folder(self, best: Result) -> Path:
        """Return the folder with the best checkpoint's whole model; its own may be gone or hold only an adapter."""
        linked = self.output / BEST
        return linked if step_of(linked) == best.step else Path(best.checkpoint)


def of_recipe(recipe: Recipe, output: Path) -> Evaluator | None:
    """Return the evaluator of a stage; None without `eval`."""
    return None if recipe.eval is None else Evaluator(recipe.eval, output, rivals(recipe, output))


def step_of(folder: Path) -> int | None:
    """Return the step of a checkpoint that this package wrote; None if the folder holds none."""
    return lineage.step(folder) if (folder / lineage.FILE).is_file() else None


def evaluate(settings: Evaluation, model: str) -> Result:
    """Evaluate a checkpoint's folder or a Hub model and wait for the result; a finished run is only read.

    The step of the result is 0.
    """
    child = _start_evaluator(command(settings, model), environment() | devices(settings))
    try:
        stdout, stderr = child.communicate()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if child.returncode == 130:
        raise KeyboardInterrupt
    return judged(stdout, stderr, child.returncode, model, 0)


def _start_evaluator(line: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """Start an evaluator that ends with this process: an orphan would lock the run that the next one needs."""
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=end_with_parent
    )


def judged(stdout: str, stderr: str, status: int, checkpoint: str, step: int) -> Result:
    """Read the result from the output of `olmes eval --json`. One task without a score leaves the average None."""
    try:
        printed = json.loads(stdout)
        results = Results.from_json(printed)
    except (ValueError, KeyError, TypeError):
        lines = [line for line in stderr.splitlines() if line.strip()]
        return Result(step, checkpoint, None, {}, None, lines[-1] if lines else f"olmes eval ended with {status}")
    scores = {name: task.projected or task.score for name, task in results.top_tasks.items()}
    tasks = {name: score.value if score else None for name, score in scores.items()}
    projected = any(task.projected is not None for task in results.top_tasks.values())
    values = [value for value in tasks.values() if value is not None]
    average = sum(values) / len(values) if values and len(values) == len(tasks) else None
    result = Result(step, checkpoint, printed.get("path"), tasks, average, projected=projected)
    errors = [score.stderr for score in scores.values() if score is not None and score.stderr is not None]
    if not projected or len(errors) < len(scores):
        return result
    return replace(result, stderr=math.hypot(*errors) / len(errors))


def read_results(file: Path) -> list[Result]:
    """Read the results of earlier starts of the stage; the last line of each step counts. Raises DataError."""
    if not file.is_file():
        return []
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return list({line["step"]: Result(**line) for line in lines}.values())
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file}: cannot be read ({error}); remove it to evaluate the checkpoints again") from None


def link(checkpoint: Path, folder: Path) -> Path:
    """Hard-link a checkpoint's model files into `folder` (copy them if links are not possible) and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # the lineage is linked last: it marks a whole checkpoint
    for file in sorted(checkpoint.iterdir(), key=lambda file: file.name == lineage.FILE):
        if file.is_file() and not file.name.startswith(NOT_THE_MODEL):
            try:
                os.link(file, folder / file.name)
            except OSError:
                shutil.copyfile(file, folder / file.name)
    return folder


def _percent(value: float | None) -> str:
    return "unknown (a task has no score)" if value is None else f"{100 * value:.1f}"
