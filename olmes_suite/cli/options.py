"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

DataDirs = Annotated[
    list[Path] | None,
    typer.Option(
        "--data-dir",
        help="Offline mirror D/<data set>/<config>/<split>.parquet; repeatable, first hit wins. Also $OLMES_DATA_DIR.",
    ),
]
Data = Annotated[str | None, typer.Option("--data", help="`sample`: the few documents that ship with each task.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
Lineage = Annotated[
    Path | None,
    typer.Option(
        "--lineage", help="Lineage file of the checkpoint (olmes_lineage.json); by default the one beside it."
    ),
]
IncludePath = Annotated[
    list[Path] | None, typer.Option("--include-path", help="Folder of your own lm-eval task files; repeatable.")
]
UnsafeCode = Annotated[
    bool, typer.Option("--unsafe-code", help="Run model-written code without a sandbox where this machine has none.")
]

Judge = Annotated[
    str | None, typer.Option("--judge", help="Judge model: a served name with --judge-base-url, else a checkpoint.")
]
JudgeUrl = Annotated[
    str | None, typer.Option("--judge-base-url", help="OpenAI-compatible endpoint of the judge; key: $OPENAI_API_KEY.")
]
Classifier = Annotated[
    str | None, typer.Option("--classifier", help="Safety classifier: a served name with its URL, else a checkpoint.")
]
ClassifierUrl = Annotated[
    str | None, typer.Option("--classifier-base-url", help="OpenAI-compatible endpoint of the classifier.")
]
EncoderName = Annotated[
    str | None, typer.Option("--encoder", help="Encoder for embedding similarity, folder or Hub id [roberta-large].")
]


class BareRay(TyperCommand):
    """A command whose `--ray` may stand without an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--ray` its value."""
        whole: list[str] = []
        for arg, after in zip(args, [*args[1:], "--"], strict=False):
            whole += [arg, "auto"] if arg == "--ray" and after.startswith("-") else [arg]
        return list(super().parse_args(ctx, whole))
