"""Running a pipeline: evaluate, prepare, train and compare, with each stage in a separate process.

Finished work is not repeated: a stage is recognised by its lineage, an evaluation by its run, and the final evaluation
by a record in the output folder.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from olmes_suite.errors import StageRefused, UsageError, WrongKey
from olmes_suite.files import read_json, write_json, write_text
from olmes_suite.models.local.fingerprint import fingerprint_of
from olmes_suite.processes import end_with_parent
from olmes_suite.trackers.reporting import report_run
from train_plugins.checkpoints import eval_documents, gains, gate, lineage, resume
from train_plugins.checkpoints.eval_command import environment
from train_plugins.checkpoints.evaluator import FILE as EVALUATIONS
from train_plugins.checkpoints.evaluator import Result, evaluate, read_results
from train_plugins.config.evaluation import Evaluation
from train_plugins.config.recipe import Recipe
from train_plugins.running.pipeline_file import Pipeline, Planned
from train_plugins.running.prepare_stage import quiet, trainer_arguments

FINAL = "final.json"
"""File in the pipeline's output that records the final evaluation with the checkpoint and the hash of its weights."""
RECIPES = "recipes"
"""Folder in the pipeline's output with the stages' resolved recipes."""


def check(pipeline: Pipeline) -> list[Planned]:
    """Return the stages with typed trainer arguments, without loading a model; imports TRL. Raises UsageError."""
    checked = []
    outputs = {str(one.output) for one in pipeline.stages}
    for one in pipeline.stages:
        try:
            recipe, _ = trainer_arguments(one.stage, _checkable(one.recipe, outputs))
        except WrongKey:
            raise  # its message names file and stage
        except UsageError as error:
            raise UsageError(f"{pipeline.file}: stage {one.name!r}: {error}") from None
        checked.append(replace(one, recipe=replace(recipe, own=one.recipe.own)))
    return checked


def _check_documents(pipeline: Pipeline, stages: Sequence[Planned]) -> None:
    """Check the documents of the evaluations that are still to come, and print what is left out. Raises UsageError."""
    for where, evaluation in _evaluations(
        pipeline, [one for one in stages if not (one.output / lineage.FILE).is_file()]
    ):
        for note in eval_documents.check(evaluation, pipeline.base, where):
            print(note, file=sys.stderr)


def _evaluations(pipeline: Pipeline, stages: Sequence[Planned]) -> Iterator[tuple[str, Evaluation]]:
    """Yield the different evaluations of stages, and the final one unless it is done, with where they stand."""
    seen: list[Evaluation] = []
    for one in stages:
        if one.recipe.eval is not None and one.recipe.eval not in seen:
            seen.append(one.recipe.eval)
            yield f"{pipeline.file}: stage {one.name!r}: eval", one.recipe.eval
    if pipeline.final is not None and not (pipeline.output / FINAL).is_file():
        yield f"{pipeline.file}: final", pipeline.final


def _checkable(recipe: Recipe, outputs: set[str]) -> Recipe:
    """Replace a value model that an earlier stage has yet to train, so that the recipe can be checked."""
    value_model = getattr(recipe.own, "value_model", None)
    if value_model not in outputs or (Path(value_model) / "config.json").is_file():
        return recipe
    return replace(recipe, own=replace(recipe.own, value_model=None, fresh_head=True))


def run(pipeline: Pipeline, launch: Sequence[str] = (), report_to: Sequence[str] = ()) -> Path:
    """Run the unfinished part of a pipeline and return the last checkpoint.

    `launch` holds extra arguments of the command that trains a stage; `report_to` are trackers, already checked. Raises
    StageRefused if a stage or its gate refuses, UsageError for a stage that does not match its recipe any more.
    """
    quiet()
    stages = check(pipeline)
    _check_documents(pipeline, stages)
    options = [*launch, *(["--report-to", ",".join(report_to)] if report_to else [])]
    runs: dict[str, Path] = {}
    first = next((one for one in stages if one.recipe.eval), None)
    evaluated: set[str] = set()
    if first is not None:
        _evaluate(first, pipeline.base, runs, evaluated)
    trained: list[str] = []
    for one in stages:
        if one.recipe.eval is not None:  # a gain needs an evaluation before and after
            _evaluate(one, one.recipe.model, runs, evaluated)
            evaluated.add(str(one.output))  # the stage evaluates its own output
        if _finished(one):
            if one.recipe.model in trained:
                raise _older_parent(one, "was trained")
            _show(f"stage {one.name}: done already")
        else:
            if one.recipe.model in trained and lineage.whole_checkpoints(one.output):
                raise _older_parent(one, "was begun")
            _prepare(one)
            before = _lineage_bytes(one)
            _train(one, pipeline.output / RECIPES / f"{one.name}.yaml", options)
            if _lineage_bytes(one) != before:  # otherwise only its evaluation or gate was missing
                trained.append(str(one.output))
        for result in _results(one):
            _note(runs, str(one.output), result)
    look = _final(pipeline, report_to)
    _report(pipeline, stages, runs, look)
    return pipeline.last.output


def _evaluate(one: Planned, model: str, runs: dict[str, Path], evaluated: set[str]) -> None:
    """Evaluate a checkpoint by the stage's `eval`, unless it is evaluated already or by its own stage."""
    if model not in evaluated and one.recipe.eval is not None:
        evaluated.add(model)
        _show(f"{model}: evaluation")
        _note(runs, model, evaluate(one.recipe.eval, model))


def _older_parent(one: Planned, how: str) -> UsageError:
    return UsageError(
        f"stage {one.name}: {one.output} {how} from an earlier {one.recipe.model}; remove the folder to train it again"
    )


def _lineage_bytes(one: Planned) -> bytes:
    """Read the lineage file of the stage's last checkpoint; empty if there is none."""
    file = one.output / lineage.FILE
    return file.read_bytes() if file.is_file() else b""


def _show(line: str) -> None:
    print(f"== {line}", file=sys.stderr, flush=True)


def _note(runs: dict[str, Path], checkpoint: str, result: Result) -> None:
    """Record the run of a checkpoint and show its scores."""
    if result.run is not None:
        runs[checkpoint] = Path(result.run)
    scores = ", ".join(f"{name.removeprefix('tulu3_')} {_points(value)}" for name, value in result.tasks.items())
    _show(f"{checkpoint}: {result.error or scores}{' (projected to all documents)' if result.projected else ''}")


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _results(one: Planned) -> list[Result]:
    """Return the evaluation of the stage's last checkpoint, if there is one."""
    step = lineage.step(one.output)
    return [result for result in read_results(one.output / EVALUATIONS) if result.step == step]


def _finished(one: Planned) -> bool:
    """Return whether the stage is trained, evaluated and past its gate. Raises UsageError if its recipe has changed."""
    if not (one.output / lineage.FILE).is_file():
        return False
    resume.same_stage(one.output, one.recipe.as_data())
    if resume.renamed_data(one.output, one.recipe.as_data()):
        return False  # the stage compares the rows
    has_scores = one.recipe.eval is None or any(result.error is None for result in _results(one))
    return has_scores and (one.recipe.gate is None or gate.passed(one.output))


def _prepare(one: Planned) -> None:
    """Run the command that creates the stage's data, unless all of its files exist. Raises StageRefused."""
    step = one.prepare
    if step is None or all(Path(file).exists() for file in step.makes):
        return
    values = {"{model}": one.recipe.model, "{seed}": str(one.recipe.seed), "{python}": sys.executable}
    command = list(step.command)
    for name, value in values.items():
        command = [part.replace(name, value) for part in command]
    _show(f"stage {one.name}: {' '.join(command)}")
    status = _call(command)
    missing = [file for file in step.makes if not Path(file).exists()]
    if status or missing:
        why = f"ended with status {status}" if status else f"did not write {missing[0]}"
        raise StageRefused(f"stage {one.name}: {command[0]} {why}")


def _train(one: Planned, file: Path, launch: Sequence[str]) -> None:
    """Train the stage, from its last whole checkpoint if there is one. Raises an error for a status other than 0."""
    import yaml

    write_text(file, yaml.safe_dump(dict(one.data), sort_keys=False, allow_unicode=True))
    _show(f"stage {one.name}: {one.stage.name} from {one.recipe.model}")
    command = [sys.executable, "-m", "olmes_suite.cli.main", "train", one.stage.name, str(file), "--resume", *launch]
    status = _call(command, quiet=True)
    if status == 130:
        raise KeyboardInterrupt
    if status == 2:
        raise UsageError(f"stage {one.name} cannot run: see the line above")
    if status:
        raise StageRefused(f"stage {one.name} ended with status {status}: see above; the same command resumes it")


def _call(command: Sequence[str], quiet: bool = False) -> int:
    """Run a command and return its exit status; the child ends with this process, however that ends.

    `quiet` drops the child's stdout, which holds a stage's path and does not belong in the pipeline's output.
    """
    out = subprocess.DEVNULL if quiet else sys.stderr.fileno()
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


def _final(pipeline: Pipeline, report_to: Sequence[str]) -> Result | None:
    """Evaluate the last checkpoint on the final suite, exactly once."""
    if pipeline.final is None:
        return None
    file, checkpoint = pipeline.output / FINAL, str(pipeline.last.output)
    weights = fingerprint_of(checkpoint).digest
    if file.is_file():
        record = read_json(file)
        evaluated_weights, result = record.pop("weights", None), Result(**record)
        if result.checkpoint != checkpoint:
            raise UsageError(f"{file}: the final look was taken at {result.checkpoint}, not {checkpoint}")
        if evaluated_weights != weights:
            raise UsageError(
                f"{file}: the final look was taken at other weights than those that {checkpoint} holds now; its scores "
                "are not theirs. Remove the file to look again, which the ledger will count"
            )
        return result
    _show(f"final look at {checkpoint}: {pipeline.final.suite or ', '.join(pipeline.final.tasks)}")
    result = evaluate(pipeline.final, checkpoint)
    if result.run is not None:  # a failed evaluation has not looked at the suite
        write_json(file, {**asdict(result), "weights": weights})
        report_run(report_to, Path(result.run))
    return result


def _report(pipeline: Pipeline, stages: Sequence[Planned], runs: dict[str, Path], look: Result | None) -> None:
    """Show the table of gains, and write gains.json and the leaderboard beside the runs."""
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
    all_gains = gains.gains(steps)
    about = {"pipeline": str(pipeline.file), "base": ends[0], "checkpoint": ends[1],
             "final": None if look is None else asdict(look)}  # fmt: skip
    console = Console(highlight=False)
    if all_gains:
        write_json(pipeline.runs / gains.FILE, gains.as_json(all_gains, about))
        console.print(gains.table(all_gains))
        console.print("points; p: two-sided, Holm over all rows", markup=False)
        if stopped := dict.fromkeys(gain.stage for gain in all_gains if gain.stopped):
            names = ", ".join(stopped)
            console.print(f"! {names}: over the documents up to the gate's verdict, whose looks p does not count")
    if look is not None:
        scores = ", ".join(f"{name.removeprefix('tulu3_')} {_points(value)}" for name, value in look.tasks.items())
        console.print(f"final look: {look.error or scores}", markup=False, soft_wrap=True)
    console.print(f"last checkpoint: {ends[1]}", markup=False, soft_wrap=True)
    if all_gains:
        console.print(f"gains: {pipeline.runs / gains.FILE}", markup=False, soft_wrap=True)
    if pipeline.runs.is_dir():
        build(pipeline.runs, pipeline.runs / PAGE)
        console.print(f"leaderboard: {pipeline.runs / PAGE}", markup=False, soft_wrap=True)


def dry_run(pipeline: Pipeline) -> list[str]:
    """Return the plan as lines, without writing anything or loading a model."""
    import yaml

    quiet()
    lines = []
    for one in check(pipeline):
        lines += [f"# stage {one.name}: {one.stage.name} from {one.recipe.model} to {one.output}"]
        if one.prepare is not None:
            lines.append(f"# before it: {' '.join(one.prepare.command)}, unless {', '.join(one.prepare.makes)} exist")
        lines += [yaml.safe_dump(one.recipe.as_data(), sort_keys=False, allow_unicode=True)]
    if pipeline.final is not None:
        names = pipeline.final.suite or ", ".join(pipeline.final.tasks)
        lines.append(f"# at the end, once: {names} on {pipeline.last.output}")
    for where, evaluation in _evaluations(pipeline, pipeline.stages):
        lines += [f"# {line}" for line in eval_documents.notes(evaluation, pipeline.base, where)]
    return lines
