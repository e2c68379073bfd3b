"""Running one stage from recipe to checkpoint: check, read, plan, hooks, train, save, hooks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite import hooks
from olmes_suite.devices import has_gpu
from olmes_suite.errors import StageRefused, StorageError, UsageError, one_line
from olmes_suite.hooks import StageData
from olmes_suite.runs.schema import NO_LINEAGE, Lineage
from olmes_suite.tasks import catalog
from olmes_suite.wording import count
from train_plugins import distributed
from train_plugins.checkpoints import adapters, gate, lineage, resume, saved_state
from train_plugins.checkpoints.evaluator import Evaluator, of_recipe
from train_plugins.checkpoints.tracking import Tracking
from train_plugins.config import trainer_fields, trainer_values
from train_plugins.config.recipe import Recipe, check_trainer
from train_plugins.data import control_tokens, encoding, turn_end
from train_plugins.data import sets as data
from train_plugins.data.rendering import has_markers
from train_plugins.stages import memory, plan
from train_plugins.stages.base import Stage, check_language_model
from train_plugins.stages.model_arguments import (
    check_entries,
    check_evaluation,
    check_model_arguments,
    check_template_arguments,
    set_pad_token,
)
from train_plugins.stages.model_limits import check_fits, length_keys
from train_plugins.trainers import lora, offload, trial

if TYPE_CHECKING:
    from datasets import Dataset
    from pluggy import PluginManager
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerState, TrainingArguments

    from train_plugins.trainers.callbacks import Checkpoints


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stage that is ready to load its model."""

    stage: Stage
    recipe: Recipe
    arguments: Mapping[str, Any]
    """Arguments of the trainer, including defaults and those that follow from other recipe keys."""
    about: hooks.Stage
    data: StageData
    tokenizer: PreTrainedTokenizerBase
    encoded: encoding.Encoded
    plan: plan.Plan
    notes: tuple[str, ...] = ()
    """Lines about rows that the model accepts but was not trained for."""

    @property
    def output(self) -> Path:
        """The stage's output folder."""
        return self.about.output


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


def trainer_arguments(stage: Stage, recipe: Recipe, here: bool = True) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with typed trainer arguments, and all arguments of the trainer. Raises UsageError.

    `here`: whether this machine must have what the recipe runs on.
    """
    config = stage.config(recipe)
    typed = check_trainer(recipe.trainer, config, recipe.place, stage.fields(recipe))
    if recipe.eval and not stage.generates:
        raise UsageError(f"eval: the checkpoints of {stage.name} generate no text to evaluate; remove the key")
    if stage.generates:
        check_language_model(recipe.model)
    recipe = replace(recipe, trainer=typed)
    gpu = has_gpu()  # TRL's default is bf16, even without a GPU
    arguments = {"bf16": gpu, "dataloader_pin_memory": gpu, "report_to": "none", **stage.defaults(recipe), **typed}
    trainer_values.check_numbers(arguments, recipe.seed)
    if recipe.lora is not None:
        lora.check(recipe.lora, stage.name)
    if recipe.eval and recipe.eval.engine == "live" and not stage.has_engine(recipe):
        raise UsageError(
            "eval.engine: live answers in the engine of the rollouts: it needs rlvr with `rollouts: vllm_colocate`"
        )
    if recipe.eval and recipe.eval.device == "same" and distributed.world_size() > 1:
        raise UsageError("eval.device: same moves the model of only one process aside; name another GPU or an endpoint")
    if not gpu and distributed.world_size() > 1:  # accelerate joins CPU processes only if it is told to
        arguments = {"use_cpu": True, **arguments}
    arguments |= stage.extra_arguments(recipe)
    every = recipe.eval.every if recipe.eval else None
    if every is not None:
        saves = arguments.get("save_steps", every)
        if saves < 1:
            raise UsageError(f"trainer.save_steps {saves}: with eval.every it must be a number of steps; remove it")
        if every % int(saves) or arguments.get("save_strategy", "steps") != "steps":
            raise UsageError(f"eval.every {every} is not a multiple of trainer.save_steps {arguments['save_steps']}")
        arguments = {"save_steps": every, "save_strategy": "steps", **arguments}
    rows = stage.batch_size(recipe, arguments)
    each = plan.pass_rows(rows, arguments, distributed.world_size())
    if each != plan.DEFAULT_ROWS and "per_device_train_batch_size" not in arguments:
        recipe = replace(recipe, trainer={**typed, "per_device_train_batch_size": each})
        arguments["per_device_train_batch_size"] = each
    arguments["gradient_accumulation_steps"] = plan.accumulation(rows, arguments, distributed.world_size())
    stage.check(recipe, arguments)
    if here:
        stage.check_machine(recipe)
    _check_effects(stage, recipe, config, arguments)
    return recipe, arguments


def _check_effects(stage: Stage, recipe: Recipe, config: type, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for arguments without an effect beside the others, or with which training could not start."""
    table, defaults = stage.fields(recipe), trainer_fields.defaults(config)
    for name in recipe.trainer:
        if why := trainer_fields.check_needs(name, arguments, table or {}, defaults):
            raise UsageError(f"{recipe.place.line(('trainer', name))}: trainer.{name} {why}")
    if "ddp_backend" in recipe.trainer and distributed.world_size() == 1:
        raise UsageError("trainer.ddp_backend has an effect only with several processes (--launcher)")
    memory.check_targets(recipe.model, recipe.lora)
    check_model_arguments(recipe.model, arguments)
    trial.check(configuration(config, arguments, recipe), recipe.trainer)


def prepare(
    stage: Stage, recipe: Recipe, arguments: Mapping[str, Any], manager: PluginManager | None = None
) -> Prepared:
    """Read and encode the data, passing it through the hooks of a plugin manager. Raises OlmesError."""
    from olmes_suite.models.local.loading import load_tokenizer

    template = encoding.template_text(recipe.chat_template)
    tokenizer = load_tokenizer(recipe.model, None, training=True)
    turn_end.set_eos(tokenizer, recipe.eos_token)
    tokenizer = encoding.prepare_tokenizer(tokenizer, template)
    set_pad_token(tokenizer, arguments.get("pad_token"), stage.pooled)
    check_template_arguments(str(tokenizer.chat_template), arguments.get("chat_template_kwargs"))
    if recipe.eval is not None:
        check_evaluation(str(tokenizer.chat_template), recipe.eval.chat_template_args)
    ends = turn_end.end_ids(tokenizer, recipe.model)
    if stage.generates:
        turn_end.check_turn_end(tokenizer, ends, stage.masked and has_markers(str(tokenizer.chat_template)))
    if stage.pooled:
        encoding.pad_apart(tokenizer)
    stage.prepare_tokenizer(recipe, tokenizer, arguments)
    about = hooks.Stage(stage.name, recipe.model, Path(str(recipe.output)).expanduser(), recipe.final, recipe.as_data())
    rendered = encoding.turn_fields(tokenizer)
    check_entries(str(tokenizer.chat_template), recipe.data)
    control = control_tokens.control_tokens(tokenizer)
    check = stage.checker(recipe, tokenizer)
    sets = data.load(recipe.data, stage.row_reader(recipe), stage.reads, rendered, control, check)
    if manager is not None:
        with distributed.first_alone():  # the hooks of all processes write to the same folder
            sets = hooks.before_stage(manager, about, sets)
        if recipe.decontam is not None and sets.decontam is None:
            raise StageRefused(
                "the recipe has `decontam`, but no installed plugin checked the data; remove the key or install one"
            )
    rows = stage.select(recipe, _together(sets))
    limit, length = stage.limit(recipe, arguments)
    encoded = stage.encoder(recipe)(rows, tokenizer, length, arguments.get("dataset_num_proc"))
    seen = replace(encoded, longest=stage.longest(encoded, arguments))
    notes = check_fits(recipe.model, seen, tokenizer, length_keys(limit))
    planned = stage.plan(encoded, arguments, distributed.world_size())
    notes += [*plan.notes(arguments, planned.steps), *saved_state.notes(arguments)]
    return Prepared(stage, recipe, arguments, about, sets, tokenizer, encoded, planned, tuple(notes))


def report(ready: Prepared) -> list[str]:
    """Describe the prepared stage in a few lines."""
    encoded, planned = ready.encoded, ready.plan
    limit, length = ready.stage.limit(ready.recipe, ready.arguments)
    lines = [line for one in ready.data.sets for line in data.summary(one)]
    lines += encoding.about(encoded)
    too_long, rows = encoded.dropped - encoded.equal, encoded.read + encoded.added
    if encoded.cut or too_long:
        verb = "is" if encoded.cut == 1 else "are"
        lines.append(f"{limit} {length}: {count(encoded.cut, 'row')} {verb} cut, {too_long} of {rows} left out")
    lines += ready.notes
    if encoded.equal:
        lines.append(f"{encoded.equal} of {encoded.read} pairs are left out: chosen and rejected are equal in tokens")
    lines.append(step_line(planned))
    return lines


def step_line(planned: plan.Plan) -> str:
    """Describe rows, batch, steps and tokens."""
    rows = planned.batch // planned.processes // planned.accumulation
    return (
        f"{count(planned.rows, 'row')}, batch {planned.batch} ({count(planned.processes, 'process')} × "
        f"{count(rows, 'row')} × {count(planned.accumulation, 'pass')}), {count(planned.steps, 'step')}, "
        f"about {planned.tokens} tokens"
    )


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


def configuration(config: type, arguments: Mapping[str, Any], recipe: Recipe) -> TrainingArguments:
    """Create TRL's configuration. Raises UsageError for arguments that it does not accept."""
    fixed = {"output_dir": str(Path(str(recipe.output)).expanduser()), "seed": recipe.seed, "disable_tqdm": True}
    try:
        return config(**{**arguments, **fixed})
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"trainer: {one_line(error, 300)}") from None


def _together(sets: StageData) -> Dataset:
    from datasets import concatenate_datasets

    return concatenate_datasets([one.rows for one in sets.sets])


def set_up(recipe: Recipe) -> None:
    """Prepare this process for a stage: silence the libraries, and register the user's task files for the hooks."""
    quiet()
    if recipe.eval:
        catalog.include(map(Path, recipe.eval.include_path))


def quiet() -> None:
    """Turn off the libraries' progress bars and warnings in this process."""
    import logging as plain
    import os
    import warnings

    import datasets
    import transformers

    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # read when TRL's experimental trainers are imported
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl|train_plugins")
    plain.getLogger("bitsandbytes").setLevel(plain.ERROR)  # without a GPU it warns for each layer and pass
    datasets.disable_progress_bars()
    logging: Any = transformers.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
