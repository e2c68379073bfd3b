"""olmes eval: evaluate a model; runs are recorded and resumable."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import (
    BareRay,
    Classifier,
    ClassifierUrl,
    Data,
    DataDirs,
    EncoderName,
    GenKwargs,
    IncludePath,
    Json,
    Judge,
    JudgeUrl,
    Lineage,
    Profile,
    ReportTo,
    Runs,
    Samples,
    System,
    TemplateArgs,
    Thinking,
    Unclosed,
    UnsafeCode,
)  # fmt: skip

if TYPE_CHECKING:
    from olmes_suite.comparison.gate import GateReport
    from olmes_suite.evaluation.asking import Watcher
    from olmes_suite.evaluation.dry_run import DryRun as Counted
    from olmes_suite.evaluation.evaluate import Finished

app = typer.Typer(add_completion=False, rich_markup_mode=None)


Model = Annotated[
    str, typer.Option("--model", help="Folder of a checkpoint, Hub id or served name; not for mock, oracle and floor.")
]
SuiteNames = Annotated[
    list[str] | None,
    typer.Option("--suite", help="quick, dev, unseen, safety, olmo3_dev, … or a YAML file; repeatable."),
]
TaskNames = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        "--tasks",
        help="Tasks or groups, with or without `tulu3_`; repeatable, or several with commas; `list` prints all.",
    ),
]
BackendName = Annotated[
    str, typer.Option("--backend", help="auto, hf, vllm, openai, mock, oracle, floor or an installed plugin.")
]
Limit = Annotated[
    float | None,
    typer.Option(
        "--limit",
        help="Documents of each task, or of each sub-task of a group; below 1 their share (0.1); by default all.",
        min=0,
    ),
]
MaxDocuments = Annotated[
    int | None,
    typer.Option("--max-documents", min=1, help="Limit of the whole run, shared out over tasks and sub-tasks."),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the run; by default made of model, tasks and a hash of them.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed for sampling and for --limit.")]
Again = Annotated[bool, typer.Option("--again", help="Repeat a finished run.")]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, …; by default a GPU where there is one.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="float32, bfloat16, float16 or auto (the checkpoint's); by default bfloat16 on a GPU, else float32.",
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Requests in one forward pass; by default 8, or 32 on a GPU.")
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=2, help="Context length in tokens; by default the model's.")
]
Template = Annotated[
    Path | None, typer.Option("--chat-template", help="Jinja file that replaces the tokenizer's chat template.")
]
Revision = Annotated[str | None, typer.Option("--revision", help="Revision of a Hub model; by default main.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="OpenAI-compatible endpoint; key: $OPENAI_API_KEY.")]
Prefill = Annotated[
    str | None,
    typer.Option(
        "--prefill",
        help="The start of an answer that a task gives: send, drop, or send after an empty thought (closed); "
        "by default as the chat template needs.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Number of independent engines, each with a GPU or a share of the CPUs; by default one in this process.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="[ADDRESS]", help="Run the engines on a Ray cluster; without an address, on the one at hand."
    ),
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Folder that caches responses across runs; only new requests are sent.")
]
ModelArgs = Annotated[
    str | None,
    typer.Option(
        "--model-args", "--model_args", metavar="NAME=VALUE,…", help="Further arguments for the engine (vllm)."
    ),
]
Plan = Annotated[
    Path | None, typer.Option("--plan", help="Ask only the documents of a plan that `olmes plan --out` wrote.")
]
Baseline = Annotated[
    str | None,
    typer.Option("--baseline", help="Run of all documents; with --plan, scores are projected to all of them."),
]
UntilDecided = Annotated[
    bool,
    typer.Option("--until-decided", help="Ask in steps until the gate against --baseline is decided."),
]
Config = Annotated[Path | None, typer.Option("--config", help="Rules of --until-decided: a gate.yaml.")]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="Maximum number of requests at once to a server; by default 256."),
]


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only print how many documents, requests and tokens the run has.")
]


_LM_EVAL_MODELS = {
    "hf": "hf", "hf-auto": "hf", "huggingface": "hf", "vllm": "vllm", "local-completions": "openai",
    "local-chat-completions": "openai", "openai-completions": "openai", "openai-chat-completions": "openai",
}  # fmt: skip
"""Kinds of models of lm-eval's command line, and our backends."""


@app.command(cls=BareRay)
def evaluate(
    model: Model = "", suite: SuiteNames = None, task: TaskNames = None, backend: BackendName = "auto",
    limit: Limit = None, data_dir: DataDirs = None, data: Data = None, include_path: IncludePath = None,
    runs: Runs = Path("runs"), seed: Seed = 1234, lineage: Lineage = None, again: Again = False, device: Device = None,
    dtype: Dtype = None, batch_size: BatchSize = None, max_length: MaxLength = None, chat_template: Template = None,
    revision: Revision = None, base_url: BaseUrl = None, prefill: Prefill = None, concurrency: Concurrency = None,
    workers: Workers = None, ray: Ray = None, cache: Cache = None, model_args: ModelArgs = None,
    judge: Judge = None, judge_base_url: JudgeUrl = None, classifier: Classifier = None,
    classifier_base_url: ClassifierUrl = None, encoder: EncoderName = None, unsafe_code: UnsafeCode = False,
    thinking: Thinking = None, unclosed: Unclosed = None, profile: Profile = None, gen_kwargs: GenKwargs = None,
    samples: Samples = None, system: System = None, chat_template_args: TemplateArgs = None, plan: Plan = None,
    baseline: Baseline = None, until_decided: UntilDecided = False, config: Config = None,
    report_to: ReportTo = None, max_documents: MaxDocuments = None, name: Name = None, dry_run: DryRun = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Evaluate a model on a suite or on single tasks.

    Exit status: 0 every task scored, 1 a task failed or lacked data, 2 wrong usage, 130 interrupted. Repeating
    the command of an unfinished run continues the run. With --until-decided: 0 pass, 1 fail, 3 inconclusive,
    4 not comparable, 5 infrastructure, as `olmes gate` has them.
    """
    from olmes_suite import api
    from olmes_suite.runs.locate import locate
    from olmes_suite.runs.store import command_line

    _lm_eval_call(model, model_args)
    tasks = [name.strip() for names in task or () for name in names.split(",") if name.strip()] or task
    if tasks in (["list"], ["help"]):  # as lm-eval's command line is asked for its tasks
        return _task_list(include_path, as_json)
    given: dict[str, Any] = dict(
        suite=suite, task=tasks, backend=backend, limit=_whole(limit), data_dir=data_dir, data=data,
        include_path=include_path, runs=runs, seed=seed, lineage=lineage, again=again, device=device, dtype=dtype,
        batch_size=batch_size, max_length=max_length, chat_template=chat_template, revision=revision,
        base_url=base_url, prefill=prefill, concurrency=concurrency, workers=workers, ray=ray, cache=cache,
        model_args=model_args, judge=judge, judge_base_url=judge_base_url, classifier=classifier,
        classifier_base_url=classifier_base_url, encoder=encoder, unsafe_code=unsafe_code, thinking=thinking,
        unclosed=unclosed, profile=profile, gen_kwargs=gen_kwargs, samples=samples, system=system,
        chat_template_args=chat_template_args, plan=plan, baseline=baseline, until_decided=until_decided,
        config=config, report_to=report_to, max_documents=max_documents, name=name, command=command_line(),
    )  # fmt: skip
    if dry_run:
        return _counted(api.dry_run(model, **given), str(runs), as_json)
    # Found before the run, which a part of a name may also mean once it is finished.
    against = locate(baseline, runs) if until_decided and baseline is not None else None
    finished = api.evaluate(model, **given, watcher=_watcher).finished
    show(finished, as_json)
    if against is not None:
        return _gated(api.gate(against, finished.path, runs=runs, config=config, report_to=report_to).report, finished)
    return 1 if finished.failed else 0


def _task_list(include_path: list[Path] | None, as_json: bool) -> int:
    """Print what `olmes tasks` prints, and that this is the command for it."""
    from olmes_suite.cli.tasks import print_tasks

    print_tasks(None, False, include_path, as_json)
    print("note: this is `olmes tasks`; `olmes tasks show TASK` describes one", file=sys.stderr)
    return 0


def _counted(found: Counted, runs: str, as_json: bool) -> int:
    """Print what a run would ask, and return the exit status that it would have as far as that is known."""
    if as_json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        from olmes_suite.cli.dry_run_table import print_dry_run

        print_dry_run(found, runs)
    return 1 if any(asked.error for asked in found.tasks.values()) else 0


def _whole(limit: float | None) -> int | float | None:
    """Return a limit of documents as an integer, a share as it is."""
    return int(limit) if limit is not None and limit >= 1 and limit.is_integer() else limit


def _gated(report: GateReport, finished: Finished) -> int:
    """Return the gate's exit status; say why where its verdict is not that of the looks: a floor, or a health check."""
    stopped = finished.results.stopped
    if stopped is not None and report.verdict != stopped.verdict:
        print(f"the gate's verdict is {report.verdict}:", file=sys.stderr)
        for line in report.findings():
            print(line, file=sys.stderr)
    return report.exit


def _lm_eval_call(model: str, model_args: str | None) -> None:
    """Raise UsageError with this command's form of `lm_eval --model hf --model_args pretrained=…`."""
    from olmes_suite.errors import UsageError

    backend = _LM_EVAL_MODELS.get(model)
    if backend is None or Path(model).exists():
        return
    values = dict(pair.partition("=")[::2] for pair in (model_args or "").split(","))
    checkpoint = values.get("pretrained") or values.get("model") or "CHECKPOINT"
    url = f" --base-url {values['base_url']}" if "base_url" in values else ""
    raise UsageError(
        f"--model is the checkpoint here, where lm-eval takes the kind of model: "
        f"olmes eval --model {checkpoint} --backend {backend}{url}"
    )


def _watcher() -> Watcher:
    from olmes_suite.cli import display

    return display.watcher()


def show(finished: Finished, as_json: bool) -> None:
    """Print the scores and the measured floors."""
    from olmes_suite.cli import display
    from olmes_suite.evaluation.floor import beside
    from olmes_suite.runs.store import command_line

    if as_json:
        floors = beside(finished)
        additions = {"path": str(finished.path), **({"floors": floors} if floors else {})}
        print(json.dumps({**finished.results.as_json(), **additions}, ensure_ascii=False))
    else:
        if finished.old:
            print("this run is already finished; --again repeats it", file=sys.stderr)
        display.print_results(finished, command_line())
