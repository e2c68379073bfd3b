"""olmes data ablate: mixing experiments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from train_plugins.data_cli.options import Changes, Command, DryRun, Json, Options, Out, Resume, make

if TYPE_CHECKING:
    from train_plugins.data.curation.mix.ablate import Ablation
    from train_plugins.data.curation.output import Output
    from train_plugins.data.curation.recipe import Loaded

app = typer.Typer(add_completion=False, rich_markup_mode=None)
Experiment = Annotated[
    Path | None, typer.Argument(metavar="RECIPE", help="YAML file of the experiment; not with --compare.")
]
Compare = Annotated[
    Path | None,
    typer.Option("--compare", metavar="DIR", help="Compare the trained mixes of an experiment with the complete one."),
]


@app.command()
def ablate(
    recipe: Experiment = None, out: Out = None, change: Changes = None, resume: Resume = False, dry_run: DryRun = False,
    compare: Compare = None, as_json: Json = False,
) -> int:  # fmt: skip
    """Write the mixes without one source and with one more, and the pipeline that trains on each.

    Exit status: 0 written or compared, 2 wrong usage, 4 some tasks are not comparable.
    """
    from olmes_suite.errors import UsageError
    from train_plugins.data.curation.mix import ablate as experiment

    if compare is not None:
        return _compare(compare, as_json)
    if recipe is None:
        raise UsageError("olmes data ablate: give the recipe of an experiment, or --compare DIR")
    command = Command("ablate", experiment.Ablation, experiment.inputs, experiment.describe, _checked, _summary)
    return make(command, recipe, Options(out, change or (), resume, dry_run, as_json))


def _checked(loaded: Loaded[Ablation], output: Output) -> Mapping[str, Any]:
    """Write the experiment once its pipeline is a valid one."""
    import yaml

    from olmes_suite.files import write_text
    from train_plugins.data.curation.mix import ablate as experiment
    from train_plugins.running import pipeline_file

    file = output.state / experiment.PIPELINE
    planned = experiment.pipeline(experiment.plan_of(loaded), loaded.output)
    write_text(file, yaml.safe_dump(planned, sort_keys=False, allow_unicode=True))
    pipeline_file.load(file, models=False)  # another machine may train
    return experiment.make(loaded, output)


def _summary(manifest: Mapping[str, Any]) -> list[str]:
    """Return the lines to print about a written experiment."""
    import textwrap

    from train_plugins.data.curation.mix.ablate import equal_mixes

    names = manifest["mixes"]
    listed = textwrap.wrap(f"{len(names)} mixes: {', '.join(names)}", 80, break_on_hyphens=False)
    return [*listed, *equal_mixes(manifest.get("same", {})), "card.md says how to train on them and compare"]


def _compare(folder: Path, as_json: bool) -> int:
    """Compare the runs of a finished pipeline with that of the complete mix."""
    from olmes_suite.cli.main import run
    from olmes_suite.errors import UsageError
    from olmes_suite.files import read_json
    from train_plugins.checkpoints.gains import FILE

    found = folder / "runs" / FILE
    if not found.is_file():
        raise UsageError(f"--compare {folder}: no {found}; run `olmes train run {folder / 'pipeline.yaml'}` first")
    runs = {gain["stage"]: gain["candidate"] for gain in read_json(found)["gains"]}
    full = runs.pop("full", None)
    runs.pop("all stages", None)
    if full is None or not runs:
        raise UsageError(f"--compare {folder}: {found} holds no run of the complete mix and of another one")
    return run(["compare", full, *runs.values(), "--runs", str(folder / "runs"), *(["--json"] if as_json else [])])
