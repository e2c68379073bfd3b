"""A pipeline: stages from one file, each starting where the last one ended. YAML in, checked stages out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError
from olmes_suite.models.local.checkpoint import check_folder, is_hub_id
from olmes_suite.tasks.index import nearest
from olmes_suite.yaml_files import Place
from train_plugins.config import recipe
from train_plugins.config.recipe import Evaluation, Recipe
from train_plugins.data import encoding
from train_plugins.stages import registry as stages
from train_plugins.stages.base import Stage


@dataclass(frozen=True, slots=True)
class Prepare:
    """A command that makes a stage's data between two stages, such as answers of the checkpoint before it."""

    command: tuple[str, ...]
    """Program and arguments, run without a shell; `{model}` is the checkpoint that the stage starts from, `{seed}` its
    recipe's seed, `{python}` this interpreter."""
    makes: tuple[str, ...]
    """The files that it writes; it is not run where all of them are there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stage, as the file has it."""

    name: str
    kind: str
    recipe: str | Mapping[str, Any]
    """A recipe's file, beside the pipeline's or from here, a shipped recipe's name, or the recipe itself."""
    prepare: Prepare | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """The file's keys."""

    stages: tuple[Entry, ...]
    runs: str = "runs"
    """Run store of all evaluations; it wins over the recipes' `eval.runs`."""
    output: str = "checkpoints"
    """Stages whose recipe has no `output` write to `<output>/<name>`."""
    seed: int | None = None
    """Of every recipe that has none."""
    final: Evaluation | None = None
    """What the last checkpoint, and no other, is evaluated on, once."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One stage, checked."""

    name: str
    stage: Stage
    recipe: Recipe
    data: Mapping[str, Any]
    """The recipe as a file would hold it."""
    prepare: Prepare | None = None

    @property
    def output(self) -> Path:
        """Where the stage writes."""
        return Path(str(self.recipe.output)).expanduser()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline, checked."""

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


def load(file: Path, changes: Sequence[str] = ()) -> Pipeline:
    """The pipeline of a YAML file, everything checked that needs no library. Raises UsageError or ModelError."""
    source = recipe.read_yaml(_exists(file), "pipeline")
    for number, given in _entries(source.data):
        if isinstance(given.get("recipe"), str):
            included = recipe.read_yaml(_recipe_file(Path(given["recipe"]), file))
            given["recipe"], source.included["stages", number, "recipe"] = included.data, included
    for change in changes:
        recipe.set_key(source, change)
    document = yaml_files.typed(Document, source.data, source.place)
    if not document.stages:
        raise UsageError(f"{file}: stages: at least one is needed")
    found: list[Planned] = []
    made: set[str] = set()
    for number, entry in enumerate(document.stages):
        made |= set(entry.prepare.makes) if entry.prepare else set()
        where = Place(str(file), f"stage {entry.name!r}", source, ("stages", number, "recipe"))
        found.append(_planned(entry, document, found, made, where))
    pipeline = Pipeline(file, Path(document.runs), Path(document.output), tuple(found), document.final)
    if not any(one.stage.generates for one in found):
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
    own = beside.parent / name
    return own if own.is_file() else recipe.find(name)


def _final(document: Document, file: str) -> Evaluation:
    assert document.final is not None
    if document.final.every is not None:
        raise UsageError(f"{file}: final.every: the last checkpoint is looked at once; remove the key")
    recipe.check_evaluation(document.final, True, f"{file}: final")
    _folders(document.final, f"{file}: final")
    return replace(document.final, runs=document.runs)


def _folders(wanted: Evaluation, where: str) -> None:
    for folder in wanted.data_dir:
        if not Path(folder).is_dir():
            raise UsageError(f"{where}: data_dir {folder}: no such folder")


def _planned(entry: Entry, document: Document, before: list[Planned], made: set[str], where: Place) -> Planned:
    """The stage with what the pipeline decides filled in: model, output, run store, seed."""
    if any(one.name == entry.name for one in before):
        raise UsageError(f"{where}: a stage of that name comes before it")
    if not entry.name or entry.name != Path(entry.name).name:
        raise UsageError(f"{where}: the name is no name of a folder")
    try:
        stage = stages.find(entry.kind)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    data: dict[str, Any] = json.loads(json.dumps(entry.recipe))  # a copy that nothing else changes
    data.setdefault("output", str(Path(document.output) / entry.name))
    if document.seed is not None:
        data.setdefault("seed", document.seed)
    data["model"] = _model(data.get("model"), before, str(where))
    if isinstance(own := data.get(entry.kind), dict) and "value_model" in own:
        own["value_model"] = _value_model(own["value_model"], before, str(where))
    if isinstance(data.get("eval"), dict):
        data["eval"] = {**data["eval"], "runs": document.runs}
    wanted = recipe.parse(data, where, entry.kind, stage.own, stages.names())
    _check(wanted, before, made, str(where))
    return Planned(entry.name, stage, wanted, data, entry.prepare)


def _model(named: Any, before: list[Planned], where: str) -> str:
    """The checkpoint that a stage starts from: what its recipe names, a folder, Hub id or stage, else the last one."""
    if named is not None:
        return next((str(one.output) for one in before if one.name == named), str(named))
    models = [one for one in before if one.stage.generates]
    if not models:
        raise UsageError(f"{where}: nothing comes before it to start from; say `model` in its recipe")
    return str(models[-1].output)


def _value_model(named: Any, before: list[Planned], where: str) -> Any:
    rewards = {one.name: one for one in before if one.stage.name == "rm"}
    if not isinstance(named, str):
        return named
    if named in rewards:
        return str(rewards[named].output)
    if not ("/" in named and is_hub_id(named)) and not (Path(named) / "config.json").is_file():
        raise UsageError(
            f"{where}: value_model {named!r} is neither a checkpoint nor an rm stage before it"
            f"{nearest(named, list(rewards))}"
        )
    return named


def _check(wanted: Recipe, before: list[Planned], made: set[str], where: str) -> None:
    """Files that are there or will be, and who may look at the unseen suite. Raises UsageError or ModelError."""
    earlier = {str(one.output) for one in before}
    if str(Path(str(wanted.output)).expanduser()) in earlier:
        raise UsageError(f"{where}: output {wanted.output} is that of a stage before it")
    if wanted.model not in earlier and not is_hub_id(wanted.model):
        check_folder(wanted.model)
    for entry in wanted.data:
        if entry.path is not None and entry.path not in made and not Path(entry.path).exists():
            raise UsageError(f"{where}: data {entry.path}: no such file or folder")
    if wanted.final:
        raise UsageError(f"{where}: `final: true` is the pipeline's own key `final`; remove it from the recipe")
    if wanted.eval is not None:
        _folders(wanted.eval, f"{where}: eval")
    encoding.template_text(wanted.chat_template)
