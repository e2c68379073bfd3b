"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

DataDirs = Annotated[
    list[Path] | None,
    typer.Option(
        "--data-dir",
        metavar="D",
        help="Offline mirror: D/<data set>/<config>/<split>.parquet; repeatable, first hit wins. Also $OLMES_DATA_DIR.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="sample: the few documents that ship with each task, in place of the benchmarks."),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of the recorded runs.")]
ReportTo = Annotated[
    list[str] | None,
    typer.Option(
        "--report-to", metavar="NAME,…", help="Report to trackers: wandb, mlflow, trackio, tensorboard; repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON to stdout.")]
Lineage = Annotated[
    Path | None,
    typer.Option(
        "--lineage", help="Lineage file of the checkpoint (olmes_lineage.json); by default the file beside it."
    ),
]
IncludePath = Annotated[
    list[Path] | None, typer.Option("--include-path", metavar="DIR", help="Folder of your own task files; repeatable.")
]
UnsafeCode = Annotated[
    bool, typer.Option("--unsafe-code", help="Run model-written code unsandboxed where this machine has no sandbox.")
]

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="NAME|FILE", help="Settings that a model's makers recommend: olmo3, qwen3_think, …"
    ),
]
GenKwargs = Annotated[
    str | None,
    typer.Option(
        "--gen-kwargs", metavar="NAME=VALUE,…",
        help="Sampling in place of the tasks' own: temperature, top_p, top_k, max_tokens (a number or context), …",
    ),
]  # fmt: skip
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples", help="Answers to each request, by default the task's own number; a document's score is their mean."
    ),
]
System = Annotated[
    str | None,
    typer.Option("--system", metavar="TEXT|@FILE", help="System prompt, before the task's own; '' for none."),
]
TemplateArgs = Annotated[
    str | None,
    typer.Option(
        "--chat-template-args", metavar="NAME=VALUE,…",
        help="Arguments of the chat template: enable_thinking=false, reasoning_effort=high, …",
    ),
]  # fmt: skip

Judge = Annotated[
    str | None,
    typer.Option("--judge", help="Judge model: a served name with --judge-base-url, otherwise a checkpoint."),
]
JudgeUrl = Annotated[
    str | None, typer.Option("--judge-base-url", help="OpenAI-compatible endpoint of the judge; key: $OPENAI_API_KEY.")
]
Classifier = Annotated[
    str | None,
    typer.Option(
        "--classifier", help="Safety classifier: a served name with --classifier-base-url, otherwise a checkpoint."
    ),
]
ClassifierUrl = Annotated[
    str | None,
    typer.Option("--classifier-base-url", help="OpenAI-compatible endpoint of the classifier; key: $OPENAI_API_KEY."),
]
EncoderName = Annotated[
    str | None,
    typer.Option("--encoder", help="Encoder for embedding similarity, folder or Hub id; by default roberta-large."),
]


Thinking = Annotated[
    str | None,
    typer.Option("--thinking", help="Reader of thoughts: auto (by default), none, a reader's name or a YAML file."),
]
Unclosed = Annotated[
    str | None,
    typer.Option(
        "--unclosed",
        help="How an answer that ends inside a thought is scored: whole (reference, by default) or as empty.",
    ),
]


SENTENCE = 200
"""Characters of the line that a group's help has for a command: click's 45 cut sentences in the middle."""


class WholeSentences(TyperGroup):
    """A group whose help lists its commands with whole sentences."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = [(name, one.get_short_help_str(SENTENCE)) for name, one in found.items() if one is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class BareRay(TyperCommand):
    """A command whose `--ray` option takes an optional address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with the value `auto` for `--ray` without an address."""
        expanded: list[str] = []
        for arg, following in zip(args, [*args[1:], "--"], strict=False):
            expanded += [arg, "auto"] if arg == "--ray" and following.startswith("-") else [arg]
        return list(super().parse_args(ctx, expanded))
