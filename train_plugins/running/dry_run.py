"""The plan of a stage, printed without loading weights: rows, steps, tokens, time and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, cast

from olmes_suite.errors import UsageError
from train_plugins import distributed
from train_plugins.checkpoints import eval_documents
from train_plugins.config.recipe import Recipe
from train_plugins.data import show, turn_end
from train_plugins.data.encoding import Encoded
from train_plugins.running.prepare_stage import configuration, prepare, report, set_up, step_line, trainer_arguments
from train_plugins.stages import memory, price
from train_plugins.stages.base import Stage

DECISIVE = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "max_length",
)  # fmt: skip
"""Arguments of the trainer that are always shown, even if the recipe does not name them."""


def dry_run(stage: Stage, recipe: Recipe) -> list[str]:
    """Return the plan as lines: the resolved recipe, then rows, steps, tokens, time and memory. Writes nothing.

    With `sizes` in the recipe, data sets of the Hub are not loaded: the plan follows from these numbers.
    """
    import yaml

    set_up(recipe)
    recipe, arguments = trainer_arguments(stage, recipe, here=False)
    notes = _machine(stage, recipe)
    length = stage.tokens(recipe, arguments)
    if recipe.sizes is not None and all(entry.hub and entry.limit is None for entry in recipe.data):
        lines, tokens = _from_sizes(stage, recipe, arguments)
    else:
        ready = prepare(stage, recipe, arguments)
        lines, tokens = report(ready), ready.plan.tokens
    args = configuration(stage.config(recipe), arguments, recipe)
    filled = {name: getattr(args, name) for name in DECISIVE if hasattr(args, name)}
    filled = {name: value.value if isinstance(value, Enum) else value for name, value in filled.items()}
    resolved = replace(recipe, trainer={**filled, **arguments}).as_data()
    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).rstrip()
    held = memory.estimate(recipe.model, arguments, length, recipe.lora, stage.beside(recipe), recipe.sizes)
    return [text, "", *notes, *lines, *_time(stage, recipe, arguments, tokens), held]


def shown(stage: Stage, recipe: Recipe, count: int, colour: bool) -> tuple[list[str], list[str]]:
    """Return lines about the data, and the first `count` rows with their trained tokens marked. Loads no model."""
    set_up(recipe)
    recipe, arguments = trainer_arguments(stage, recipe, here=False)
    ready = prepare(stage, recipe, arguments)
    ends = turn_end.end_ids(ready.tokenizer, recipe.model)
    kwargs = arguments.get("chat_template_kwargs")
    notes = [*report(ready), *_lacking(recipe)]
    return notes, show.lines(ready.encoded, ready.tokenizer, ends, count=count, colour=colour, kwargs=kwargs)


def _machine(stage: Stage, recipe: Recipe) -> list[str]:
    """Return notes on what this machine lacks to run the recipe and to evaluate its checkpoints."""
    notes = []
    try:
        stage.check_machine(recipe)
    except UsageError as error:
        notes.append(f"note: not on this machine: {error}")
    return [*notes, *_lacking(recipe)]


def _lacking(recipe: Recipe) -> list[str]:
    return eval_documents.notes(recipe.eval, recipe.model, f"{recipe.place}: eval") if recipe.eval is not None else []


def _from_sizes(stage: Stage, recipe: Recipe, arguments: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return the line of rows and steps, and the number of tokens, from the published sizes."""
    sizes = recipe.sizes
    assert sizes is not None
    whole = stage.longest_row(recipe, arguments)
    tokens = sizes.rows * whole if sizes.tokens is None else sizes.tokens
    encoded = Encoded(cast(Any, range(sizes.rows)), sizes.rows, 0, 0, tokens)
    planned = stage.plan(encoded, arguments, distributed.world_size())
    names = ", ".join(str(entry.hub) for entry in recipe.data)
    lines = [f"data: {names}: not loaded, sizes from the recipe; `--set sizes=null` loads and counts it"]
    if sizes.tokens is None:
        lines.append(f"note: the number of tokens is not published; each row counts with {whole}")
    return [*lines, step_line(planned)], planned.tokens


def _time(stage: Stage, recipe: Recipe, arguments: Mapping[str, Any], tokens: int) -> list[str]:
    parameters = memory.count(memory.shapes(Path(recipe.model).expanduser()))
    parameters = parameters or (recipe.sizes.parameters if recipe.sizes else None) or 0
    return [price.estimate(parameters, tokens, stage.price(recipe, arguments))] if parameters else []
