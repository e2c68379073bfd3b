"""olmes score: score responses from a file, or score a recorded run again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from olmes_suite.cli.options import (
    Classifier,
    ClassifierUrl,
    Data,
    DataDirs,
    EncoderName,
    IncludePath,
    Json,
    Judge,
    JudgeUrl,
    Lineage,
    Thinking,
    Unclosed,
    UnsafeCode,
)  # fmt: skip
from olmes_suite.evaluation.arguments import include, source, tool_options

if TYPE_CHECKING:
    from olmes_suite.api import Score
    from olmes_suite.scoring.tools import ToolOptions
    from olmes_suite.tasks.documents import DataSource

app = typer.Typer(add_completion=False, rich_markup_mode=None)

RunFolder = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="A recorded run, which is scored again in its folder.")
]


@app.command()
def score(
    run: RunFolder = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Task or group whose responses are in --responses.")
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(
            "--responses",
            help='JSON lines {"doc_id", "responses": […]} or {"doc_id", "loglikelihoods": […]}; group: also "task". '
            'A response is a text, or {"text", "thinking"}.',
        ),
    ] = None,
    data_dir: DataDirs = None,
    data: Data = None,
    include_path: IncludePath = None,
    instances: Annotated[
        Path | None, typer.Option("--instances", help="Also write each document's scores to this file, as JSON lines.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Folder of runs whose ledger records a look at the unseen suite.")
    ] = None,
    lineage: Lineage = None,
    judge: Judge = None,
    judge_base_url: JudgeUrl = None,
    classifier: Classifier = None,
    classifier_base_url: ClassifierUrl = None,
    encoder: EncoderName = None,
    unsafe_code: UnsafeCode = False,
    thinking: Thinking = None,
    unclosed: Unclosed = None,
    as_json: Json = False,
) -> int:
    """Score responses without a model. Thoughts are left out; responses are not cut at stop strings.

    A run is scored again with its own judge, classifier, encoder and reader of thoughts, unless others are given.
    """
    from olmes_suite import api
    from olmes_suite.errors import UsageError
    from olmes_suite.extras import require
    from olmes_suite.runs.store import command_line

    require("eval", "olmes score")
    if (run is None) == (task is None) or (task is not None and responses is None):
        raise UsageError("give either RUN, or --task and --responses")
    include(include_path)
    if run is not None:
        tools = tool_options(
            judge=judge, judge_base_url=judge_base_url, classifier=classifier, classifier_base_url=classifier_base_url,
            encoder=encoder, unsafe_code=unsafe_code,
        )  # fmt: skip
        return _again(_located(run, runs), source(data_dir, data), tools, (thinking, unclosed), as_json)
    scored = api.score(
        str(task), Path(str(responses)), data_dir=data_dir, data=data, runs=runs, lineage=lineage, judge=judge,
        judge_base_url=judge_base_url, classifier=classifier, classifier_base_url=classifier_base_url,
        encoder=encoder, unsafe_code=unsafe_code, thinking=thinking, unclosed=unclosed, command=command_line(),
    )  # fmt: skip
    _print(scored, instances, as_json)
    return 0


def _located(run: Path, runs: Path | None) -> Path:
    """Return the folder of a run that is given by its path or, as for compare and gate, by its name."""
    from olmes_suite.runs.locate import locate

    return run if run.exists() else locate(str(run), runs or Path("runs"))


def _again(
    run: Path, where: DataSource, tools: ToolOptions, reading: tuple[str | None, str | None], as_json: bool
) -> int:
    from olmes_suite.evaluation.given_responses import Reading
    from olmes_suite.evaluation.rescore import rescore

    rescored = rescore(run, where, tools, Reading(*reading))
    if as_json:
        print(json.dumps({**rescored.as_json(), "path": str(run)}, ensure_ascii=False))
    else:
        from olmes_suite.cli.display import points

        print(f"{run}: version {rescored.version}")
        for name, entry in rescored.tasks.items():
            score, bounds = points(entry.score)
            print(f"  {name:<40} {entry.n:>6} {score:>6}  {bounds}")
    return 1 if rescored.failed else 0


def _print(scored: Score, instances: Path | None, as_json: bool) -> None:
    from olmes_suite.evaluation.rescore import instance_lines
    from olmes_suite.files import write_text

    summary = scored.summary
    if instances is not None:
        write_text(instances, "".join(line + "\n" for line in instance_lines(scored.instances)))
    for reader, count in summary.get("unread_thoughts", {}).items():
        line = f"note: {count} responses contain thoughts that were scored; --thinking {reader} leaves them out"
        print(line, file=sys.stderr)
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
        return
    from olmes_suite.cli.display import FLAG_WORDS, points
    from olmes_suite.runs.schema import Metric

    print(f"{summary['task']}: {summary['n']} documents, {summary['without_response']} without a response")
    for reason, count in summary.get("left_out_names", {}).items():
        print(f"  rows left out because no scorer is available for {reason}: {count}")
    for flag, words in FLAG_WORDS.items():
        if number := summary["flags"].get(flag):
            print(f"  {number} of {summary['n']} {words}")
    if missing := summary.get("missing_tasks"):
        of = len(missing) + len(summary["tasks"])
        print(f"  {len(missing)} of {of} sub-tasks have no responses, and do not count in the score: {missing[0]}, …")
    for metric, value in summary["metrics"].items():
        score, bounds = points(Metric.from_json(value) if value else None)
        print(f"  {metric + (' (primary)' if metric == summary['primary'] else ''):<36} {score:>6}  {bounds}")
    if "note" in summary:
        print(f"  {summary['note']}")
    for name, entry in summary.get("tasks", {}).items():
        primary = entry["metrics"].get(entry["primary"])
        score, bounds = points(Metric.from_json(primary) if primary else None)
        print(f"  {name:<52} {entry['n']:>6} {score:>6}  {bounds}")
