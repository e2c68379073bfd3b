"""`olmes eval` of the stage's checkpoints, in a process of its own, beside the training; a plugin like any other.

A checkpoint's model files are hard-linked before they are read, so that a checkpoint which the trainer rotates away
stays until its evaluation is over. One evaluation runs at a time; results are joined by step in `evaluations.jsonl`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
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
from train_plugins.config.recipe import Evaluation

FILE = "evaluations.jsonl"
LINKS = "evaluating"
BEST = "best"
"""In the stage's output: the model files of the best earlier checkpoint, linked; its own folder may be rotated away."""
NOT_THE_MODEL = ("optimizer", "scheduler", "rng_state", "trainer_state", "training_args", "scaler")


@dataclass(frozen=True, slots=True)
class Result:
    """Scores of one checkpoint, as fractions."""

    step: int
    checkpoint: str
    run: str | None
    """Folder of the run; None where the evaluation failed."""
    tasks: Mapping[str, float | None]
    """Each top-level task's primary metric."""
    average: float | None
    """Unweighted mean of the tasks; None unless each has its score."""
    error: str | None = None
    asked: str | None = None
    """What was asked; averages are compared where it is the same."""


class Evaluator:
    """Evaluates the checkpoints of one stage."""

    def __init__(self, wanted: Evaluation, output: Path) -> None:
        self.wanted = wanted
        self.output = output
        self.done = read_results(output / FILE)
        self.pool = ThreadPoolExecutor(max_workers=1)
        self.waiting: list[Future[None]] = []
        self.process: subprocess.Popen[str] | None = None
        self.started: set[int] = set()
        self.closed = False
        self.finished = False

    @hookimpl
    def olmes_after_checkpoint(self, stage: Stage, checkpoint: Path) -> None:
        """Start the evaluation of a checkpoint whose step is a multiple of `every`; it is not waited for."""
        self._periodic(checkpoint)

    @hookimpl(tryfirst=True)
    def olmes_after_stage(self, stage: Stage, checkpoint: Path, run: Mapping[str, Any]) -> None:
        """Evaluate the last checkpoint, wait for all, and write the scores into its card."""
        self._finish(checkpoint, Lineage.from_json(run))

    def _periodic(self, checkpoint: Path) -> None:
        step = lineage.step(checkpoint)
        if self.wanted.every is not None and step % self.wanted.every == 0:
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
        """What an earlier start of the stage saved and did not evaluate; of a finished stage, wait for it.

        A checkpoint that was rotated away before its turn lies in the links that the earlier start has left.
        """
        left = sorted((self.output / LINKS).glob("*"))
        finished = (self.output / lineage.FILE).is_file()
        if finished:
            self._start(self.output, lineage.step(self.output))
        for checkpoint in lineage.whole_checkpoints(self.output):
            self._periodic(checkpoint)
        for folder in left:
            self._go_on(folder)
        self._mend()
        if finished:
            self._finish(self.output, lineage.read(self.output))

    def results(self) -> list[Result]:
        """What is done so far of what is asked now, by step; `eval` may have changed since an earlier start."""
        now = asked(self.wanted)
        return sorted((one for one in self.done if one.asked == now), key=lambda result: result.step)

    def best(self) -> Result | None:
        """The evaluated checkpoint with the highest average; the earlier of equals."""
        scored = [result for result in self.results() if result.average is not None]
        return max(scored, key=lambda result: (result.average or 0.0, -result.step), default=None)

    def wait(self) -> None:
        """Wait for the evaluations that were started."""
        for future in self.waiting:
            future.result()
        self.waiting.clear()

    def close(self) -> None:
        """Stop what still runs."""
        self.closed = True
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
        self.pool.shutdown(wait=True, cancel_futures=True)
        if self.finished:  # else a later start goes on with them
            shutil.rmtree(self.output / LINKS, ignore_errors=True)

    def _start(self, checkpoint: Path, step: int) -> None:
        if self._is_asked(step):
            return
        self.started.add(step)
        last = checkpoint == self.output
        folder = checkpoint if last else link(checkpoint, self.output / LINKS / f"{self.output.name}-step{step}")
        self.waiting.append(self.pool.submit(self._evaluate, folder, checkpoint, step))

    def _go_on(self, folder: Path) -> None:
        """Evaluate what lies in the links of an earlier start, unless its checkpoint is there or it is done."""
        step = step_of(folder)
        if step is None or (self._is_asked(step) and step not in self.started):
            shutil.rmtree(folder, ignore_errors=True)
        elif step not in self.started:
            self.started.add(step)
            checkpoint = self.output / f"checkpoint-{step}"
            self.waiting.append(self.pool.submit(self._evaluate, folder, checkpoint, step))

    def held(self) -> set[str]:
        """The checkpoints that an endpoint has yet to read from their own folders, not from the links."""
        waiting = self.started - {one.step for one in self.done}
        at_endpoint = self.wanted.device == "endpoint"
        return {str(self.output / f"checkpoint-{step}") for step in waiting} if at_endpoint else set()

    def _is_asked(self, step: int) -> bool:
        """It is evaluated, or will be."""
        return step in self.started or any(one.step == step and one.error is None for one in self.results())

    def _evaluate(self, folder: Path, checkpoint: Path, step: int) -> None:
        said, complained, status = "", "", 0
        if folder != checkpoint and is_adapter(folder):
            said, complained, status = self._call(merging(folder))
        if status == 0:
            said, complained, status = self._call(command(self.wanted, folder, checkpoint))
        if self.closed:
            return
        result = replace(judged(said, complained, status, str(checkpoint), step), asked=asked(self.wanted))
        self.done = [one for one in self.done if one.step != step] + [result]
        write_text(self.output / FILE, "".join(json.dumps(asdict(one)) + "\n" for one in self.done))
        shown = "failed: " + result.error if result.error else "average " + _percent(result.average)
        print(f"evaluation of step {step}: {shown}", file=sys.stderr)
        if folder != checkpoint:
            self._put_away(folder, result)

    def _call(self, line: list[str]) -> tuple[str, str, int]:
        """Standard output, standard error and exit status of a command that `close` can end."""
        if self.closed:
            return "", "closed", 130
        env = environment() | devices(self.wanted)
        self.process = _started(line, env)
        said, complained = self.process.communicate()
        return said, complained, self.process.returncode

    def _mend(self) -> None:
        """Make `best` where an earlier start was killed before it had done so."""
        best = self.best()
        if best is None or Path(best.checkpoint) == self.output or step_of(self.output / BEST) == best.step:
            return
        if Path(best.checkpoint).is_dir():
            self.waiting.append(self.pool.submit(self._keep, best))

    def _keep(self, best: Result) -> None:
        folder = link(Path(best.checkpoint), self.output / LINKS / f"{self.output.name}-step{best.step}")
        if not is_adapter(folder) or self._call(merging(folder))[2] == 0:
            self._put_away(folder, best)

    def _put_away(self, folder: Path, result: Result) -> None:
        """The linked files of the best checkpoint so far become `best`, whatever is rotated away; others go."""
        best = self.best()
        if best is not None and best.step == result.step:
            shutil.rmtree(self.output / BEST, ignore_errors=True)
            folder.replace(self.output / BEST)
        shutil.rmtree(folder, ignore_errors=True)

    def best_folder(self, best: Result) -> Path:
        """Where the best checkpoint lies now, whole: its own folder may be rotated away, or hold an adapter alone."""
        kept = self.output / BEST
        return kept if step_of(kept) == best.step else Path(best.checkpoint)


def asked(wanted: Evaluation) -> str:
    """What decides an average: the tasks, how many of their documents, and who judges the answers."""
    judges = {name: getattr(wanted, name) for name in ("judge", "classifier", "encoder")}
    named = [f"{name}={value}" for name, value in judges.items() if value is not None]
    return " ".join([*([wanted.suite] if wanted.suite else []), *wanted.tasks, f"limit={wanted.limit}", *named])


def step_of(folder: Path) -> int | None:
    """The step of a checkpoint of ours; None where there is none."""
    return lineage.step(folder) if (folder / lineage.FILE).is_file() else None


def evaluate(wanted: Evaluation, model: str) -> Result:
    """Evaluate a checkpoint's folder or a Hub model, and wait for it; a run that is finished already is only read.

    Its step is 0.
    """
    child = _started(command(wanted, model), environment() | devices(wanted))
    try:
        said, complained = child.communicate()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if child.returncode == 130:
        raise KeyboardInterrupt
    return judged(said, complained, child.returncode, model, 0)


def _started(line: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """An evaluator, which ends with this process: one that went on alone would keep the next from its run."""
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=end_with_parent
    )


def command(wanted: Evaluation, folder: Path | str, checkpoint: Path | str | None = None) -> list[str]:
    """The command line that evaluates a checkpoint's folder. An endpoint is asked for it under its own path,
    `checkpoint`, where `folder` holds its links."""
    at_endpoint = wanted.device == "endpoint"
    line = [
        sys.executable,
        "-m",
        "olmes_suite.cli.main",
        "eval",
        "--model",
        str(checkpoint if at_endpoint and checkpoint is not None else folder),
        "--runs",
        wanted.runs,
        "--json",
    ]
    if at_endpoint:
        line += ["--backend", "openai", "--base-url", str(wanted.base_url)]
        own = Path(folder) / lineage.FILE
        line += ["--lineage", str(own)] if own.is_file() else []
    line += ["--suite", wanted.suite] if wanted.suite else []
    for task in wanted.tasks:
        line += ["--task", task]
    for flag, folders in (("--data-dir", wanted.data_dir), ("--include-path", wanted.include_path)):
        for name in folders:
            line += [flag, name]
    for name in ("limit", "judge", "judge_base_url", "classifier", "classifier_base_url", "encoder"):
        value = getattr(wanted, name)
        line += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    return line


def merging(folder: Path) -> list[str]:
    """The command line that makes a whole model of a folder with an adapter."""
    return [sys.executable, "-m", "train_plugins.checkpoints.adapters", str(folder), str(folder)]


def devices(wanted: Evaluation) -> dict[str, str]:
    """Variables that show the evaluator one GPU, where the recipe names one."""
    return {"CUDA_VISIBLE_DEVICES": str(wanted.device)} if isinstance(wanted.device, int) else {}


def judged(said: str, complained: str, status: int, checkpoint: str, step: int) -> Result:
    """The result in what `olmes eval --json` printed. A task without its score leaves no average."""
    try:
        printed = json.loads(said)
        results = Results.from_json(printed)
    except (ValueError, KeyError, TypeError):
        lines = [line for line in complained.splitlines() if line.strip()]
        return Result(step, checkpoint, None, {}, None, lines[-1] if lines else f"olmes eval ended with {status}")
    tasks = {name: task.score.value if task.score else None for name, task in results.top_tasks.items()}
    values = [value for value in tasks.values() if value is not None]
    average = sum(values) / len(values) if values and len(values) == len(tasks) else None
    return Result(step, checkpoint, printed.get("path"), tasks, average)


def read_results(file: Path) -> list[Result]:
    """The results of an earlier start of the stage; the last word on each step counts. Raises DataError."""
    if not file.is_file():
        return []
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return list({line["step"]: Result(**line) for line in lines}.values())
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file}: cannot be read ({error}); remove it to have the checkpoints evaluated anew") from None


def link(checkpoint: Path, folder: Path) -> Path:
    """Hard links (copies, where the disk has none) of a checkpoint's model files in `folder`; returns it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in sorted(checkpoint.iterdir(), key=lambda file: file.name == lineage.FILE):  # the lineage is last: whole
        if file.is_file() and not file.name.startswith(NOT_THE_MODEL):
            try:
                os.link(file, folder / file.name)
            except OSError:
                shutil.copyfile(file, folder / file.name)
    return folder


def environment() -> dict[str, str]:
    """The evaluator is one process, whatever launched the training."""
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_")
    return {name: value for name, value in os.environ.items() if not name.startswith(launcher)}


def _percent(value: float | None) -> str:
    return "unknown (a task has no score)" if value is None else f"{100 * value:.1f}"
