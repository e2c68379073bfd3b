"""Everything about a stage before its model is loaded: arguments checked, data read and encoded, steps planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite import hooks
from olmes_suite.devices import has_gpu
from olmes_suite.errors import StageRefused, UsageError, one_line
from olmes_suite.hooks import StageData
from olmes_suite.tasks import catalog
from olmes_suite.wording import count
from train_plugins import distributed
from train_plugins.checkpoints import saved_state
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
from train_plugins.trainers import lora, trial

if TYPE_CHECKING:
    from datasets import Dataset
    from pluggy import PluginManager
    from transformers import PreTrainedTokenizerBase, TrainingArguments


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
