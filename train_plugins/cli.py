"""The command `olmes train`: run a training stage from a recipe, or a pipeline of stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from olmes_suite.cli.options import ReportTo

if TYPE_CHECKING:
    from train_plugins.running.launch import Launch

app = typer.Typer(add_completion=False, rich_markup_mode=None)
merge_app = typer.Typer(add_completion=False, rich_markup_mode=None)

PIPELINE = "run"
MERGE = "merge"


class StageCommand(TyperCommand):
    """The command of a stage, except for `merge`, which has arguments of its own."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the command that the first argument names."""
        if args[:1] == [MERGE]:
            return typer.main.get_command(merge_app).make_context(f"{info_name} {MERGE}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


Kind = Annotated[
    str, typer.Argument(metavar="STAGE|run", help="sft, rm, dpo, rlvr, an installed stage, or run for a pipeline.")
]
RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE|PIPELINE", help="YAML file, or the name of a shipped recipe.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the recipe, such as trainer.max_steps=10; repeatable."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", help="Folder of the checkpoints; replaces the recipe's `output`.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume from the last whole checkpoint of the output; a pipeline always does.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print the resolved plan, steps, tokens and memory.")]
Show = Annotated[
    int | None,
    typer.Option("--show", min=1, help="Only print the first N rows as they are trained, with trained text marked."),
]

Launcher = Annotated[
    str | None, typer.Option("--launcher", help="accelerate: train in several processes; by default in one.")
]
Processes = Annotated[
    int | None, typer.Option("--num-processes", help="Number of processes, one for each GPU; needed by --launcher.")
]
Config = Annotated[
    str | None, typer.Option("--launch-config", help="fsdp, zero3, or accelerate's configuration file; by default DDP.")
]


@app.command(cls=StageCommand)
def train(
    stage: Kind, recipe: RecipeFile, change: Changes = None, output: Output = None, resume: Resume = False,
    dry_run: DryRun = False, show: Show = None, launcher: Launcher = None, num_processes: Processes = None,
    launch_config: Config = None, report_to: ReportTo = None,
) -> int:  # fmt: skip
    """Train one stage, whose last checkpoint is the output folder, or all stages of a pipeline.

    `olmes train merge --help` is about merging checkpoints.

    Exit status: 0 done, 1 refused (contamination, a gate, a loss that is not a number), 2 wrong usage, 130 interrupted.
    """
    from olmes_suite.extras import require
    from olmes_suite.trackers.factory import chosen
    from train_plugins.running import launch

    require("train", "olmes train")
    trackers = chosen(report_to)
    if show is not None:
        return _show(stage, recipe, changes=change or [], output=output, count=show)
    started = launch.read(launcher, num_processes, launch_config)
    if stage == PIPELINE:
        return _pipeline(
            recipe, [*(change or ()), *([f"output={output}"] if output else [])], dry_run, started, trackers
        )
    if started and not launch.launched() and not dry_run:
        changes = [part for one in change or () for part in ("--set", one)]
        rest = [*changes, *(["--output", str(output)] if output else []), *(["--resume"] if resume else [])]
        rest += ["--report-to", ",".join(trackers)] if trackers else []
        launch.start(started, [stage, str(recipe), *rest])
        return 0
    if launch.launched():
        return launch.reporting(
            lambda: _stage(
                stage, recipe, changes=change or [], output=output, resume=resume, dry_run=dry_run, trackers=trackers
            )
        )
    return _stage(stage, recipe, changes=change or [], output=output, resume=resume, dry_run=dry_run, trackers=trackers)


def _show(stage: str, file: Path, *, changes: list[str], output: Path | None, count: int) -> int:
    import sys

    from olmes_suite.errors import UsageError
    from train_plugins.config import recipe as recipes
    from train_plugins.running.dry_run import shown
    from train_plugins.stages import registry

    if stage == PIPELINE:
        raise UsageError("--show: a pipeline has several stages; show the rows of one: olmes train sft RECIPE --show N")
    kind = registry.find(stage)
    recipe = recipes.load(file, kind.name, kind.own, registry.names(), changes=changes, output=output)
    notes, lines = shown(kind, recipe, count, colour=sys.stdout.isatty())
    print("\n".join(notes), file=sys.stderr)
    print("\n".join(lines))
    return 0


def _stage(
    stage: str, file: Path, *, changes: list[str], output: Path | None, resume: bool, dry_run: bool,
    trackers: Sequence[str] = (),
) -> int:  # fmt: skip
    from olmes_suite.models.local.checkpoint import check_source
    from train_plugins.config import recipe as recipes
    from train_plugins.stages import registry

    kind = registry.find(stage)
    recipe = recipes.load(file, kind.name, kind.own, registry.names(), changes=changes, output=output)
    # Before the seconds in which the trainer's packages are imported; whether an offline Hub has it is seen with these.
    check_source(recipe.model, training=True, needed=False)
    if dry_run:
        from train_plugins.running.dry_run import dry_run as plan_lines

        print("\n".join(plan_lines(kind, recipe)))
        return 0
    from train_plugins.distributed import is_main
    from train_plugins.running.train_stage import run

    done = run(kind, recipe, resume, report_to=trackers)
    if is_main():
        print(done)
    return 0


def _pipeline(
    file: Path, changes: list[str], dry_run: bool, launch: Launch | None, trackers: Sequence[str]
) -> int:  # fmt: skip
    from train_plugins.running import pipeline_file, run_pipeline

    pipeline = pipeline_file.load(file, changes)
    if dry_run:
        print("\n".join(run_pipeline.dry_run(pipeline)))
    else:
        run_pipeline.run(pipeline, launch.options() if launch else (), trackers)
    return 0


@merge_app.command()
def merge(
    checkpoint: Annotated[list[str], typer.Argument(metavar="CHECKPOINT…", help="Folders of whole checkpoints.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the merged checkpoint; must not exist or be empty.")],
    weight: Annotated[
        list[float] | None,
        typer.Option(
            "--weight", help="Weight of a checkpoint, once for each, in their order; by default all are equal."
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="linear, or slerp for two checkpoints.")] = "linear",
) -> int:
    """Merge checkpoints of one architecture into one: the weighted mean of their tensors.

    Weights are divided by their sum. With slerp the second one's share is the position on the arc. Exit status: 0 done,
    2 wrong usage or checkpoints that do not fit together.
    """
    import sys

    from olmes_suite.errors import UsageError, nearest
    from olmes_suite.extras import require
    from train_plugins.checkpoints import blending, merging

    require("train", "olmes train merge")
    if method not in blending.METHODS:
        raise UsageError(f"--method {method!r}: not linear or slerp{nearest(method, blending.METHODS)}")
    for note in merging.merge(checkpoint, out, weights=weight or (), method=method):
        print(note, file=sys.stderr)
    print(out)
    return 0
