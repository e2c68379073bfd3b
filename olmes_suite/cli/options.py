"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from olmes_suite.scoring.tools import ToolOptions
    from olmes_suite.tasks.documents import DataSource

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
        for arg, after in zip(args, [*args[1:], "--"], strict=True):
            whole += [arg, "auto"] if arg == "--ray" and after.startswith("-") else [arg]
        return list(super().parse_args(ctx, whole))


def tool_options(
    judge: str | None = None, judge_base_url: str | None = None, classifier: str | None = None,
    classifier_base_url: str | None = None, encoder: str | None = None, unsafe_code: bool = False,
) -> ToolOptions:  # fmt: skip
    """The models that score. Raises UsageError for an endpoint without a model's name, or one that is no URL."""
    from olmes_suite.errors import UsageError
    from olmes_suite.scoring.tools import ToolOptions

    for flag, name, url in (("judge", judge, judge_base_url), ("classifier", classifier, classifier_base_url)):
        if url is not None and not name:
            raise UsageError(f"--{flag}-base-url needs --{flag}: the name under which the server knows the model")
        if url is not None and not url.startswith(("http://", "https://")):
            raise UsageError(f"--{flag}-base-url {url}: not a URL such as http://localhost:8000/v1")
    return ToolOptions(judge, judge_base_url, classifier, classifier_base_url, encoder, unsafe_code)


def local(runs: Path) -> None:
    """Raises UsageError for a URL: runs are written to a local folder."""
    from olmes_suite.errors import UsageError

    if ":/" in str(runs):
        raise UsageError(f"--runs takes a local folder, not {runs}; copy finished runs from there")


def include(folders: list[Path] | None) -> None:
    """Make the user's own task files known. Raises UsageError for a folder that is not there."""
    from olmes_suite.errors import UsageError
    from olmes_suite.tasks import catalog

    for folder in folders or ():
        if not folder.is_dir():
            raise UsageError(f"--include-path {folder}: no such folder")
    catalog.include(folders or ())


def source(data_dirs: list[Path] | None, data: str | None) -> DataSource:
    """The data source that the options name. Raises UsageError for a folder that is not there."""
    from olmes_suite.errors import UsageError
    from olmes_suite.tasks.documents import SAMPLE, DataSource

    for folder in data_dirs or ():
        if not folder.is_dir():
            raise UsageError(f"--data-dir {folder}: no such folder")
    if data not in (None, SAMPLE):
        raise UsageError(f"--data takes only `sample`, not {data!r}; a mirror is named with --data-dir")
    return DataSource.from_environment(data_dirs or (), data)
