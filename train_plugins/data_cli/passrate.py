"""olmes data passrate."""

from __future__ import annotations

import typer

from train_plugins.data_cli.options import Changes, Command, DryRun, Json, Options, Out, RecipeFile, Resume, make

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def passrate(
    recipe: RecipeFile, out: Out = None, change: Changes = None, resume: Resume = False, dry_run: DryRun = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Measure how often a model solves each prompt, and keep the prompts whose rate lies in a range."""
    from olmes_suite.extras import require
    from train_plugins.data.curation import make_passrate as made
    from train_plugins.data.curation.generation.session import summary

    require("curate", "olmes data passrate")
    command = Command("passrate", made.PassRateKeys, made.inputs, made.plan, made.make, summary)
    return make(command, recipe, Options(out, change or (), resume, dry_run, as_json))
