"""A stage from recipe to checkpoint: check, read, plan, hooks, train, save, hooks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmes_suite import hooks
from olmes_suite.errors import StageRefused, StorageError, UsageError
from olmes_suite.hooks import StageData
from train_plugins import distributed
from train_plugins.checkpoints import adapters, gate, lineage, resume
from train_plugins.checkpoints.evaluator import Evaluator
from train_plugins.config import recipe
from train_plugins.data import encoding
from train_plugins.data import sets as data
from train_plugins.stages import memory, plan
from train_plugins.stages.base import Stage, check_language_model
from train_plugins.trainers import lora, offload


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

    @property
    def output(self) -> Path:
        """Where the stage writes."""
        return self.about.output


def run(stage: Stage, wanted: recipe.Recipe, go_on: bool = False, plugins: Sequence[Any] = ()) -> Path:
    """Train a stage; returns its last checkpoint, which is the output folder itself.

    `plugins` are registered beside the installed ones. Raises OlmesError: StageRefused for data or a loss that stops
    the stage, UsageError, DataError and ModelError for what the user can mend.
    """
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
        manager.hook.olmes_after_stage(stage=ready.about, checkpoint=output, run=written)
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
        step = int(lineage.read(output)["step"])
        last = next((result for result in evaluator.results() if result.step == step), None)
        print(gate.judge(wanted.gate, wanted.eval, wanted.model, output, last), file=sys.stderr)


def trainer_arguments(stage: Stage, wanted: recipe.Recipe) -> tuple[recipe.Recipe, dict[str, Any]]:
    """The recipe with its trainer's arguments typed, and all arguments of the trainer. Raises UsageError."""
    _quiet()
    config = stage.config(wanted)
    given = recipe.check_trainer(wanted.trainer, config, wanted.place)
    if wanted.eval and not stage.generates:
        raise UsageError(f"eval: the checkpoints of {stage.name} generate nothing to evaluate; remove the key")
    if stage.generates:
        check_language_model(wanted.model)
    wanted = replace(wanted, trainer=given)
    gpu = _has_gpu()  # TRL's own default is bf16 wherever it runs
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
    tokenizer = encoding.prepare_tokenizer(load_tokenizer(wanted.model, None), template, stage.masked)
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
    _, length = stage.limit(wanted, arguments)
    encoded = stage.encode(rows, tokenizer, length, arguments.get("dataset_num_proc"))
    planned = stage.plan(encoded, arguments, distributed.world_size())
    return Prepared(stage, wanted, arguments, about, sets, tokenizer, encoded, planned)


def report(ready: Prepared) -> list[str]:
    """What is about to happen, in a few lines."""
    encoded, planned = ready.encoded, ready.plan
    limit, length = ready.stage.limit(ready.recipe, ready.arguments)
    lines = [f"{one.path}: {len(one.rows)} rows, sha256 {one.sha256[:16]}…" for one in ready.data.sets]
    if encoded.cut or encoded.dropped:
        lines.append(f"{limit} {length}: {encoded.cut} rows are cut, {encoded.dropped} of {encoded.read} are left out")
    lines.append(
        f"{planned.rows} rows, batch {planned.batch} ({planned.processes} processes × "
        f"{planned.batch // planned.processes // planned.accumulation} rows × {planned.accumulation} passes), "
        f"{planned.steps} steps, about {planned.tokens} tokens"
    )
    return lines


def train(
    ready: Prepared, start: Path | None, manager: Any, evaluator: Evaluator | None, watchers: Sequence[Any] = ()
) -> dict[str, Any] | None:  # fmt: skip
    """Train and save; returns the last checkpoint's lineage, None on all processes but the first.

    Raises StageRefused where the loss is not finite or the memory does not suffice, ModelError, StorageError.
    """
    from transformers import PrinterCallback

    from train_plugins.running import failures
    from train_plugins.trainers.callbacks import Checkpoints, Progress

    output, wanted = ready.output, ready.recipe
    counts = {"read": ready.encoded.read, "trained": len(ready.encoded.rows), "cut": ready.encoded.cut,
              "dropped": ready.encoded.dropped}  # fmt: skip
    before = lineage.read(start) if start else {}
    described = lineage.describe(ready.about, ready.data, counts, wanted.seed, ready.plan.processes, before)
    args = configuration(ready.stage.config(wanted), ready.arguments, wanted)
    limit, args.save_total_limit = args.save_total_limit, None  # `Checkpoints` rotates
    with failures.loading(wanted.model), lora.explained(wanted.lora):
        trainer = ready.stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)
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


def _save(trainer: Any, output: Path, checkpoints: Any, adapter: bool) -> dict[str, Any] | None:
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
    written: dict[str, Any] = checkpoints.write(output, trainer.state.global_step)
    return written


def configuration(config: type, arguments: Mapping[str, Any], wanted: recipe.Recipe) -> Any:
    """An instance of TRL's configuration. Raises UsageError for what it does not accept."""
    fixed = {"output_dir": str(Path(str(wanted.output)).expanduser()), "seed": wanted.seed, "disable_tqdm": True}
    try:
        return config(**{**arguments, **fixed})
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())[:300]}") from None


def _together(sets: StageData) -> Any:
    from datasets import concatenate_datasets

    return concatenate_datasets([one.rows for one in sets.sets])


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _quiet() -> None:
    """No bars and warnings of the libraries: the stage says what is to be said."""
    import logging as plain
    import os
    import warnings

    import datasets
    import transformers

    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl")
    plain.getLogger("bitsandbytes").setLevel(plain.ERROR)  # a line for each layer and pass without a GPU
    datasets.disable_progress_bars()
    logging: Any = transformers.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def dry_run(stage: Stage, wanted: recipe.Recipe) -> list[str]:
    """The plan, in lines: the resolved recipe, then rows, steps, tokens and memory. Writes nothing."""
    import yaml

    wanted, arguments = trainer_arguments(stage, wanted)
    ready = prepare(stage, wanted, arguments)
    resolved = replace(wanted, trainer=arguments).as_data()
    length = stage.tokens(wanted, arguments)
    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).rstrip()
    needed = memory.estimate(wanted.model, arguments, length, wanted.lora, stage.beside(wanted))
    return [text, "", *report(ready), needed]
