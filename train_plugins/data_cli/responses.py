"""olmes data responses."""

from __future__ import annotations

import typer

from train_plugins.data_cli.options import Changes, Command, DryRun, Json, Options, Out, RecipeFile, Resume, make

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def responses(
    recipe: RecipeFile, out: Out = None, change: Changes = None, resume: Resume = False, dry_run: DryRun = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Answer prompts by one or several models; verified where possible, filtered, with thoughts apart."""
    from olmes_suite.extras import require
    from train_plugins.data.curation import make_responses as made
    from train_plugins.data.curation.generation.session import summary

    require("curate", "olmes data responses")
    command = Command("responses", made.ResponseKeys, made.inputs, made.plan, made.make, summary)
    return make(command, recipe, Options(out, change or (), resume, dry_run, as_json))
