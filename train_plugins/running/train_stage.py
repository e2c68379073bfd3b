"""A stage from recipe to checkpoint: check, read, plan, hooks, train, save, hooks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from olmes_suite import hooks
from olmes_suite.devices import has_gpu
from olmes_suite.errors import StageRefused, StorageError, UsageError, one_line
from olmes_suite.hooks import StageData
from olmes_suite.runs.schema import NO_LINEAGE, Lineage
from olmes_suite.tasks import catalog
from train_plugins import distributed
from train_plugins.checkpoints import adapters, gate, lineage, resume
from train_plugins.checkpoints.evaluator import Evaluator
from train_plugins.config import recipe
from train_plugins.data import encoding, turn_end
from train_plugins.data import sets as data
from train_plugins.stages import memory, plan
from train_plugins.stages.base import Stage, check_language_model
from train_plugins.stages.model_limits import check_fits
from train_plugins.trainers import lora, offload

DECISIVE = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "max_length",
)  # fmt: skip
"""Arguments of the trainer that `--dry-run` shows whether or not the recipe names them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stage that is ready to load its model."""

    stage: Stage
    recipe: recipe.Recipe
    arguments: Mapping[str, Any]
    """Of the trainer, defaults and consequences of our own keys filled in."""
    about: hooks.Stage
    data: StageData
    tokenizer: Any
    encoded: encoding.Encoded
    plan: plan.Plan
    notes: tuple[str, ...] = ()
    """Lines about rows that the model takes, but not well."""

    @property
    def output(self) -> Path:
        """Where the stage writes."""
        return self.about.output


def run(stage: Stage, wanted: recipe.Recipe, go_on: bool = False, plugins: Sequence[Any] = ()) -> Path:
    """Train a stage; returns its last checkpoint, which is the output folder itself.

    `plugins` are registered beside the installed ones. Raises OlmesError: StageRefused for data or a loss that stops
    the stage, UsageError, DataError and ModelError for what the user can mend.
    """
    _set_up(wanted)
    output = Path(str(wanted.output)).expanduser()
    start = resume.start(output, go_on)
    wanted, arguments = trainer_arguments(stage, wanted)
    done = resume.finished(output, go_on)
    made = output if done else start
    if made is not None:
        resume.same_stage(made, wanted.as_data())
    if start is not None and not done:
        resume.same_processes(start, distributed.world_size())
    with ExitStack() as held:
        if begun := output.is_dir():
            _alone(held, output)
        evaluator = Evaluator(wanted.eval, output) if wanted.eval and distributed.is_main() else None
        if evaluator:
            held.callback(evaluator.close)
        watchers = stage.watchers(wanted, output) if distributed.is_main() else ()
        manager = hooks.manager([*plugins, *([evaluator] if evaluator else []), *watchers])
        if evaluator and go_on:
            evaluator.catch_up()
        if done:
            print(f"{output}: this stage is finished already", file=sys.stderr)
            _gate(wanted, output, evaluator)
            return output
        ready = prepare(stage, wanted, arguments, manager)
        if start is not None:
            resume.same_stage(start, wanted.as_data(), ready.data.sets)
        for line in report(ready) if distributed.is_main() else ():
            print(line, file=sys.stderr)
        if not begun:
            _alone(held, output)
        try:
            written = train(ready, start, manager, evaluator, watchers)
        except StorageError:
            if distributed.is_main():
                resume.remove_torn(output)  # it takes up the space that is lacking
            raise
        if written is None:
            return output
        offload.release()  # the trainer is gone
        manager.hook.olmes_after_stage(stage=ready.about, checkpoint=output, run=written.as_json())
        if evaluator and (best := evaluator.best()):
            print(f"best checkpoint: step {best.step}, {evaluator.best_folder(best)}", file=sys.stderr)
        _gate(wanted, output, evaluator)
    return output


def _alone(held: ExitStack, output: Path) -> None:
    """Keep other stages from the output folder, and clear what a killed one left half-written. Raises RunLocked."""
    if distributed.is_main():
        held.enter_context(resume.lock(output))
        resume.remove_torn(output)


def _gate(wanted: recipe.Recipe, output: Path, evaluator: Evaluator | None) -> None:
    """The recipe's gate, where it has one. Raises StageRefused."""
    if evaluator and wanted.gate is not None and wanted.eval is not None:
        step = lineage.step(output)
        last = next((result for result in evaluator.results() if result.step == step), None)
        print(gate.judge(wanted.gate, wanted.eval, wanted.model, output, last), file=sys.stderr)


def trainer_arguments(stage: Stage, wanted: recipe.Recipe) -> tuple[recipe.Recipe, dict[str, Any]]:
    """The recipe with its trainer's arguments typed, and all arguments of the trainer. Raises UsageError."""
    config = stage.config(wanted)
    given = recipe.check_trainer(wanted.trainer, config, wanted.place)
    if wanted.eval and not stage.generates:
        raise UsageError(f"eval: the checkpoints of {stage.name} generate nothing to evaluate; remove the key")
    if stage.generates:
        check_language_model(wanted.model)
    wanted = replace(wanted, trainer=given)
    gpu = has_gpu()  # TRL's own default is bf16 wherever it runs
    arguments = {"bf16": gpu, "dataloader_pin_memory": gpu, "report_to": "none", **stage.defaults(wanted), **given}
    plan.check_numbers(arguments, wanted.seed)
    if wanted.lora is not None:
        lora.check(wanted.lora, stage.name)
    if wanted.eval and wanted.eval.device == "same" and distributed.world_size() > 1:
        raise UsageError("eval.device: same moves the model of one process aside; name another GPU or an endpoint")
    if not gpu and distributed.world_size() > 1:  # accelerate looks for a world of CPUs only where it is told to
        arguments = {"use_cpu": True, **arguments}
    arguments |= stage.extra_arguments(wanted)
    every = wanted.eval.every if wanted.eval else None
    if every is not None:
        if every % int(arguments.get("save_steps", every)) or arguments.get("save_strategy", "steps") != "steps":
            raise UsageError(f"eval.every {every} is no multiple of trainer.save_steps {arguments['save_steps']}")
        arguments = {"save_steps": every, "save_strategy": "steps", **arguments}
    arguments["gradient_accumulation_steps"] = plan.accumulation(wanted.batch_size, arguments, distributed.world_size())
    stage.check(wanted, arguments)
    configuration(config, arguments, wanted)
    return wanted, arguments


def prepare(stage: Stage, wanted: recipe.Recipe, arguments: Mapping[str, Any], manager: Any = None) -> Prepared:
    """Read and encode the data, through the hooks where a plugin manager is given. Raises OlmesError."""
    from olmes_suite.models.local.loading import load_tokenizer

    template = encoding.template_text(wanted.chat_template)
    tokenizer = load_tokenizer(wanted.model, None)
    turn_end.set_eos(tokenizer, wanted.eos_token)
    tokenizer = encoding.prepare_tokenizer(tokenizer, template, stage.masked)
    ends = turn_end.end_ids(tokenizer, wanted.model)
    if stage.generates:
        turn_end.check_turn_end(tokenizer, ends, stage.masked)
    if stage.pooled:
        encoding.pad_apart(tokenizer)
    about = hooks.Stage(stage.name, wanted.model, Path(str(wanted.output)).expanduser(), wanted.final, wanted.as_data())
    sets = data.load(wanted.data, stage.form)
    if manager is not None:
        with distributed.first_alone():  # the hooks write into one folder
            sets = hooks.before_stage(manager, about, sets)
        if wanted.decontam is not None and sets.decontam is None:
            raise StageRefused("decontam is asked for, and no installed plugin looked at the data; remove the key")
    rows = stage.select(wanted, _together(sets))
    limit, length = stage.limit(wanted, arguments)
    encoded = stage.encode(rows, tokenizer, length, arguments.get("dataset_num_proc"))
    notes = check_fits(wanted.model, encoded, tokenizer, limit if "." in limit else f"trainer.{limit}")
    planned = stage.plan(encoded, arguments, distributed.world_size())
    return Prepared(stage, wanted, arguments, about, sets, tokenizer, encoded, planned, tuple(notes))


def report(ready: Prepared) -> list[str]:
    """What is about to happen, in a few lines."""
    encoded, planned = ready.encoded, ready.plan
    limit, length = ready.stage.limit(ready.recipe, ready.arguments)
    lines = [f"{one.path}: {len(one.rows)} rows, sha256 {one.sha256[:16]}…" for one in ready.data.sets]
    long = encoded.dropped - encoded.equal
    if encoded.cut or long:
        lines.append(f"{limit} {length}: {encoded.cut} rows are cut, {long} of {encoded.read} are left out")
    lines += ready.notes
    if encoded.equal:
        lines.append(f"{encoded.equal} of {encoded.read} pairs are left out: chosen and rejected are equal in tokens")
    lines.append(
        f"{planned.rows} rows, batch {planned.batch} ({planned.processes} processes × "
        f"{planned.batch // planned.processes // planned.accumulation} rows × {planned.accumulation} passes), "
        f"{planned.steps} steps, about {planned.tokens} tokens"
    )
    return lines


def train(
    ready: Prepared, start: Path | None, manager: Any, evaluator: Evaluator | None, watchers: Sequence[Any] = ()
) -> Lineage | None:  # fmt: skip
    """Train and save; returns the last checkpoint's lineage, None on all processes but the first.

    Raises StageRefused where the loss is not finite or the memory does not suffice, ModelError, StorageError.
    """
    from transformers import PrinterCallback

    from train_plugins.running import failures
    from train_plugins.trainers.callbacks import Checkpoints, Progress

    output, wanted = ready.output, ready.recipe
    counts = {"read": ready.encoded.read, "trained": len(ready.encoded.rows), "cut": ready.encoded.cut,
              "dropped": ready.encoded.dropped}  # fmt: skip
    before = lineage.read(start) if start else NO_LINEAGE
    described = lineage.describe(ready.about, ready.data, counts, wanted.seed, ready.plan.processes, before)
    args = configuration(ready.stage.config(wanted), ready.arguments, wanted)
    limit, args.save_total_limit = args.save_total_limit, None  # `Checkpoints` rotates
    with failures.loading(wanted.model), lora.explained(wanted.lora):
        trainer = ready.stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)
    if ready.stage.generates:  # `generate` looks at the model's settings, not at the tokenizer
        trainer.model.generation_config.eos_token_id = turn_end.end_ids(ready.tokenizer, wanted.model)
    if wanted.lora and wanted.lora.bits:
        lora.settle(trainer.model, args.bf16 or args.fp16)
    distributed.check_world(trainer.accelerator)

    def saved(checkpoint: Path, state: Any) -> None:
        """Tell the hooks of a checkpoint, and the trainer of the best one."""
        if state.global_step < state.max_steps:  # the last one is told of by olmes_after_stage
            aside = evaluator is not None and evaluator.wanted.device == "same"
            with offload.offloaded(offload.tensors(trainer.model, trainer.optimizer) if aside else ()):
                manager.hook.olmes_after_checkpoint(stage=ready.about, checkpoint=checkpoint)
                if evaluator is not None and aside:
                    evaluator.wait()
        if evaluator and (best := evaluator.best()):
            state.best_model_checkpoint = best.checkpoint  # the trainer rotates all others away before it
            state.best_metric, state.best_global_step = best.average, best.step

    progress = Progress()
    tokens, together = lambda: int(trainer._total_train_tokens), trainer.accelerator.wait_for_everyone
    held = evaluator.held if evaluator else tuple
    checkpoints = Checkpoints(described, tokens, saved, before, together, limit, held)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(checkpoints)
    for callback in (progress, *watchers):
        trainer.add_callback(callback)
    with failures.training(output):
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        finally:
            progress.stop()
        written = _save(trainer, output, checkpoints, wanted.lora is not None)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # the other processes end here, whatever the first one does after this
    return written


def _save(trainer: Any, output: Path, checkpoints: Any, adapter: bool) -> Lineage | None:
    """The last weights into the output folder: written aside, moved in, the lineage last. None: not on the first."""
    part = output / resume.PART
    if trainer.is_world_process_zero():
        shutil.rmtree(part, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(part / adapters.FOLDER if adapter else part))
    if not trainer.is_world_process_zero():
        return None
    if adapter:
        adapters.merge(part / adapters.FOLDER, part)
        for beside in [path for path in (part / adapters.FOLDER).iterdir() if path.is_dir()]:  # PPO's value model
            beside.replace(part / beside.name)
    trainer.state.save_to_json(str(part / "trainer_state.json"))
    for file in part.iterdir():
        if file.is_dir():  # cannot be moved onto one that a killed stage has left
            shutil.rmtree(output / file.name, ignore_errors=True)
        file.replace(output / file.name)
    part.rmdir()
    written: Lineage = checkpoints.write(output, trainer.state.global_step)
    return written


def configuration(config: type, arguments: Mapping[str, Any], wanted: recipe.Recipe) -> Any:
    """An instance of TRL's configuration. Raises UsageError for what it does not accept."""
    fixed = {"output_dir": str(Path(str(wanted.output)).expanduser()), "seed": wanted.seed, "disable_tqdm": True}
    try:
        return config(**{**arguments, **fixed})
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"trainer: {one_line(error, 300)}") from None


def _together(sets: StageData) -> Any:
    from datasets import concatenate_datasets

    return concatenate_datasets([one.rows for one in sets.sets])


def _set_up(wanted: recipe.Recipe) -> None:
    """Prepare this process for a stage: quiet libraries, and the user's task files known to the hooks."""
    quiet()
    if wanted.eval:
        catalog.include(map(Path, wanted.eval.include_path))


def quiet() -> None:
    """Turn off bars and warnings of the libraries in this process: the stage says what is to be said."""
    import logging as plain
    import os
    import warnings

    import datasets
    import transformers

    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # TRL reads it when its experimental trainers are imported
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl")
    plain.getLogger("bitsandbytes").setLevel(plain.ERROR)  # a line for each layer and pass without a GPU
    datasets.disable_progress_bars()
    logging: Any = transformers.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def dry_run(stage: Stage, wanted: recipe.Recipe) -> list[str]:
    """The plan, in lines: the resolved recipe, then rows, steps, tokens and memory. Writes nothing."""
    import yaml

    _set_up(wanted)
    wanted, arguments = trainer_arguments(stage, wanted)
    ready = prepare(stage, wanted, arguments)
    args = configuration(stage.config(wanted), arguments, wanted)
    filled = {name: getattr(args, name) for name in DECISIVE if hasattr(args, name)}
    filled = {name: value.value if isinstance(value, Enum) else value for name, value in filled.items()}
    resolved = replace(wanted, trainer={**filled, **arguments}).as_data()
    length = stage.tokens(wanted, arguments)
    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).rstrip()
    needed = memory.estimate(wanted.model, arguments, length, wanted.lora, stage.beside(wanted))
    return [text, "", *report(ready), needed]
