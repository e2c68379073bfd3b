"""olmes data preferences."""

from __future__ import annotations

import typer

from train_plugins.data_cli.options import Changes, Command, DryRun, Json, Options, Out, RecipeFile, Resume, make

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def preferences(
    recipe: RecipeFile, out: Out = None, change: Changes = None, resume: Resume = False, dry_run: DryRun = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Make preference pairs from answers of models: rated by a judge, verified, or better by how they were made."""
    from olmes_suite.extras import require
    from train_plugins.data.curation import make_preferences as made

    require("curate", "olmes data preferences")
    command = Command("preferences", made.PreferenceKeys, made.inputs, made.plan, made.make, made.summary)
    return make(command, recipe, Options(out, change or (), resume, dry_run, as_json))
