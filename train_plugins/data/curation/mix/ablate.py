"""Mixing experiments: the mixes without one source and with one more, and the pipeline that trains on each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from olmes_suite.errors import UsageError
from olmes_suite.yaml_files import Place, typed
from train_plugins.config import recipe as training
from train_plugins.data.curation import recipe as recipes
from train_plugins.data.curation.inputs import file_digest
from train_plugins.data.curation.mix import keys
from train_plugins.data.curation.mix.keys import Mix
from train_plugins.data.curation.output import Input, Output
from train_plugins.data.curation.recipe import Curation, Loaded

Way = Literal["leave_one_out", "add_one"]
STAGES: Mapping[keys.Kind, str] = {"sft": "sft", "preference": "dpo", "rlvr": "rlvr"}
"""The training stage of each kind of mix."""
PIPELINE = "pipeline.yaml"
_NAMES = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation(Curation):
    """The keys of a mixing experiment."""

    mix: str | Mapping[str, Any]
    """A recipe of `olmes data mix`: a file, a shipped one's name, or the recipe itself."""
    ways: tuple[Way, ...] = ("leave_one_out", "add_one")
    base: tuple[str, ...] = ()
    """The sources that add_one starts from; by default the first."""
    only: tuple[str, ...] = ()
    """The sources to leave out or add; by default all."""
    train: str | Mapping[str, Any] = field(default_factory=dict)
    """The recipe of the training stage, without `data`: a file, a shipped one's name, or the recipe itself."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One mix of the experiment."""

    name: str
    about: str
    recipe: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked experiment."""

    stage: str
    variants: tuple[Variant, ...]
    """The different mixes, each of which is trained on once."""
    same: Mapping[str, str]
    """Mixes of the same sources as an earlier one, and its name."""
    train: Mapping[str, Any]


def plan_of(loaded: Loaded[Ablation]) -> Plan:
    """Check an experiment and return its mixes, the complete one first. Raises UsageError."""
    data, place = _mix_data(loaded)
    data = {"seed": loaded.keys.seed, "format": loaded.keys.format, **data}  # those of the mix come first
    mix = typed(Mix, data, place)
    names = keys.check(mix, place)
    for name in ("base", "only"):
        for source in getattr(loaded.keys, name):
            if source not in names:
                where = loaded.place.line((name,))
                raise UsageError(f"{where}: {name}: the mix has no source {source!r}; it has {', '.join(names)}")
    if len(names) < 2:
        raise UsageError(f"{place}: sources: a mixing experiment needs at least two")
    data = {**data, "sources": [{**one, "name": name} for one, name in zip(data["sources"], names, strict=True)]}
    variants, same = _different(_variants(loaded.keys, data, names))
    return Plan(STAGES[mix.kind], variants, same, _train_data(loaded, STAGES[mix.kind]))


def inputs(loaded: Loaded[Ablation]) -> list[Input]:
    """Return the files of the experiment: its mix and its training recipe."""
    plan_of(loaded)
    files = []
    if isinstance(loaded.keys.mix, str):
        files.append((loaded.keys.mix, recipes.find(Path(loaded.keys.mix), "mix")))
    if isinstance(loaded.keys.train, str):
        files.append((loaded.keys.train, training.find(Path(loaded.keys.train))))
    return [Input(name, file_digest(file)) for name, file in files]


def describe(loaded: Loaded[Ablation], given: Sequence[Input]) -> dict[str, Any]:
    """Return what would be written."""
    plan = plan_of(loaded)
    return {
        "stage": plan.stage, "mixes": [f"{one.name}: {one.about}" for one in plan.variants],
        "equal mixes": equal_mixes(plan.same), "output": str(loaded.output),
    }  # fmt: skip


def make(loaded: Loaded[Ablation], output: Output) -> Mapping[str, Any]:
    """Write the mixes and the pipeline and return the manifest."""
    import yaml

    plan = plan_of(loaded)
    folder = loaded.output

    def write(name: str, content: Mapping[str, Any], comment: str) -> None:
        text = yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True, width=120)
        (output.work / name).parent.mkdir(exist_ok=True)
        (output.work / name).write_text(f"# {comment}\n{text}", encoding="utf-8")

    for variant in plan.variants:
        write(f"mixes/{variant.name}.yaml", variant.recipe, f"{variant.about}.")
    write(PIPELINE, pipeline(plan, folder), "One training for each mix, all from the same model.")
    count = len(plan.variants)
    return output.finish(
        {"read": count, "written": count}, _card(plan, folder),
        {"mixes": [v.name for v in plan.variants], "same": dict(plan.same)},
    )  # fmt: skip


def equal_mixes(same: Mapping[str, str]) -> list[str]:
    """Return one line for each mix of the same sources as an earlier one."""
    return [f"{name} is {first}, which is trained on once" for name, first in same.items()]


def pipeline(plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the pipeline file: each stage makes its mix, trains on it from the same model, and is evaluated."""
    stages = []
    for variant in plan.variants:
        data = folder / "data" / variant.name
        rows = data / f"data.{variant.recipe.get('format', 'parquet')}"
        command = [
            "{python}",
            "-m",
            "olmes_suite.cli.main",
            "data",
            "mix",
            str(folder / "mixes" / f"{variant.name}.yaml"),
        ]
        stages.append({
            "name": variant.name, "kind": plan.stage,
            "prepare": {"command": [*command, "--out", str(data), "--resume"], "makes": [str(rows)]},
            "recipe": {**plan.train, "data": [{"path": str(rows)}]},
        })  # fmt: skip
    return {"runs": str(folder / "runs"), "output": str(folder / "checkpoints"), "stages": stages}


def _mix_data(loaded: Loaded[Ablation]) -> tuple[dict[str, Any], Place]:
    given = loaded.keys.mix
    if not isinstance(given, str):
        return json.loads(json.dumps(recipes.plain(given))), loaded.place.inside("mix")
    source = training.read_yaml(recipes.find(Path(given), "mix"))
    return json.loads(json.dumps(source.data)), Place(given, file=source)


def _train_data(loaded: Loaded[Ablation], stage: str) -> dict[str, Any]:
    given = loaded.keys.train
    data = training.read_yaml(training.find(Path(given))).data if isinstance(given, str) else given
    place = loaded.place.line(("train",))
    for key, why in (
        ("model", "the model that every training starts from"),
        ("eval", "what the mixes are compared by"),
    ):
        if not data.get(key):
            raise UsageError(f"{place}: train: the key {key!r} is missing: {why}")
    # every training has data, output and run store of its own
    return {key: value for key, value in data.items() if key not in ("data", "output")}


def _variants(ablation: Ablation, data: Mapping[str, Any], names: Sequence[str]) -> list[Variant]:
    base = list(ablation.base or names[:1])
    chosen = [name for name in names if not ablation.only or name in ablation.only]
    labels = _labels(names)
    found = [_variant("full", "All sources", data, names)]
    if "leave_one_out" in ablation.ways:
        found += [
            _variant(f"without_{labels[left]}", f"All sources but {left}", data, [n for n in names if n != left])
            for left in chosen
        ]
    if "add_one" in ablation.ways:
        found.append(_variant("base", f"The base alone: {', '.join(base)}", data, base))
        found += [
            _variant(f"with_{labels[more]}", f"The base and {more}", data, [n for n in names if n in (*base, more)])
            for more in chosen
            if more not in base
        ]
    return found


def _different(found: Sequence[Variant]) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Return the mixes that differ in their sources, and for each other one the name of the earlier equal one."""
    first: dict[frozenset[str], Variant] = {}
    same: dict[str, str] = {}
    for one in found:
        earlier = first.setdefault(frozenset(source["name"] for source in one.recipe["sources"]), one)
        if earlier is not one:
            same[one.name] = earlier.name
    return tuple(first.values()), same


def _variant(name: str, about: str, data: Mapping[str, Any], names: Sequence[str]) -> Variant:
    sources = [dict(one) for one in data["sources"] if one["name"] in names]
    if data.get("rows") is not None:  # the mix keeps its size, so the other shares grow
        whole, left = (sum(one["share"] for one in some) for some in (data["sources"], sources))
        for one in sources:
            one["share"] = one["share"] * whole / left
    recipe = {key: value for key, value in data.items() if key not in ("sources", "output")}
    return Variant(
        name, about, {"about": about, **{k: v for k, v in recipe.items() if k != "about"}, "sources": sources}
    )


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Return the sources' names as files and stages can have them, each another one."""
    found: dict[str, str] = {}
    for name in names:
        label = plain = "".join(character if character in _NAMES else "_" for character in name)
        number = 1
        while label in found.values():
            number += 1
            label = f"{plain}-{number}"
        found[name] = label
    return found


def _card(plan: Plan, folder: Path) -> str:
    lines = ["# Mixing experiment", "", "| mix | what it holds |", "| --- | --- |"]
    lines += [f"| {one.name} | {one.about} |" for one in plan.variants]
    lines += ["", *(f"* {line}" for line in equal_mixes(plan.same))] if plan.same else []
    lines += ["", "Make the mixes, train on each and evaluate:", "", f"    olmes train run {folder / PIPELINE}", ""]
    lines += ["Compare the others with the complete mix:", "", f"    olmes data ablate --compare {folder}", ""]
    return "\n".join(lines)
