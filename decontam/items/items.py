"""The items of evaluations: the texts that training data are compared with.

A task's texts are the fields that it declares in its YAML file (`metadata.texts`), read by pyarrow from the split that
the evaluator scores. lm-eval is not imported.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decontam.items import chosen_fields as choice
from decontam.items import local_files
from olmes_suite.errors import DataError, MissingData, OlmesError, UsageError, one_line
from olmes_suite.files import file_signature
from olmes_suite.records import canonical_json, sha256
from olmes_suite.tasks import catalog, index, question_file, suites
from olmes_suite.tasks.documents import DataSource, DataSpec, find_split, load_split
from olmes_suite.tasks.keys import TaskKeys

if TYPE_CHECKING:
    import pyarrow as pa

NOT_BUILT = "not part of this version of olmes-suite"
ALL_SUITES = ("dev", "unseen", "safety")
"""The suites to compare with by default; `smoke` repeats tasks of these."""


@dataclass(frozen=True, slots=True)
class Item:
    """One instance of an evaluation."""

    task: str
    """Leaf task, or the task's name in the user's file."""
    doc_id: int | str
    """Row of the split from 0, or the doc_id in the user's file."""
    parts: tuple[tuple[str, str], ...]
    """(field, text). N-grams do not cross from one part to the next."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf task: the source of its rows, and the fields to compare."""

    task: str
    spec: DataSpec
    split: str
    fields: tuple[str, ...]
    where: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Field to patterns of text that no prompt shows; matches are removed before the comparison."""
    strict: bool = False
    """Whether each field must exist, because the user named it for this task."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation that gets a verdict: a task or a group, or a task of the user's file."""

    name: str
    leaves: tuple[Leaf, ...] = ()
    unseen: bool = False
    """Whether it belongs to the unseen suite, where overlap drops the whole training set."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The evaluations of a scan, and those that are not available, with the reason."""

    evaluations: tuple[Evaluation, ...]
    missing: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()
    """Fields that the user named for every task. Each must exist in at least one of them."""


def of_suites(names: Sequence[str], tasks: Sequence[str], fields: Mapping[str, Sequence[str]]) -> Selection:
    """Select the tasks of suites (all suites where nothing is named) and single tasks, each once.

    `fields` replaces the declared fields: task or group, or "" for every task, to field names. A group whose members
    have different data sets (the safety sets) becomes one evaluation for each member.
    Raises UsageError for an unknown suite or task. Fields are checked when the data are read.
    """
    named_fields = choice.chosen(fields)
    chosen = [entry.task for name in names or (() if tasks else ALL_SUITES) for entry in suites.load(name).tasks]
    evaluations: dict[str, Evaluation] = {}
    missing: list[tuple[str, str]] = []
    for name in dict.fromkeys([*chosen, *(catalog.find(task).name for task in tasks)]):
        if name not in index.index() and suites.task_of(suites.SuiteEntry(name)) is None:
            missing.append((name, NOT_BUILT))
            continue
        leaves = tuple(_leaf(leaf, named_fields) for leaf in index.index()[name].leaves)
        apart = len({leaf.spec.path for leaf in leaves}) > 1
        unseen = name in suites.unseen_tasks()
        for evaluation in [Evaluation(leaf.task, (leaf,), unseen) for leaf in leaves] if apart else [
            Evaluation(name, leaves, unseen)
        ]:  # fmt: skip
            evaluations.setdefault(evaluation.name, evaluation)
    named_fields.check([leaf.task for evaluation in evaluations.values() for leaf in evaluation.leaves])
    return Selection(tuple(evaluations.values()), tuple(missing), named_fields.everywhere)


def _leaf(name: str, named_fields: choice.Chosen) -> Leaf:
    entry = index.index()[name]
    config = definition(index.task_file(entry))
    metadata, keys = config.get("metadata") or {}, TaskKeys.of(config)
    named, strict = named_fields.of(name)
    own = Path(entry.file).is_absolute()
    fields = named or tuple(metadata.get("texts") or ()) or (local_files.shown_columns(config) if own else ())
    short = name.removeprefix(index.PREFIX)
    if not fields:
        raise UsageError(f"task {short} declares no texts to compare; name its fields: --eval-field {short}:FIELD")
    path = index.task_file(entry)
    spec = keys.data_spec(config["dataset_path"], config.get("dataset_name"), path.parent / "sample.jsonl")
    split = config.get("test_split") or config.get("validation_split") or "test"
    return Leaf(
        name,
        replace(spec, files=local_files.files_of(config, split, path)) if own else spec,
        split,
        fields, keys.where or {}, _without(metadata.get("texts_without") or (), fields), strict,
    )  # fmt: skip


def _without(patterns: Mapping[str, Sequence[str]] | Sequence[str], fields: Sequence[str]) -> dict[str, Sequence[str]]:
    """Group patterns by field; a plain list is for every field."""
    return dict(patterns) if isinstance(patterns, Mapping) else dict.fromkeys(fields, patterns) if patterns else {}


@lru_cache(maxsize=512)
def definition(path: Path) -> dict[str, Any]:
    """Read a task file with its includes. Functions remain names; as in lm-eval, the including file wins."""
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"task file {path}: {one_line(error, None)}") from error
    if question_file.is_question_file(content):
        return question_file.expand(path, functions=False)
    included = content.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        merged.update(definition(path.parent / name))
    return {**merged, **content}


@lru_cache(maxsize=1)
def _loader() -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """A loader that reads `!function name` as the name."""

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    return Loader


def items(evaluation: Evaluation, source: DataSource) -> list[Item]:
    """Read every row of the evaluation's splits, numbered as by the evaluator. Raises MissingData and DataError."""
    return [item for leaf in evaluation.leaves for item in _items(leaf, source)]


def _items(leaf: Leaf, source: DataSource) -> list[Item]:
    table = load_split(source, leaf.spec, leaf.split)
    names = [name for name in leaf.fields if name in table.column_names]
    known = ", ".join(table.column_names)
    if leaf.strict and len(names) < len(leaf.fields):
        absent = next(name for name in leaf.fields if name not in names)
        raise UsageError(f"--eval-field {leaf.task.removeprefix(index.PREFIX)}:{absent}: the data set has {known}")
    if not names:
        raise DataError(f"task {leaf.task}: no field {', '.join(leaf.fields)}; the data set has {known}")
    columns = [_shown(table[name].to_pylist(), leaf.without.get(name, ())) for name in names]
    return [
        Item(leaf.task, row, tuple((name, column[row]) for name, column in zip(names, columns, strict=True)))
        for row in _rows(table, leaf.where)
    ]


def _shown(values: Iterable[Any], without: Sequence[str]) -> list[str]:
    """Convert a field's values to texts as a prompt shows them."""
    texts = [_text(value) for value in values]
    return [re.sub("|".join(without), "", text) for text in texts] if without else texts


def _rows(table: pa.Table, where: Mapping[str, Any]) -> list[int]:
    """Select the rows that belong to the task."""
    chosen = set(range(table.num_rows))
    for column, value in where.items():
        if column in table.column_names:
            accepted = value if isinstance(value, list) else [value]
            chosen &= {row for row, cell in enumerate(table[column].to_pylist()) if cell in accepted}
    return sorted(chosen)


def _text(value: object) -> str:
    """Convert a field's value to text: the elements of a list are lines of one text, and messages are their contents.

    Messages may be JSON in a text column.
    """
    if value is None:
        return ""
    if isinstance(value, str) and value.lstrip("[ \n").startswith('{"role"'):
        with contextlib.suppress(ValueError, RecursionError):
            return _text(json.loads(value))
    if isinstance(value, dict) and {"role", "content"} <= value.keys():
        return _text(value["content"])
    if isinstance(value, (list, tuple)):
        return "\n".join(_text(element) for element in value)
    if isinstance(value, dict):
        return "\n".join(_text(element) for element in value.values())
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def signature(selection: Selection, source: DataSource) -> str | None:
    """Compute a key that changes with the evaluations' definitions and data; None where a split has no local file."""
    leaves = [leaf for evaluation in selection.evaluations for leaf in evaluation.leaves]
    parts: list[Any] = [selection.missing, selection.fields, siblings(leaves)]
    for evaluation in selection.evaluations:
        for leaf in evaluation.leaves:
            where = leaf.spec.sample_file if source.sample else find_split(source, leaf.spec, leaf.split)
            if leaf.spec.files or (where is None and not source.mirrors):
                return None
            stamp = file_signature(where) if where is not None and where.is_file() else "missing"
            parts.append(
                [
                    evaluation.name,
                    evaluation.unseen,
                    leaf.task,
                    leaf.split,
                    leaf.fields,
                    leaf.where,
                    leaf.without,
                    leaf.strict,
                    leaf.spec.subset,
                    stamp,
                ]
            )
    return sha256(canonical_json(parts))


def read(selection: Selection, source: DataSource) -> tuple[Selection, list[list[Item]]]:
    """Read the items of every evaluation; evaluations without local data are added to `missing`.

    Raises NothingToScan where no evaluation has data, UsageError for a field that the user named and no task has.
    """
    here: list[Evaluation] = []
    groups: list[list[Item]] = []
    missing = list(selection.missing)
    for evaluation in selection.evaluations:
        try:
            groups.append(items(evaluation, source))
            here.append(evaluation)
        except MissingData as error:
            missing.append((evaluation.name, error.of(evaluation.name)))
    if not here:
        raise NothingToScan("nothing to compare with: " + "; ".join(f"{name}: {why}" for name, why in missing[:3]))
    compared = {name for group in groups for item in group for name, _ in item.parts} if selection.fields else set()
    if absent := [name for name in selection.fields if name not in compared]:
        raise UsageError(f"--eval-field {absent[0]}: none of the evaluations has that field")
    return Selection(tuple(here), tuple(missing), selection.fields), groups


class NothingToScan(OlmesError):
    """Raised where none of the selected evaluations has data on this machine."""


def siblings(leaves: Sequence[Leaf]) -> dict[str, list[str]]:
    """Map each leaf task to itself and all shipped leaf tasks with the same rows, which have the same items."""
    places = {_place(leaf) for leaf in leaves}
    same: dict[str, list[str]] = {}
    for name, entry in index.index().items():
        if not entry.members and not Path(entry.file).is_absolute() and has_texts(entry):
            leaf = _leaf(name, choice.NOTHING)
            if _place(leaf) in places:
                same.setdefault(_place(leaf), []).append(name)
    return {leaf.task: list(dict.fromkeys([*same.get(_place(leaf), ()), leaf.task])) for leaf in leaves}


def has_texts(entry: index.TaskEntry) -> bool:
    """Tell whether a leaf task declares texts to compare; tasks whose documents are generated declare none."""
    return bool((definition(index.task_file(entry)).get("metadata") or {}).get("texts"))


def _place(leaf: Leaf) -> str:
    files = [str(file) for file in leaf.spec.files]
    return canonical_json([leaf.spec.path, leaf.spec.config, leaf.split, leaf.where, leaf.spec.subset, *files])
