"""A pipeline from base to final look: evaluate, prepare, train, compare. Each stage is a process of its own.

What is done is not repeated: stages by their lineage, evaluations by their runs, the final look by a record of its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from olmes_suite.errors import StageRefused, UsageError, WrongKey
from olmes_suite.files import read_json, write_json, write_text
from olmes_suite.models.local.fingerprint import fingerprint_of
from olmes_suite.processes import end_with_parent
from train_plugins.checkpoints import gains, gate, lineage, resume
from train_plugins.checkpoints.evaluator import FILE as EVALUATIONS
from train_plugins.checkpoints.evaluator import Result, environment, evaluate, read_results
from train_plugins.config.recipe import Recipe
from train_plugins.running.pipeline_file import Pipeline, Planned
from train_plugins.running.train_stage import quiet, trainer_arguments

FINAL = "final.json"
"""In the pipeline's output: the final look, by checkpoint and hash of its weights; these are not looked at again."""
RECIPES = "recipes"
"""In the pipeline's output: the stages' recipes, as the pipeline resolved them."""


def check(pipeline: Pipeline) -> list[Planned]:
    """The stages with their trainers' arguments typed. Raises UsageError; imports TRL, loads no model."""
    found = []
    outputs = {str(one.output) for one in pipeline.stages}
    for one in pipeline.stages:
        try:
            wanted, _ = trainer_arguments(one.stage, _now(one.recipe, outputs))
        except WrongKey:
            raise  # names the file and the stage
        except UsageError as error:
            raise UsageError(f"{pipeline.file}: stage {one.name!r}: {error}") from None
        found.append(replace(one, recipe=replace(wanted, own=one.recipe.own)))
    return found


def _now(wanted: Recipe, outputs: set[str]) -> Recipe:
    """The recipe as it can be checked before the stages have run: a value model that is yet to be trained is none."""
    named = getattr(wanted.own, "value_model", None)
    if named not in outputs or (Path(named) / "config.json").is_file():
        return wanted
    return replace(wanted, own=replace(wanted.own, value_model=None, fresh_head=True))


def run(pipeline: Pipeline, launch: Sequence[str] = ()) -> Path:
    """Run what is not done yet; returns the last checkpoint. `launch`: arguments of the command that trains a stage.

    Raises StageRefused where a stage or its gate refused, UsageError for a stage that its recipe no longer fits.
    """
    quiet()
    stages = check(pipeline)
    runs: dict[str, Path] = {}
    first = next((one for one in stages if one.recipe.eval), None)
    asked: set[str] = set()
    if first is not None:
        _evaluate(first, pipeline.base, runs, asked)
    trained: list[str] = []
    for one in stages:
        if one.recipe.eval is not None:  # a gain has two ends
            _evaluate(one, one.recipe.model, runs, asked)
            asked.add(str(one.output))  # by the stage itself
        if _finished(one):
            if one.recipe.model in trained:
                raise _older_parent(one, "was trained")
            _tell(f"stage {one.name}: done already")
        else:
            if one.recipe.model in trained and lineage.whole_checkpoints(one.output):
                raise _older_parent(one, "was begun")
            _prepare(one)
            before = _made(one)
            _train(one, pipeline.output / RECIPES / f"{one.name}.yaml", launch)
            if _made(one) != before:  # else only its evaluation or gate was to be done
                trained.append(str(one.output))
        for result in _results(one):
            _note(runs, str(one.output), result)
    look = _final(pipeline)
    _report(pipeline, stages, runs, look)
    return pipeline.last.output


def _evaluate(one: Planned, model: str, runs: dict[str, Path], asked: set[str]) -> None:
    """Evaluate a checkpoint as the stage's `eval` says, unless it has been or its own stage has."""
    if model not in asked and one.recipe.eval is not None:
        asked.add(model)
        _tell(f"{model}: evaluation")
        _note(runs, model, evaluate(one.recipe.eval, model))


def _older_parent(one: Planned, how: str) -> UsageError:
    return UsageError(
        f"stage {one.name}: {one.output} {how} from an earlier {one.recipe.model}; remove the folder to train it anew"
    )


def _made(one: Planned) -> bytes:
    """The lineage of the stage's last checkpoint as it stands in the file; empty as long as there is none."""
    file = one.output / lineage.FILE
    return file.read_bytes() if file.is_file() else b""


def _tell(line: str) -> None:
    print(f"== {line}", file=sys.stderr, flush=True)


def _note(runs: dict[str, Path], checkpoint: str, result: Result) -> None:
    """Keep the run of a checkpoint, and say what it brought."""
    if result.run is not None:
        runs[checkpoint] = Path(result.run)
    said = ", ".join(f"{name.removeprefix('tulu3_')} {_points(value)}" for name, value in result.tasks.items())
    _tell(f"{checkpoint}: {result.error or said}")


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _results(one: Planned) -> list[Result]:
    """The evaluation of the stage's last checkpoint, if there is one."""
    step = lineage.step(one.output)
    return [result for result in read_results(one.output / EVALUATIONS) if result.step == step]


def _finished(one: Planned) -> bool:
    """The stage is trained, evaluated and past its gate. Raises UsageError where it was made by another recipe."""
    if not (one.output / lineage.FILE).is_file():
        return False
    resume.same_stage(one.output, one.recipe.as_data())
    evaluated = one.recipe.eval is None or any(result.error is None for result in _results(one))
    return evaluated and (one.recipe.gate is None or gate.passed(one.output))


def _prepare(one: Planned) -> None:
    """Run the command that makes the stage's data, unless they are there."""
    wanted = one.prepare
    if wanted is None or all(Path(file).exists() for file in wanted.makes):
        return
    given = {"{model}": one.recipe.model, "{seed}": str(one.recipe.seed), "{python}": sys.executable}
    command = list(wanted.command)
    for name, value in given.items():
        command = [part.replace(name, value) for part in command]
    _tell(f"stage {one.name}: {' '.join(command)}")
    status = _call(command)
    missing = [file for file in wanted.makes if not Path(file).exists()]
    if status or missing:
        why = f"ended with status {status}" if status else f"did not write {missing[0]}"
        raise StageRefused(f"stage {one.name}: {command[0]} {why}")


def _train(one: Planned, file: Path, launch: Sequence[str]) -> None:
    """Train the stage, from its last whole checkpoint where it was begun. Raises by the process's exit status."""
    import yaml

    write_text(file, yaml.safe_dump(dict(one.data), sort_keys=False, allow_unicode=True))
    _tell(f"stage {one.name}: {one.stage.name} from {one.recipe.model}")
    command = [sys.executable, "-m", "olmes_suite.cli.main", "train", one.stage.name, str(file), "--resume", *launch]
    status = _call(command, quiet=True)
    if status == 130:
        raise KeyboardInterrupt
    if status == 2:
        raise UsageError(f"stage {one.name} cannot run: see the line above")
    if status:
        raise StageRefused(f"stage {one.name} ended with status {status}: see above; the same command goes on with it")


def _call(command: Sequence[str], quiet: bool = False) -> int:
    """Run a command to its end, whatever ends this process: the child never goes on alone.

    `quiet`: its standard output, a stage's path, is not for the pipeline's.
    """
    out: Any = subprocess.DEVNULL if quiet else sys.stderr.fileno()
    child = subprocess.Popen(command, stdout=out, env=environment(), preexec_fn=end_with_parent)
    try:
        return child.wait()
    except BaseException:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
        raise


def _final(pipeline: Pipeline) -> Result | None:
    """The final look at the last checkpoint, once and never again."""
    if pipeline.final is None:
        return None
    file, checkpoint = pipeline.output / FINAL, str(pipeline.last.output)
    weights = fingerprint_of(checkpoint).digest
    if file.is_file():
        kept = read_json(file)
        seen, found = kept.pop("weights", None), Result(**kept)
        if found.checkpoint != checkpoint:
            raise UsageError(f"{file}: the final look was taken at {found.checkpoint}, not {checkpoint}")
        if seen != weights:
            raise UsageError(
                f"{file}: the final look was taken at other weights than those that {checkpoint} holds now; its scores "
                "are not theirs. Remove the file to look again, which the ledger will count"
            )
        return found
    _tell(f"final look at {checkpoint}: {pipeline.final.suite or ', '.join(pipeline.final.tasks)}")
    found = evaluate(pipeline.final, checkpoint)
    if found.run is not None:  # a run that did not come about has looked at nothing
        write_json(file, {**asdict(found), "weights": weights})
    return found


def _report(pipeline: Pipeline, stages: Sequence[Planned], runs: dict[str, Path], look: Result | None) -> None:
    """The table of gains, gains.json beside the runs, and the leaderboard."""
    from rich.console import Console

    from leaderboard.build import build
    from leaderboard.hooks import PAGE

    models = [one for one in stages if one.stage.generates]
    steps = [
        gains.Step(one.name, runs[one.recipe.model], runs[str(one.output)])
        for one in models
        if {one.recipe.model, str(one.output)} <= runs.keys()
    ]
    ends = stages[0].recipe.model, str(pipeline.last.output)
    if len(steps) > 1 and set(ends) <= runs.keys():
        steps.append(gains.Step("all stages", runs[ends[0]], runs[ends[1]]))
    found = gains.gains(steps)
    about = {"pipeline": str(pipeline.file), "base": ends[0], "checkpoint": ends[1],
             "final": None if look is None else asdict(look)}  # fmt: skip
    console = Console(highlight=False)
    if found:
        write_json(pipeline.runs / gains.FILE, gains.as_json(found, about))
        console.print(gains.table(found))
        console.print("points; p: two-sided, Holm over all rows", markup=False)
    if look is not None:
        scores = ", ".join(f"{name.removeprefix('tulu3_')} {_points(value)}" for name, value in look.tasks.items())
        console.print(f"final look: {look.error or scores}", markup=False, soft_wrap=True)
    console.print(f"last checkpoint: {ends[1]}", markup=False, soft_wrap=True)
    if found:
        console.print(f"gains: {pipeline.runs / gains.FILE}", markup=False, soft_wrap=True)
    if pipeline.runs.is_dir():
        build(pipeline.runs, pipeline.runs / PAGE)
        console.print(f"leaderboard: {pipeline.runs / PAGE}", markup=False, soft_wrap=True)


def dry_run(pipeline: Pipeline) -> list[str]:
    """The plan in lines. Writes nothing and loads no model."""
    import yaml

    quiet()
    lines = []
    for one in check(pipeline):
        lines += [f"# stage {one.name}: {one.stage.name} from {one.recipe.model} to {one.output}"]
        if one.prepare is not None:
            lines.append(
                f"# before it: {' '.join(one.prepare.command)}, unless {', '.join(one.prepare.makes)} is there"
            )
        lines += [yaml.safe_dump(one.recipe.as_data(), sort_keys=False, allow_unicode=True)]
    if pipeline.final is not None:
        seen = pipeline.final.suite or ", ".join(pipeline.final.tasks)
        lines.append(f"# at the end, once: {seen} on {pipeline.last.output}")
    return lines
