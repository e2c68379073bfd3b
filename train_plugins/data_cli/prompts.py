"""olmes data prompts: prompts written by a model for personas."""

from __future__ import annotations

import typer

from train_plugins.data_cli.options import Changes, Command, DryRun, Json, Options, Out, RecipeFile, Resume, make

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def prompts(
    recipe: RecipeFile, out: Out = None, change: Changes = None, resume: Resume = False, dry_run: DryRun = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Have a model write prompts for personas, by skill; some with constraints that a verifier can check."""
    from olmes_suite.extras import require
    from train_plugins.data.curation import make_prompts
    from train_plugins.data.curation.generation.session import summary

    require("curate", "olmes data prompts")
    command = Command(
        "prompts", make_prompts.PromptKeys, make_prompts.inputs, make_prompts.plan, make_prompts.make, summary
    )
    return make(command, recipe, Options(out, change or (), resume, dry_run, as_json))
