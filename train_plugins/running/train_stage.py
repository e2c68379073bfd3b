"""Running one stage from recipe to checkpoint: check, read, plan, hooks, train, save, hooks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite import hooks
from olmes_suite.errors import StorageError
from olmes_suite.runs.schema import NO_LINEAGE, Lineage
from train_plugins import distributed
from train_plugins.checkpoints import adapters, eval_documents, gate, lineage, resume, saved_state
from train_plugins.checkpoints.evaluator import Evaluator, of_recipe
from train_plugins.checkpoints.tracking import Tracking
from train_plugins.config.recipe import Recipe
from train_plugins.data import sets as data
from train_plugins.data import turn_end
from train_plugins.running.prepare_stage import Prepared, configuration, prepare, report, set_up, trainer_arguments
from train_plugins.stages.base import Stage
from train_plugins.trainers import lora, offload

if TYPE_CHECKING:
    from pluggy import PluginManager
    from transformers import Trainer, TrainerState, TrainingArguments

    from train_plugins.trainers.callbacks import Checkpoints


def run(
    stage: Stage, recipe: Recipe, go_on: bool = False, plugins: Sequence[Any] = (), *, report_to: Sequence[str] = ()
) -> Path:  # fmt: skip
    """Train a stage and return its last checkpoint, which is the output folder itself.

    `plugins` are registered beside the installed ones; `report_to` are trackers, already checked. Raises OlmesError:
    StageRefused for data or a loss that stops the stage; UsageError, DataError and ModelError for errors that the user
    can correct.
    """
    set_up(recipe)
    output = Path(str(recipe.output)).expanduser()
    start = resume.start(output, go_on)
    recipe, arguments = trainer_arguments(stage, recipe)
    done = resume.finished(output, go_on)
    checkpoint = output if done else start
    if checkpoint is not None:
        resume.same_stage(checkpoint, recipe.as_data())
    if start is not None and not done:
        resume.same_processes(start, distributed.world_size())
        saved_state.check(start, distributed.world_size(), recipe.as_data())
    if recipe.eval is not None and not done and distributed.is_main():
        for note in eval_documents.check(recipe.eval, recipe.model, f"{recipe.place}: eval"):
            print(note, file=sys.stderr)
    with ExitStack() as resources:
        if begun := output.is_dir():
            _lock(resources, output)
        evaluator = of_recipe(recipe, output) if distributed.is_main() else None
        tracking = _tracking(resources, report_to, recipe, evaluator)
        if evaluator:
            resources.callback(evaluator.close)
        watchers = stage.watchers(recipe, output) if distributed.is_main() else ()
        manager = hooks.manager([*plugins, *([evaluator] if evaluator else []), *watchers])
        if evaluator and go_on:
            evaluator.catch_up()
        if done and not resume.renamed_data(output, recipe.as_data()):
            return _finished(recipe, output, evaluator, tracking)
        ready = prepare(stage, recipe, arguments, manager)
        changed = resume.same_stage(checkpoint, recipe.as_data(), ready.data.sets) if checkpoint is not None else []
        for line in (changed if done else [*report(ready), *changed]) if distributed.is_main() else ():
            print(line, file=sys.stderr)
        if done:
            return _finished(recipe, output, evaluator, tracking)
        if not begun:
            _lock(resources, output)
        if distributed.is_main():
            data.write_bad_rows(output, ready.data.sets)
        try:
            written = train(ready, start, manager, evaluator, watchers, tracking=tracking)
        except StorageError:
            if distributed.is_main():
                resume.remove_torn(output)  # incomplete checkpoints take up the missing space
            raise
        if written is None:
            return output
        offload.release()  # the trainer is gone
        manager.hook.olmes_after_stage(stage=ready.about, checkpoint=output, run=written.as_json())
        if evaluator and (best := evaluator.best()):
            print(f"best checkpoint: step {best.step}, {evaluator.best_folder(best)}", file=sys.stderr)
        _gate(recipe, output, evaluator, tracking)
    return output


def _tracking(
    resources: ExitStack, report_to: Sequence[str], recipe: Recipe, evaluator: Evaluator | None
) -> Tracking | None:  # fmt: skip
    """Return the reports of the first process, which end after the evaluator; None without trackers."""
    if not report_to or not distributed.is_main():
        return None
    tracking = Tracking(report_to, recipe, Path(str(recipe.output)).expanduser())
    resources.enter_context(redirect_stdout(sys.stderr))  # clients print; stdout is for the path
    resources.callback(tracking.close)
    if evaluator:
        tracking.follow(evaluator)
    return tracking


def _finished(recipe: Recipe, output: Path, evaluator: Evaluator | None, tracking: Tracking | None) -> Path:
    """Say that the stage is finished, and apply its gate again. Raises StageRefused."""
    print(f"{output}: this stage is already finished", file=sys.stderr)
    _gate(recipe, output, evaluator, tracking)
    return output


def _lock(resources: ExitStack, output: Path) -> None:
    """Lock the output folder, and remove incomplete checkpoints of a killed stage. Raises RunLocked."""
    if distributed.is_main():
        resources.enter_context(resume.lock(output))
        resume.remove_torn(output)


def _gate(recipe: Recipe, output: Path, evaluator: Evaluator | None, tracking: Tracking | None) -> None:
    """Apply the recipe's gate, if it has one. Raises StageRefused."""
    if evaluator and recipe.gate is not None and recipe.eval is not None:
        step = lineage.step(output)
        last = next((result for result in evaluator.results() if result.step == step), None)
        told = (lambda report: tracking.judged(report, step or 0)) if tracking else None
        print(gate.judge(recipe.gate, recipe.eval, recipe.model, output, last, told=told), file=sys.stderr)


def train(
    ready: Prepared, start: Path | None, manager: PluginManager, evaluator: Evaluator | None,
    watchers: Sequence[Any] = (), tracking: Tracking | None = None,
) -> Lineage | None:  # fmt: skip
    """Train and save; return the last checkpoint's lineage, None on all processes except the first.

    Raises StageRefused if the loss is not finite or memory runs out, ModelError, StorageError.
    """
    from transformers import PrinterCallback

    from train_plugins.checkpoints import live_engine
    from train_plugins.running import failures
    from train_plugins.trainers.callbacks import Checkpoints, Progress

    output, recipe = ready.output, ready.recipe
    before = lineage.read(start) if start else NO_LINEAGE
    described = _described(ready, before)
    args = configuration(ready.stage.config(recipe), ready.arguments, recipe)
    limit, args.save_total_limit = args.save_total_limit, None  # `Checkpoints` rotates instead
    trainer = _trainer(ready, args)

    def saved(checkpoint: Path, state: TrainerState) -> None:
        """Call the hooks for a checkpoint, and tell the trainer which one is the best."""
        if tracking is not None:
            tracking.rollouts(trainer, state.global_step)
        if state.global_step < state.max_steps:  # olmes_after_stage handles the last one
            aside = evaluator is not None and evaluator.settings.device == "same"
            with offload.offloaded(offload.tensors(trainer.model, trainer.optimizer) if aside else ()):
                manager.hook.olmes_after_checkpoint(stage=ready.about, checkpoint=checkpoint)
                if evaluator is not None and aside:
                    evaluator.wait()
        if evaluator and (best := evaluator.best()):
            state.best_model_checkpoint = best.checkpoint  # rotation keeps the best one
            state.best_metric, state.best_global_step = best.average, best.step

    progress = Progress()
    tokens, together = lambda: int(trainer._total_train_tokens), trainer.accelerator.wait_for_everyone
    held = evaluator.held if evaluator else tuple
    watched = lambda: [alarm.note for alarm in trainer.watch.alarms] if hasattr(trainer, "watch") else ()  # noqa: E731
    checkpoints = Checkpoints(
        described, tokens=tokens, saved=saved, before=before, together=together, limit=limit, held=held, named=watched
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(checkpoints)
    for callback in (progress, *watchers):
        trainer.add_callback(callback)
    live = live_engine.Live(trainer, evaluator) if recipe.eval and recipe.eval.engine == "live" else None
    # TRL prints completions, and stdout is for the path.
    with failures.training(output, start), redirect_stdout(sys.stderr):
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        finally:
            progress.stop()
        written = _save(trainer, output, checkpoints, recipe.lora is not None)
        if live is not None:
            live.finish(output)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # the other processes do not wait for the evaluation
    return written


def _described(ready: Prepared, before: Lineage) -> Lineage:
    """Return the lineage of the stage's checkpoints; `before` is that of the checkpoint from which it resumes."""
    encoded, planned = ready.encoded, ready.plan
    counts = {"read": encoded.read, "trained": len(encoded.rows), "cut": encoded.cut, "dropped": encoded.dropped}
    if encoded.added:
        counts["added"] = encoded.added
    return lineage.describe(
        ready.about, ready.data, rows=counts, seed=ready.recipe.seed, processes=planned.processes, before=before
    )


def _trainer(ready: Prepared, args: TrainingArguments) -> Trainer:
    """Load the model into the stage's trainer, which ends and computes as the recipe says. Raises OlmesError."""
    from olmes_suite.models.local.loading import cap_attention
    from train_plugins.running import failures

    recipe = ready.recipe
    with failures.loading(recipe.model), lora.explained(recipe.lora):
        trainer = ready.stage.trainer(recipe, args, ready.encoded.rows, ready.tokenizer)
    for name in ("model", "ref_model"):
        if (model := getattr(trainer, name, None)) is not None:
            cap_attention(model)
    if ready.stage.generates:  # `generate` reads the model's settings, not the tokenizer's
        trainer.model.generation_config.eos_token_id = turn_end.end_ids(ready.tokenizer, recipe.model)
    if recipe.lora and recipe.lora.bits:
        lora.settle(trainer.model, args.bf16 or args.fp16)
    distributed.check_world(trainer.accelerator)
    return trainer


def _save(trainer: Trainer, output: Path, checkpoints: Checkpoints, adapter: bool) -> Lineage | None:
    """Write the last weights to a folder aside, move them to the output, and write the lineage last.

    Returns None on all processes except the first.
    """
    part = output / resume.PART
    if trainer.is_world_process_zero():
        shutil.rmtree(part, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(part / adapters.FOLDER if adapter else part))
    if not trainer.is_world_process_zero():
        return None
    if adapter:
        adapters.merge(part / adapters.FOLDER, part)
        for folder in [path for path in (part / adapters.FOLDER).iterdir() if path.is_dir()]:  # PPO's value model
            folder.replace(part / folder.name)
    trainer.state.save_to_json(str(part / "trainer_state.json"))
    for file in part.iterdir():
        if file.is_dir():  # a folder cannot replace one left by a killed stage
            shutil.rmtree(output / file.name, ignore_errors=True)
        file.replace(output / file.name)
    part.rmdir()
    written: Lineage = checkpoints.write(output, trainer.state.global_step)
    return written
