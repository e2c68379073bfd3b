"""The Python interface: what the commands do, as functions that return objects and data frames.

    import olmes_suite as olmes

    run = olmes.evaluate(model="./checkpoint", suite="dev")
    run.scores

Options have the names of the command line's, and bad ones raise `olmes_suite.errors.UsageError` with the command's own
message. Scores in objects and data frames are fractions from 0 to 1; margins are in points, as in `gate.yaml`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import Broken, DataError, UsageError
from olmes_suite.evaluation.arguments import Paths, command_line, listed, maybe, paths
from olmes_suite.extras import require
from olmes_suite.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from olmes_suite.comparison.results import Compared, Gated
    from olmes_suite.evaluation.evaluate import Finished, Watcher
    from olmes_suite.records import Instance
    from olmes_suite.runs.scores import RunScores

__all__ = ["Evaluated", "Run", "Score", "compare", "evaluate", "gate", "load", "prompts", "runs", "score"]

AnyPath = str | Path
Names = str | Sequence[str] | None


@dataclass(frozen=True)
class Evaluated(Run):
    """A run that `evaluate` has made, or found finished."""

    finished: Finished = field(repr=False, compare=False)


def load(run: AnyPath, runs: AnyPath = "runs") -> Run:
    """A recorded run, by its folder, its name or a named baseline. Raises UsageError where there is none."""
    from olmes_suite.runs.locate import locate

    path = locate(str(run), Path(runs))
    if not path.is_dir():
        raise UsageError(f"{path} is a baseline file: it holds scores alone, for `compare` and `gate`")
    return Run(path)


def runs(folder: AnyPath = "runs") -> pd.DataFrame:
    """A row for each task of each run in a folder. A run that cannot be read is left out, with a warning."""
    import warnings

    import pandas as pd

    from olmes_suite.runs import frames

    found = [pd.DataFrame(columns=["run", "model", *frames.SCORES])]
    for path in frames.folders(Path(folder)):
        try:
            results = Run(path).results
            table = frames.scores(results)
        except (DataError, UsageError) as error:
            warnings.warn(f"{path} is left out: {error}", stacklevel=2)
            continue
        found.append(table.assign(run=path.name, model=results.model)[["run", "model", *frames.SCORES]])
    return pd.concat(found if len(found) == 1 else found[1:], ignore_index=True)


class _Log:
    """Writes the notes of a run to the log `olmes_suite`."""

    def note(self, text: str) -> None:
        """A line for the user."""
        logging.getLogger("olmes_suite").info(text)

    def start(self, plans: Sequence[Any]) -> None:
        """The plan is made."""

    def advance(self, task: str, documents: int, tokens: int) -> None:
        """Documents were finished."""

    def stop(self) -> None:
        """The run is over."""


def evaluate(
    model: AnyPath = "", *, suite: Names = None, task: Names = None, backend: str = "auto", limit: int | None = None,
    data_dir: Paths = None, data: str | None = None, include_path: Paths = None, runs: AnyPath = "runs",
    seed: int = 1234, lineage: AnyPath | None = None, again: bool = False, device: str | None = None,
    dtype: str | None = None, batch_size: int | None = None, max_length: int | None = None,
    chat_template: AnyPath | None = None, revision: str | None = None, base_url: str | None = None,
    prefill: str | None = None, concurrency: int | None = None, workers: int | None = None, ray: str | None = None,
    cache: AnyPath | None = None, model_args: str | Mapping[str, Any] | None = None, judge: str | None = None,
    judge_base_url: str | None = None, classifier: str | None = None, classifier_base_url: str | None = None,
    encoder: str | None = None, unsafe_code: bool = False, command: Sequence[str] | None = None,
    watcher: Callable[[], Watcher] = _Log,
) -> Evaluated:  # fmt: skip
    """Evaluate a model, recorded and resumable: `olmes eval` with its options by their names.

    `command` is what the record names as the way to repeat the run, by default the same call of `olmes eval`;
    `watcher` makes what is told of the progress. Tasks without a score are in the run's `failed`. Raises OlmesError.
    """
    options = dict(locals())
    require("eval", "olmes eval")
    from functools import partial

    from olmes_suite.evaluation import arguments, engines
    from olmes_suite.evaluation.evaluate import evaluate as run_evaluation
    from olmes_suite.evaluation.floor import measure
    from olmes_suite.evaluation.plan import Options
    from olmes_suite.models.factory import loads_in_a_thread
    from olmes_suite.models.model_args import parse
    from olmes_suite.workers.factory import Crew, check

    engine = {
        "device": device, "dtype": dtype, "batch_size": batch_size, "max_length": max_length,
        "chat_template": maybe(chat_template), "revision": revision, "base_url": base_url, "prefill": prefill,
        "concurrency": concurrency, "model_args": parse(model_args) if isinstance(model_args, str) else model_args,
    }  # fmt: skip
    wanted = Options(
        str(model), backend, tuple(listed(suite)), tuple(listed(task)), limit, seed,
        arguments.source(paths(data_dir), data), Path(runs), maybe(lineage), again,
        {name: value for name, value in engine.items() if value is not None},
        tuple(command if command is not None else _call(options)),
        arguments.tool_options(
            judge=judge, judge_base_url=judge_base_url, classifier=classifier,
            classifier_base_url=classifier_base_url, encoder=encoder, unsafe_code=unsafe_code,
        ),
    )  # fmt: skip
    arguments.include(paths(include_path))
    arguments.local(wanted.runs)
    engines.check_model(backend, wanted.model)
    crew = Crew(workers, ray)
    check(crew, backend)
    engines.check_cache(maybe(cache), backend)
    if backend == "floor":
        finished = measure(wanted, engines.make_backend, watcher)
    else:
        told = watcher()
        made = partial(engines.make_backend, crew=crew, tell=told.note, cache=maybe(cache))
        finished = run_evaluation(wanted, made, told, early=bool(crew) or loads_in_a_thread(backend))
    return Evaluated(finished.path, finished)


def _call(given: Mapping[str, Any]) -> list[str]:
    """The call of `olmes eval` that does the same."""
    import inspect

    defaults = {name: one.default for name, one in inspect.signature(evaluate).parameters.items()}
    return command_line("eval", {name: given[name] for name in list(defaults)[:-2]}, defaults)


@dataclass(frozen=True)
class Score:
    """Scored responses: the summary that `olmes score --json` prints, and the documents."""

    summary: dict[str, Any]
    instances: Sequence[Instance] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """A row for each document, a column for each metric."""
        import pandas as pd

        return pd.DataFrame({"task": one.task, "doc_id": one.doc_id, **one.scored.scores} for one in self.instances)


def score(
    task: str, responses: AnyPath | Iterable[Mapping[str, Any]], *, data_dir: Paths = None, data: str | None = None,
    runs: AnyPath | None = None, lineage: AnyPath | None = None, judge: str | None = None,
    judge_base_url: str | None = None, classifier: str | None = None, classifier_base_url: str | None = None,
    encoder: str | None = None, unsafe_code: bool = False, command: Sequence[str] | None = None,
) -> Score:  # fmt: skip
    """Score responses as they are given: a file of JSON lines, or mappings of the same form. Raises OlmesError.

    With `runs`, a look at a task of `unseen` is written to the ledger of that folder, under `command`.
    """
    require("eval", "olmes score")
    from olmes_suite.evaluation import arguments
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
    source = arguments.source(paths(data_dir), data)
    read = ledger.lineage_of("", maybe(lineage))
    given = Path(responses) if isinstance(responses, (str, Path)) else list(responses)
    summary, scored = score_responses(task, given, source, tools)
    if runs is not None and not source.sample:
        file = given if isinstance(given, Path) else Path("responses")
        name, looked = ledger.lineage_name(read, file.stem), [(summary["task"], summary["n"])]
        ledger.record_look(
            Path(runs), name, f"score:{file.name}", looked, command or ["olmes", "score", "--task", task]
        )
    return Score(summary, scored)


def prompts(
    task: str, *, doc_ids: Sequence[int] | None = None, limit: int | None = None, seed: int = 1234,
    data_dir: Paths = None, data: str | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The requests of a task or group, one after the other, as `olmes prompts` prints them. Raises OlmesError."""
    require("eval", "olmes prompts")
    from olmes_suite.evaluation.arguments import source
    from olmes_suite.evaluation.prompts import requests

    return requests(task, source(paths(data_dir), data), doc_ids, limit, seed)


def compare(
    baseline: Run | AnyPath, *others: Run | AnyPath, runs: AnyPath = "runs", task: Names = None,
    subtasks: bool = False, bootstrap: int = 0, force: bool = False,
) -> Compared:  # fmt: skip
    """Compare runs, each a `Run`, a folder, a name or a baseline file, with the first. Raises OlmesError."""
    from olmes_suite.comparison import results

    loaded = [_scores(one, runs) for one in (baseline, *others)]
    return results.compare(loaded, listed(task), subtasks=subtasks, resamples=bootstrap, force=force)


def _scores(run: Run | AnyPath, runs: AnyPath) -> RunScores:
    from olmes_suite.runs.locate import load as read
    from olmes_suite.runs.scores import read_run

    return read_run(run.path) if isinstance(run, Run) else read(str(run), Path(runs))


def gate(
    baseline: Run | AnyPath, candidate: Run | AnyPath, *, runs: AnyPath = "runs",
    config: AnyPath | Mapping[str, Any] | None = None, alpha: float | None = None, margin: float | None = None,
    suite: str | None = None, task: Names = None, noise: Run | AnyPath | None = None,
    inconclusive: str | None = None, bootstrap: int = 0,
) -> Gated:  # fmt: skip
    """Judge a candidate against a baseline, by the rules of a `gate.yaml` or of a mapping with its keys.

    Raises UsageError for wrong names and rules, Broken for a run that is damaged.
    """
    from olmes_suite.comparison.gate import gate as judge
    from olmes_suite.comparison.results import Gated, rules

    chosen = rules(config, {"alpha": alpha, "margin": margin, "inconclusive": inconclusive})
    try:
        before, after = _scores(baseline, runs), _scores(candidate, runs)
        repeat = _scores(noise, runs) if noise is not None else None
    except DataError as error:
        raise Broken(str(error)) from error
    return Gated(judge(before, after, chosen, suite=suite, only=listed(task), noise=repeat, resamples=bootstrap))
