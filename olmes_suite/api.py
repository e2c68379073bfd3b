"""The Python interface: the commands as functions that return objects and data frames.

    import olmes_suite as olmes

    run = olmes.evaluate(model="./checkpoint", suite="dev")
    run.scores

Options have the names of the command line's options. Invalid values raise `olmes_suite.errors.UsageError` with the
command's message. Scores in objects and data frames are fractions from 0 to 1; margins are in points, as in
`gate.yaml`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import Broken, DataError, UsageError
from olmes_suite.evaluation.arguments import Named, Paths, command_line, listed, maybe, paths
from olmes_suite.extras import require
from olmes_suite.runs import run as recorded

if TYPE_CHECKING:
    import pandas as pd

    from olmes_suite.comparison.results import Compared, Gated
    from olmes_suite.evaluation.asking import Watcher
    from olmes_suite.evaluation.dry_run import DryRun
    from olmes_suite.evaluation.evaluate import Finished
    from olmes_suite.evaluation.plan import Options
    from olmes_suite.records import Instance
    from olmes_suite.runs.scores import RunScores
    from olmes_suite.workers.factory import Crew

__all__ = ["Evaluated", "Run", "Score", "compare", "dry_run", "evaluate", "gate", "load", "prompts", "runs", "score"]

AnyPath = str | Path
Names = str | Sequence[str] | None


class Run(recorded.Run):
    """A recorded run: its files, and its scores, questions, documents and responses as data frames."""

    def questions(self, task: str) -> pd.DataFrame:
        """Build a table of the questions and prompts of a task or sub-task; it joins `documents` by task and doc_id.

        Raises UsageError for a task that is not in the run.
        """
        from olmes_suite.evaluation.questions import questions

        return questions(self, task)


@dataclass(frozen=True)
class Evaluated(Run):
    """A run that `evaluate` made, or that was already finished."""

    finished: Finished = field(repr=False, compare=False)


def load(run: AnyPath, runs: AnyPath = "runs") -> Run:
    """Open a recorded run by its folder, its name or a named baseline. Raises UsageError if there is none."""
    from olmes_suite.runs.locate import locate

    path = locate(str(run), Path(runs))
    if not path.is_dir():
        raise UsageError(f"{path} is a baseline file: it has only scores; use it with `compare` and `gate`")
    return Run(path)


def runs(folder: AnyPath = "runs") -> pd.DataFrame:
    """Build a table with a row for each task of each run in a folder. Unreadable runs are left out with a warning."""
    import warnings

    import pandas as pd

    from olmes_suite.runs import frames
    from olmes_suite.runs.store import finished

    rows: list[dict[str, Any]] = []
    for path in finished(Path(folder)):
        try:
            results = Run(path).results
            rows += ({"run": path.name, "model": results.model, **row} for row in frames.score_rows(results))
        except (DataError, UsageError) as error:
            warnings.warn(f"{path} is left out: {error}", stacklevel=2)
    return pd.DataFrame(rows, columns=["run", "model", *frames.SCORES])


class _LogWatcher:
    """Writes the notes of a run to the logger `olmes_suite`."""

    def note(self, text: str) -> None:
        """Log a note."""
        logging.getLogger("olmes_suite").info(text)

    def start(self, plans: Sequence[Any]) -> None:
        """Ignore the plan."""

    def advance(self, task: str, documents: int, tokens: int) -> None:
        """Ignore the progress."""

    def stop(self) -> None:
        """Ignore the end of the run."""


def evaluate(
    model: AnyPath = "", *, suite: Names = None, task: Names = None, backend: str = "auto",
    limit: int | float | None = None, data_dir: Paths = None, data: str | None = None, include_path: Paths = None,
    runs: AnyPath = "runs",
    seed: int = 1234, lineage: AnyPath | None = None, again: bool = False, device: str | None = None,
    dtype: str | None = None, batch_size: int | None = None, max_length: int | None = None,
    chat_template: AnyPath | None = None, revision: str | None = None, base_url: str | None = None,
    prefill: str | None = None, concurrency: int | None = None, workers: int | None = None, ray: str | None = None,
    cache: AnyPath | None = None, model_args: str | Mapping[str, Any] | None = None, judge: str | None = None,
    judge_base_url: str | None = None, classifier: str | None = None, classifier_base_url: str | None = None,
    encoder: str | None = None, unsafe_code: bool = False, thinking: str | None = None, unclosed: str | None = None,
    profile: AnyPath | None = None, gen_kwargs: Named = None, samples: int | None = None, system: str | None = None,
    chat_template_args: Named = None, plan: AnyPath | None = None, baseline: AnyPath | None = None,
    until_decided: bool = False, config: AnyPath | Mapping[str, Any] | None = None, report_to: Names = None,
    max_documents: int | None = None, name: str | None = None,
    command: Sequence[str] | None = None, watcher: Callable[[], Watcher] = _LogWatcher,
) -> Evaluated:  # fmt: skip
    """Evaluate a model like `olmes eval`, with the options of the command by their names.

    `command` is recorded as the command that repeats the run, by default the equivalent call of `olmes eval`; `watcher`
    builds the object that receives the progress. Tasks without a score are in the run's `failed`. Raises OlmesError.
    """
    options = dict(locals())
    prepared = _prepared(options)
    finished = _run(*prepared, watcher)
    if report_to:
        from olmes_suite.trackers.factory import chosen
        from olmes_suite.trackers.reporting import report_run

        report_run(chosen(report_to), finished.path, watcher().note)
    return Evaluated(finished.path, finished)


def dry_run(model: AnyPath = "", **options: Any) -> DryRun:
    """Count what `evaluate` with these options would ask, without loading a model. Raises OlmesError."""
    import inspect

    from olmes_suite.evaluation.dry_run import dry_run as count

    given = inspect.signature(evaluate).bind(model, **options)
    given.apply_defaults()
    return count(_prepared(given.arguments)[0])


def _prepared(given: Mapping[str, Any]) -> tuple[Options, Crew, Path | None]:
    """Convert and check the arguments of `evaluate`, before anything is loaded. Raises OlmesError."""
    require("eval", "olmes eval")
    from types import SimpleNamespace

    from olmes_suite.evaluation import arguments
    from olmes_suite.evaluation.plan import Options
    from olmes_suite.models.model_args import parse
    from olmes_suite.thinking import check_choice, check_unclosed
    from olmes_suite.trackers.factory import chosen
    from olmes_suite.workers.factory import Crew

    of = SimpleNamespace(**given)
    chosen(of.report_to)
    arguments.include(paths(of.include_path))
    settings = arguments.settings(
        profile=of.profile, gen_kwargs=of.gen_kwargs, samples=of.samples, system=of.system,
        chat_template_args=of.chat_template_args,
    )  # fmt: skip
    engine = {
        **{name: given[name] for name in _ENGINE}, "chat_template": maybe(of.chat_template),
        "model_args": parse(of.model_args) if isinstance(of.model_args, str) else of.model_args,
        "chat_template_args": dict(settings.chat_template_args) or None, "thinking": check_choice(of.thinking),
    }  # fmt: skip
    suite_names, plan_file, planned = arguments.plan(maybe(of.plan), tuple(listed(of.suite)))
    documents = arguments.source(paths(of.data_dir), of.data)
    if planned is None and not of.until_decided and not documents.sample:
        of.limit = arguments.limit(of.limit, suite_names, listed(of.task))
    options = Options(
        model=str(of.model), backend=of.backend, suite_names=suite_names, task_names=tuple(listed(of.task)),
        limit=of.limit, seed=of.seed, source=documents, runs=Path(of.runs),
        lineage=maybe(of.lineage), again=of.again,
        engine={name: value for name, value in engine.items() if value is not None},
        command=tuple(of.command if of.command is not None else _call(given)),
        tools=arguments.tool_options(**{name: given[name] for name in _TOOLS}),
        settings=settings, unclosed=check_unclosed(of.unclosed), plan=plan_file, planned=planned,
        until_decided=arguments.until_decided(of.until_decided, of.config),
        baseline=None if of.baseline is None else str(of.baseline), max_documents=of.max_documents, name=of.name,
    )  # fmt: skip
    crew, cache = Crew(of.workers, of.ray), maybe(of.cache)
    _check(options, crew, cache)
    return options, crew, cache


_ENGINE = (
    "device", "dtype", "batch_size", "max_length", "chat_template", "revision", "base_url", "prefill", "concurrency",
    "model_args", "chat_template_args", "thinking", "unclosed",
)  # fmt: skip
"""Arguments of `evaluate` that are the engine's, in the order in which it gets them."""
_TOOLS = ("judge", "judge_base_url", "classifier", "classifier_base_url", "encoder", "unsafe_code")


def _check(options: Options, crew: Crew, cache: Path | None) -> None:
    """Raise OlmesError for a store, model, engine or cache that cannot be used, before anything is loaded."""
    from olmes_suite.evaluation import arguments, engines
    from olmes_suite.workers.factory import check

    backend = options.backend
    arguments.local(options.runs)
    engines.check_model(backend, options.model, options.engine.get("revision"))
    check(crew, backend)
    engines.check_cache(cache, backend)
    if backend == "floor" and (options.planned is not None or options.baseline is not None or options.until_decided):
        raise UsageError("the floor takes no --plan and no --baseline: it is measured on all documents or with --limit")


def _run(options: Options, crew: Crew, cache: Path | None, watcher: Callable[[], Watcher]) -> Finished:
    """Run the evaluation, or the measurement of the floor."""
    from functools import partial

    from olmes_suite.evaluation import engines
    from olmes_suite.evaluation.evaluate import evaluate as run_evaluation
    from olmes_suite.evaluation.floor import measure
    from olmes_suite.models.factory import loads_in_a_thread

    if options.backend == "floor":
        return measure(replace(options, name=None), engines.make_backend, watcher)
    run_watcher = watcher()
    build = partial(engines.make_backend, crew=crew, tell=run_watcher.note, cache=cache)
    return run_evaluation(options, build, run_watcher, early=bool(crew) or loads_in_a_thread(options.backend))


def _call(options: Mapping[str, Any]) -> list[str]:
    """Build the equivalent call of `olmes eval`."""
    import inspect

    defaults = {name: parameter.default for name, parameter in inspect.signature(evaluate).parameters.items()}
    return command_line("eval", {name: options[name] for name in list(defaults)[:-2]}, defaults)


@dataclass(frozen=True)
class Score:
    """Scored responses: the summary that `olmes score --json` prints, and the documents."""

    summary: dict[str, Any]
    instances: Sequence[Instance] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """Build a table with a row for each document and a column for each metric."""
        import pandas as pd

        return pd.DataFrame({"task": one.task, "doc_id": one.doc_id, **one.scored.scores} for one in self.instances)


def score(
    task: str, responses: AnyPath | Iterable[Mapping[str, Any]], *, data_dir: Paths = None, data: str | None = None,
    include_path: Paths = None, runs: AnyPath | None = None, lineage: AnyPath | None = None, judge: str | None = None,
    judge_base_url: str | None = None, classifier: str | None = None, classifier_base_url: str | None = None,
    encoder: str | None = None, unsafe_code: bool = False, thinking: str | None = None, unclosed: str | None = None,
    command: Sequence[str] | None = None,
) -> Score:  # fmt: skip
    """Score responses without their thoughts: a file of JSON lines, or mappings of the same form. Raises OlmesError.

    `thinking` and `unclosed` say how thoughts are read, by default `<think>` as the reference does.

    With `runs`, a look at a task of `unseen` is recorded in the ledger of that folder, with `command`.
    """
    require("eval", "olmes score")
    from olmes_suite.evaluation import arguments
    from olmes_suite.evaluation.given_responses import given_thoughts
    from olmes_suite.evaluation.rescore import score_responses
    from olmes_suite.runs import ledger

    tools = arguments.tool_options(
        judge=judge,
        judge_base_url=judge_base_url,
        classifier=classifier,
        classifier_base_url=classifier_base_url,
        encoder=encoder,
        unsafe_code=unsafe_code,
    )
    arguments.include(paths(include_path))
    source = arguments.source(paths(data_dir), data)
    lineage_record = ledger.lineage_of("", maybe(lineage))
    lines = Path(responses) if isinstance(responses, (str, Path)) else list(responses)
    summary, scored = score_responses(task, lines, source, tools, given_thoughts(thinking, unclosed))
    if runs is not None and not source.sample:
        file = lines if isinstance(lines, Path) else Path("responses")
        name, tasks = ledger.lineage_name(lineage_record, file.stem), [(summary["task"], summary["n"])]
        ledger.record_look(Path(runs), name, f"score:{file.name}", tasks, command or ["olmes", "score", "--task", task])
    return Score(summary, scored)


def prompts(
    task: str, *, doc_ids: Sequence[int] | None = None, limit: int | None = None, seed: int = 1234,
    data_dir: Paths = None, data: str | None = None, include_path: Paths = None, model: AnyPath | None = None,
    chat_template: AnyPath | None = None, revision: str | None = None, max_length: int | None = None,
    profile: AnyPath | None = None, gen_kwargs: Named = None, samples: int | None = None, system: str | None = None,
    chat_template_args: Named = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the requests of a task or group, as `olmes prompts` prints them. Raises OlmesError.

    With `model`, a checkpoint's folder or Hub id, each has the rendered text and the number of its token ids. Only the
    model's tokenizer is loaded; the other options of a model need it. `profile` and the options after it are those of
    `evaluate`.
    """
    require("eval", "olmes prompts")
    from olmes_suite.evaluation import arguments
    from olmes_suite.evaluation.prompts import renderer, requests

    options = {"--chat-template": chat_template, "--revision": revision, "--max-length": max_length}
    if model is None and (unused := [name for name, value in options.items() if value is not None]):
        raise UsageError(f"{unused[0]} needs --model: a checkpoint's folder or a Hub id")
    arguments.include(paths(include_path))
    where = arguments.source(paths(data_dir), data)
    settings = arguments.settings(
        profile=profile, gen_kwargs=gen_kwargs, samples=samples, system=system, chat_template_args=chat_template_args
    )
    loaded = None
    if model is not None:
        loaded = renderer(
            str(model), chat_template, revision, max_length=max_length, chat_template_args=settings.chat_template_args
        )
        settings.check_template(loaded.unused_arguments)
    return requests(task, where, doc_ids, limit=limit, seed=seed, model=loaded, settings=settings)


def compare(
    baseline: Run | AnyPath, *others: Run | AnyPath, runs: AnyPath = "runs", task: Names = None,
    subtasks: bool = False, bootstrap: int = 0, force: bool = False,
) -> Compared:  # fmt: skip
    """Compare runs with the first. Each is a `Run`, a folder, a name or a baseline file. Raises OlmesError."""
    from olmes_suite.comparison import results

    loaded = _told_apart([_scores(run, runs) for run in (baseline, *others)])
    return results.compare(loaded, listed(task), subtasks=subtasks, resamples=bootstrap, force=force)


def _scores(run: Run | AnyPath, runs: AnyPath) -> RunScores:
    from olmes_suite.runs.locate import load as read
    from olmes_suite.runs.scores import read_run

    return read_run(run.path) if isinstance(run, Run) else read(str(run), Path(runs))


def _told_apart(scores: Sequence[RunScores]) -> list[RunScores]:
    """Lengthen equal names of runs by their folders."""
    from olmes_suite.runs.names import distinct

    paths = ["" if run.path is None else str(run.path.absolute()) for run in scores]
    names = distinct([run.name for run in scores], paths)
    return [replace(run, name=name) for run, name in zip(scores, names, strict=True)]


def gate(
    baseline: Run | AnyPath, candidate: Run | AnyPath, *, runs: AnyPath = "runs",
    config: AnyPath | Mapping[str, Any] | None = None, alpha: float | None = None, margin: float | None = None,
    suite: str | None = None, task: Names = None, noise: Run | AnyPath | None = None,
    inconclusive: str | None = None, bootstrap: int = 0, report_to: Names = None,
) -> Gated:  # fmt: skip
    """Judge a candidate against a baseline, by the rules of a `gate.yaml` or a mapping with its keys.

    The trackers in `report_to` receive the verdict in the run to which the candidate's scores were reported.
    Raises UsageError for unknown names and invalid rules, Broken for a damaged run.
    """
    from olmes_suite.comparison.gate import gate as judge
    from olmes_suite.comparison.results import Gated, rules
    from olmes_suite.trackers.factory import chosen

    trackers = chosen(report_to)
    rules_in_effect = rules(config, {"alpha": alpha, "margin": margin, "inconclusive": inconclusive})
    try:
        before, after = _told_apart([_scores(baseline, runs), _scores(candidate, runs)])
        repeat = _scores(noise, runs) if noise is not None else None
    except DataError as error:
        raise Broken(str(error)) from error
    report = judge(before, after, rules_in_effect, suite=suite, only=listed(task), noise=repeat, resamples=bootstrap)
    if trackers:
        from olmes_suite.trackers.reporting import report_gate

        report_gate(trackers, report, after.path, Path(runs))
    return Gated(report)
