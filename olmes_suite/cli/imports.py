"""olmes import: record evaluations of other tools as runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import Json, Runs, WholeSentences

if TYPE_CHECKING:
    from olmes_suite.runs.importers.log import Log
    from olmes_suite.runs.importers.write import Imported

app = typer.Typer(cls=WholeSentences, add_completion=False, rich_markup_mode=None, no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help='JSON lines {"task","doc_id","score"[,"cluster"]}.')]
LogPath = Annotated[Path, typer.Argument(metavar="PATH", help="A log, or a folder with logs below it.")]
Name = Annotated[str, typer.Option("--name", help="Name of the run.")]
OptionalName = Annotated[str | None, typer.Option("--name", help="Name of the run; by default the model's.")]
Again = Annotated[bool, typer.Option("--again", help="Replace an existing run of that name.")]
TaskMap = Annotated[
    Path | None, typer.Option("--task-map", help="YAML file {task in the log: task here}; others keep their names.")
]
MetricName = Annotated[
    str | None, typer.Option("--metric", help="Metric that becomes the score; by default the log's first.")
]
ABOUT = {
    "lm-eval": "Import results and samples of lm-eval (--output_path with --log_samples).",
    "olmes": "Import predictions and metrics of OLMES, the authors' evaluator.",
    "inspect": "Import .eval and .json logs of Inspect.",
    "lighteval": "Import results and details of LightEval.",
    "every-eval-ever": "Import records of Every Eval Ever with their samples.",
}


@app.callback()
def callback() -> None:
    """Import evaluations of other tools into the run store, a run for each model."""


@app.command()
def scores(file: File, name: Name, runs: Runs = Path("runs"), again: Again = False, as_json: Json = False) -> None:
    """Record scores of another evaluation as a run. Scores are fractions from 0 to 1; task names are not changed."""
    from olmes_suite.evaluation.arguments import local
    from olmes_suite.runs.imports import import_scores
    from olmes_suite.runs.schema import read_results
    from olmes_suite.runs.store import command_line

    local(runs)
    folder = import_scores(file, name, runs, command_line(), again)
    results = read_results(folder)
    if as_json:
        print(json.dumps({**results.as_json(), "path": str(folder)}, ensure_ascii=False))
        return
    for task, entry in results.tasks.items():
        assert entry.score is not None and entry.score.value is not None
        print(f"{task}: {entry.n} documents, {100 * entry.score.value:.1f}")
    print(f"run     {folder}")


def _command(kind: str) -> Callable[..., None]:
    def command(
        path: LogPath, name: OptionalName = None, task_map: TaskMap = None, metric: MetricName = None,
        runs: Runs = Path("runs"), again: Again = False, as_json: Json = False,
    ) -> None:  # fmt: skip
        from olmes_suite.evaluation.arguments import local
        from olmes_suite.runs import importers
        from olmes_suite.runs.importers import write
        from olmes_suite.runs.store import command_line

        local(runs)
        logs = write.gather(importers.reader(kind)(path))
        _rename(logs, task_map)
        logs, others = write.with_metric(logs, metric)
        for log in others:
            print(f"note: {log.model}: not imported, it has no metric {metric!r} ({log.files[0]})", file=sys.stderr)
        names = write.names(logs, name)
        write.check_names(names, runs, again)
        imported = [write.write(log, run, runs, command_line(), metric) for log, run in zip(logs, names, strict=True)]
        if as_json:
            objects = [_as_json(one) for one in imported]
            print(json.dumps(objects[0] if len(objects) == 1 else {"runs": objects}, ensure_ascii=False))
        else:
            for one in imported:
                _print(one)

    command.__doc__ = ABOUT[kind] + " Documents keep their ids, answers and scores; figures are recomputed."
    return command


for _kind in ABOUT:
    app.command(_kind)(_command(_kind))


def _rename(logs: list[Log], task_map: Path | None) -> None:
    """Give tasks the names of a task map. Raises UsageError for a map that is none or that joins two tasks."""
    from olmes_suite.errors import UsageError
    from olmes_suite.yaml_files import read, typed

    if task_map is None:
        return
    file = read(task_map, "task map")
    renamed: dict[str, str] = typed(dict[str, str], file.data or {}, file.place)
    found = {name for log in logs for name in log.tasks}
    if unknown := sorted(set(renamed) - found):
        raise UsageError(f"{task_map}: the log has no task {unknown[0]!r}; it has {', '.join(sorted(found)[:8])}")
    for log in logs:
        tasks = {renamed.get(name, name): task for name, task in log.tasks.items()}
        if len(tasks) < len(log.tasks):
            raise UsageError(f"{task_map}: two tasks of {log.model} get the same name")
        for name, task in tasks.items():
            task.name = name
        log.tasks = tasks


def _as_json(imported: Imported) -> dict[str, Any]:
    tasks = {
        name: {
            "n": figure.n,
            "metric": figure.metric,
            "value": figure.value,
            "reported": figure.reported,
            **({"note": figure.note} if figure.note else {}),
            **({"others": dict(figure.others)} if figure.others else {}),
        }
        for name, figure in imported.tasks.items()
    }
    return {"run": imported.path.name, "path": str(imported.path), "tasks": tasks, "left_out": dict(imported.left_out)}


def _print(imported: Imported) -> None:
    import textwrap

    from olmes_suite.runs.importers.log import left_out_line
    from olmes_suite.wording import count

    for name, figure in imported.tasks.items():
        reported = "not reported" if figure.reported is None else f"reported {100 * figure.reported:.1f}"
        print(f"{name}: {count(figure.n, 'document')}, {figure.metric} {100 * figure.value:.1f} ({reported})")
        if figure.note:
            print(f"  ! {figure.note}")
        if figure.others:
            others = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in figure.others.items())
            text = f"also {others}; --metric NAME makes it the score"
            print(textwrap.indent(textwrap.fill(text, 76, subsequent_indent="  ", break_on_hyphens=False), "  "))
    for reason, number in imported.left_out.items():
        print(f"  {left_out_line(reason, number)}")
    print(f"run     {imported.path}")
