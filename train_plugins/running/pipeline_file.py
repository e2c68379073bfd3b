"""Pipelines: stages in one YAML file, each starting from the checkpoint of the one before it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError
from olmes_suite.models.local.checkpoint import check_source, is_hub_id
from olmes_suite.tasks.index import nearest
from olmes_suite.yaml_files import Place
from train_plugins.config import recipe
from train_plugins.config.evaluation import Evaluation, check_evaluation
from train_plugins.config.recipe import Recipe
from train_plugins.data import encoding
from train_plugins.stages import registry as stages
from train_plugins.stages.base import Stage


@dataclass(frozen=True, slots=True)
class Prepare:
    """A command that creates a stage's data between two stages, such as answers of the checkpoint before it."""

    command: tuple[str, ...]
    """Program and arguments, run without a shell; `{model}` is the checkpoint that the stage starts from, `{seed}` its
    recipe's seed, `{python}` this interpreter."""
    makes: tuple[str, ...]
    """The files that the command writes; it is skipped if all of them exist."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stage, as written in the file."""

    name: str
    """Name of the stage in tables, and of its folder."""
    kind: str
    """sft, rm, dpo, rlvr or an installed stage."""
    recipe: str | Mapping[str, Any]
    """A recipe file (relative to the pipeline's folder or the working directory), a shipped recipe's name, or the
    recipe itself."""
    prepare: Prepare | None = None
    """A command that makes data for the stage."""


@dataclass(frozen=True, slots=True)
class Document:
    """The keys of a pipeline file."""

    stages: tuple[Entry, ...]
    """The stages, in order."""
    runs: str = "runs"
    """Run store of all evaluations; it overrides the recipes' `eval.runs`."""
    output: str = "checkpoints"
    """Stages whose recipe has no `output` write to `<output>/<name>`."""
    seed: int | None = None
    """Seed of every recipe without one."""
    final: Evaluation | None = None
    """The final evaluation, run once and only on the last checkpoint."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One checked stage of a pipeline."""

    name: str
    stage: Stage
    recipe: Recipe
    data: Mapping[str, Any]
    """The recipe, as a file would hold it."""
    prepare: Prepare | None = None

    @property
    def output(self) -> Path:
        """The stage's output folder."""
        return Path(str(self.recipe.output)).expanduser()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A checked pipeline."""

    file: Path
    runs: Path
    output: Path
    stages: tuple[Planned, ...]
    final: Evaluation | None = None

    @property
    def base(self) -> str:
        """The checkpoint that the first stage starts from."""
        return self.stages[0].recipe.model

    @property
    def last(self) -> Planned:
        """The last stage that ends in a language model."""
        return [one for one in self.stages if one.stage.generates][-1]


def load(file: Path, changes: Sequence[str] = (), *, models: bool = True) -> Pipeline:
    """Load a pipeline from a YAML file and check all that needs no library. Raises UsageError or ModelError.

    Without `models`, those that stages start from need not be on this machine.
    """
    source = recipe.read_yaml(_exists(file), "pipeline")
    for number, entry_data in _entries(source.data):
        if isinstance(entry_data.get("recipe"), str):
            included = recipe.read_yaml(_recipe_file(Path(entry_data["recipe"]), file))
            entry_data["recipe"], source.included["stages", number, "recipe"] = included.data, included
    for change in changes:
        recipe.set_key(source, change)
    document = yaml_files.typed(Document, source.data, source.place)
    if not document.stages:
        raise UsageError(f"{file}: stages: at least one is needed")
    planned: list[Planned] = []
    created: set[str] = set()
    for number, entry in enumerate(document.stages):
        created |= set(entry.prepare.makes) if entry.prepare else set()
        where = Place(str(file), f"stage {entry.name!r}", source, ("stages", number, "recipe"))
        planned.append(_planned(entry, document, planned, created, where))
    if models:
        _check_models(planned)
    pipeline = Pipeline(file, Path(document.runs), Path(document.output), tuple(planned), document.final)
    if not any(one.stage.generates for one in planned):
        raise UsageError(f"{file}: no stage ends in a language model")
    if document.final is not None:
        pipeline = replace(pipeline, final=_final(document, str(file)))
    return pipeline


def _exists(file: Path) -> Path:
    if not file.is_file():
        raise UsageError(f"pipeline {file}: no such file")
    return file


def _entries(data: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    listed = data.get("stages")
    return [(n, one) for n, one in enumerate(listed) if isinstance(one, dict)] if isinstance(listed, list) else []


def _recipe_file(name: Path, beside: Path) -> Path:
    neighbour = beside.parent / name
    return neighbour if neighbour.is_file() else recipe.find(name)


def _final(document: Document, file: str) -> Evaluation:
    assert document.final is not None
    if document.final.every is not None:
        raise UsageError(f"{file}: final.every: the last checkpoint is evaluated only once; remove the key")
    check_evaluation(document.final, True, f"{file}: final")
    _folders(document.final, f"{file}: final")
    return replace(document.final, runs=document.runs)


def _folders(evaluation: Evaluation, where: str) -> None:
    for folder in evaluation.data_dir:
        if not Path(folder).is_dir():
            raise UsageError(f"{where}: data_dir {folder}: no such folder")


def _planned(entry: Entry, document: Document, before: list[Planned], created: set[str], where: Place) -> Planned:
    """Fill in the pipeline's settings of a stage: model, output, run store, seed. Raises UsageError."""
    if any(one.name == entry.name for one in before):
        raise UsageError(f"{where}: a stage of that name comes before it")
    if not entry.name or entry.name != Path(entry.name).name:
        raise UsageError(f"{where}: the name is not a valid folder name")
    try:
        stage = stages.find(entry.kind)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    data: dict[str, Any] = json.loads(json.dumps(entry.recipe))  # a deep copy
    data.setdefault("output", str(Path(document.output) / entry.name))
    if document.seed is not None:
        data.setdefault("seed", document.seed)
    data["model"] = _model(data.get("model"), before, str(where))
    if isinstance(keys := data.get(entry.kind), dict) and "value_model" in keys:
        keys["value_model"] = _value_model(keys["value_model"], before, str(where))
    if isinstance(data.get("eval"), dict):
        data["eval"] = {**data["eval"], "runs": document.runs}
    stage_recipe = recipe.parse(data, where, entry.kind, stage.own, stages.names())
    _check(stage_recipe, before, created, str(where))
    return Planned(entry.name, stage, stage_recipe, data, entry.prepare)


def _model(reference: Any, before: list[Planned], where: str) -> str:
    """Return the checkpoint that a stage starts from: a folder, Hub id or earlier stage, by default the last stage."""
    if reference is not None:
        return next((str(one.output) for one in before if one.name == reference), str(reference))
    models = [one for one in before if one.stage.generates]
    if not models:
        raise UsageError(f"{where}: no stage before it to start from; set `model` in its recipe")
    return str(models[-1].output)


def _value_model(reference: Any, before: list[Planned], where: str) -> Any:
    rewards = {one.name: one for one in before if one.stage.name == "rm"}
    if not isinstance(reference, str):
        return reference
    if reference in rewards:
        return str(rewards[reference].output)
    if not ("/" in reference and is_hub_id(reference)) and not (Path(reference) / "config.json").is_file():
        raise UsageError(
            f"{where}: value_model {reference!r} is neither a checkpoint nor an rm stage before it"
            f"{nearest(reference, list(rewards))}"
        )
    return reference


def _check_models(planned: Sequence[Planned]) -> None:
    """Check the models that come from no earlier stage. Raises ModelError."""
    earlier: set[str] = set()
    for one in planned:
        if one.recipe.model not in earlier:
            check_source(one.recipe.model, training=True, needed=False)
        earlier.add(str(one.output))


def _check(stage_recipe: Recipe, before: list[Planned], created: set[str], where: str) -> None:
    """Check files, output and `final` of a stage's recipe. Raises UsageError."""
    earlier = {str(one.output) for one in before}
    if str(Path(str(stage_recipe.output)).expanduser()) in earlier:
        raise UsageError(f"{where}: output {stage_recipe.output} is also the output of a stage before it")
    for entry in stage_recipe.data:
        if entry.path is not None and entry.path not in created and not Path(entry.path).exists():
            raise UsageError(f"{where}: data {entry.path}: no such file or folder")
    if stage_recipe.final:
        raise UsageError(f"{where}: `final: true` is the pipeline's own key `final`; remove it from the recipe")
    if stage_recipe.eval is not None:
        _folders(stage_recipe.eval, f"{where}: eval")
    encoding.template_text(stage_recipe.chat_template)
