"""External tasks: the tasks that lm-eval ships, and the user's lm-eval YAML files (`--include-path`).

lm-eval's code renders and scores these tasks; this package adds the record, the error bars and the fingerprints. The
score is the mean over documents of the first metric of the task's first filter. Metrics that are not means over
documents (BLEU, F1 over a corpus, perplexity) are left out, and a task without any other metric is refused.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Any

import datasets

from olmes_suite import lm_eval_api
from olmes_suite.errors import MissingData, UnsuitableTask, UsageError, first_line, nearest, one_line
from olmes_suite.lm_eval_api import DEFAULT_METRIC_REGISTRY, ConfigurableTask, metric_registry
from olmes_suite.records import Request, Scored
from olmes_suite.scoring.scorers import Scorer, lm_eval_task_file
from olmes_suite.tasks.documents import DataSource, find_split, missing, reads_files
from olmes_suite.tasks.generation_kwargs import sampling, unsupported
from olmes_suite.tasks.index import TaskEntry, tasks_folder
from olmes_suite.tasks.task import Splits, SuiteTask
from olmes_suite.tasks.task_file import check_splits, problem, read_task_file, reason

MEANS = ("mean", "nanmean")
"""Names of lm-eval's aggregations that are means over documents."""
NAME = re.compile(r"^(?:task|group):[ ]*[\"']?([\w.:-]+)[\"']?[ ]*(?:#.*)?$", re.MULTILINE)
TAGS = re.compile(r"^tag:((?:[ ]*[\w.\"'-]+[ ]*$)|(?:[ ]*(?:\n[ ]*-[ ]*[\w.\"'-]+[ ]*)+))", re.MULTILINE)
WORD = re.compile(r"(?:^|(?<=[ \"']))[\w][\w.-]*")
PAIRS = frozenset({"f1", "mcc", "likelihood", "brier_score"})
"""Metrics for which lm-eval passes pairs of gold and prediction of a choice, which have no mean, to the aggregation."""
OUTPUT_TYPES = ("generate_until", "loglikelihood", "multiple_choice")


class UnusableGroup(UsageError):
    """A group of lm-eval that has no average here; its tasks can be used."""


class LmEvalTask(SuiteTask):
    """A task with lm-eval's data loading, filters and `process_results`."""

    left_out_metrics: tuple[str, ...] = ()
    """Metrics of the task file that are not means over documents."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read the task's data from a mirror if one has it, otherwise by lm-eval's loading.

        Raises MissingData, and UnsuitableTask for a task without a metric that is a mean over documents.
        """
        self._check()
        source, spec = self.source or DataSource.from_environment(), self.spec
        split = self.config.test_split or self.config.validation_split
        if split and find_split(source, spec, split) is not None:
            self.dataset = Splits(source, spec, None)
            return
        if reads_files(spec.path) or not sys.stderr.isatty():
            datasets.disable_progress_bars()  # several lines for each step of each task, in a log or over our own
        try:
            ConfigurableTask.download(self, dataset_kwargs, **kwargs)
        except Exception as error:  # the Hub client raises a dozen unrelated types
            if reads_files(spec.path):
                why = one_line(error.__cause__ or error)
                raise MissingData(
                    f"the data of {self.config.task} cannot be read ({why}); check dataset_path and dataset_kwargs in "
                    "its file: as in lm-eval, paths are relative to the current folder"
                ) from error
            raise missing(source, spec, split or "test", first_line(error)) from error
        if isinstance(self.dataset, Mapping):
            check_splits(self.config, self.dataset)

    def check_examples(self) -> None:
        """Raise UsageError where there are fewer few-shot examples than the task file asks for."""
        wanted = self.config.num_fewshot or 0
        found = len(list(self.fewshot_docs() or ())) if wanted else 0
        if wanted > found:
            raise UsageError(
                f"num_fewshot: {wanted} examples are wanted and there are {found}; name another fewshot_split"
            )

    def check_filters(self) -> None:
        """Raise UsageError for filters that cannot be made, or that take more answers than the task asks for."""
        for where, function, make in lm_eval_api.first_filters(self):
            try:
                made = make()
            except Exception as error:  # Python's `re`, and lm-eval's and the user's classes
                raise UsageError(f"filter_list: {where}: {function}: {reason(error)}") from error
            wanted, repeats = getattr(made, "k", None), self.config.repeats or 1
            if function == "take_first_k" and isinstance(wanted, int) and wanted > repeats:
                raise UsageError(
                    f"filter_list: {where}: take_first_k: takes {wanted} answers and repeats is {repeats}; raise it"
                )

    def check_primary(self, name: str) -> None:
        """Raise UsageError for a metric that the task does not compute. Its own `process_results` may return any."""
        known = lm_eval_api.metric_tables(self)[0]
        if self.config.process_results is None and name not in known:
            raise UsageError(
                f"{self.config.task}: has no metric {name!r}{nearest(name, known)}; it has {', '.join(known)}"
            )

    def requests(self, doc: Mapping[str, Any], doc_id: int, *, chat: bool) -> list[Request]:
        """Build the requests of a document. Raises UsageError where the task file cannot render it."""
        try:
            return super().requests(doc, doc_id, chat=chat)
        except Exception as error:  # Jinja's, and those of the user's functions
            file = str((self.config.metadata or {}).get("config_source", self.config.task))
            raise problem(file, error, f"document {doc_id} cannot be rendered") from error

    def _check(self) -> None:
        """Refuse unsupported tasks and leave out metrics that are not means.

        Called from `download`, which lm-eval calls before it uses the metrics.
        """
        if self.OUTPUT_TYPE not in OUTPUT_TYPES:
            raise UnsuitableTask(
                f"output_type {self.OUTPUT_TYPE} is not supported here: run {self.config.task} with lm_eval"
            )
        if self.OUTPUT_TYPE == "generate_until" and (names := unsupported(self.config.generation_kwargs or {})):
            raise UnsuitableTask(
                f"generation_kwargs: {', '.join(names)} would change the answers and is not supported here: "
                f"remove it, or run {self.config.task} with lm_eval"
            )
        tables = lm_eval_api.metric_tables(self)
        of_pairs = PAIRS if self.OUTPUT_TYPE == "multiple_choice" else frozenset()
        left_out = [name for name, aggregate in tables[0].items() if name in of_pairs or not is_mean(aggregate)]
        if len(left_out) == len(tables[0]):
            raise UnsuitableTask(
                f"{', '.join(left_out)}: not a mean over documents, and the task has no other metric; "
                f"run {self.config.task} with lm_eval"
            )
        for name in left_out:
            for table in tables:
                table.pop(name, None)
        self.left_out_metrics = tuple(left_out)

    def notes(self) -> list[str]:
        """Return lines about the metrics that are left out and about a seed, which is the run's."""
        lines = []
        if self.left_out_metrics:
            lines.append(f"{self.config.task}: {', '.join(self.left_out_metrics)} left out: not a mean over documents")
        settings = self.config.generation_kwargs or {}
        if self.OUTPUT_TYPE == "generate_until" and settings.get("seed") is not None and sampling(settings).temperature:
            lines.append(f"{self.config.task}: generation_kwargs: seed is ignored: --seed seeds the samples of a run")
        return lines

    @property
    def scorer(self) -> Scorer:
        """The scorer, which applies the task's filters and metrics."""
        return LmEvalScorer(self)

    def scores(self, doc: Mapping[str, Any], responses: Sequence[Any]) -> Scored:
        """Score a document as lm-eval does, with the task's filters and metrics.

        `responses` are the samples of a generated answer, or (log-likelihood, is greedy) of each choice.
        """
        ranked = self.OUTPUT_TYPE != "generate_until"
        instances = []
        for resps in [[pair] for pair in responses] if ranked else [list(responses)]:
            instance = lm_eval_api.instance(self.OUTPUT_TYPE, doc, ("", ""), self.config.task)
            instance.resps = resps
            instances.append(instance)
        filtered = lm_eval_api.filtered(self, instances)
        answer = None if ranked else filtered[0]
        while isinstance(answer, list):
            answer = answer[0] if answer else None
        return Scored(self._means(self.process_results(doc, filtered)), str(answer) if answer is not None else None)

    def _means(self, results: Mapping[str, Any]) -> dict[str, float | None]:
        """Return the metrics as numbers; NaN, which lm-eval's `nanmean` skips, becomes None.

        Raises UnsuitableTask for a metric that is not a number.
        """
        metrics = {name: value for name, value in results.items() if name not in self.left_out_metrics}
        if invalid := [name for name, value in metrics.items() if not isinstance(value, Real)]:
            raise UnsuitableTask(f"{self.config.task}: metric {invalid[0]} is not a number for each document")
        return {name: None if math.isnan(value) else float(value) for name, value in metrics.items()}


class LmEvalScorer(Scorer):
    """Passes all samples of a document through the task's filters together, as lm-eval does."""

    takes_greedy = True

    def __init__(self, task: LmEvalTask) -> None:
        self.task = task
        together = task.OUTPUT_TYPE != "generate_until" or task.config.repeats > 1
        # Version 2: the task's code receives all samples together and is_greedy, which changed some scores.
        super().__init__(task.scores, isolated=False, timeout=60.0, version=2 if together else 1)

    def one(self, doc: Mapping[str, Any], response: Any) -> Scored:
        """Score a single response: a text, or the list of (log-likelihood, is greedy) of the choices."""
        return self.task.scores(doc, response if isinstance(response, list) else [response])

    def document(self, doc: Mapping[str, Any], responses: Sequence[Any]) -> tuple[Scored, list[Scored]]:
        """Score a document by all its responses together. A sample has its own score only if it is the only one."""
        if len(responses) == 1:
            scored = self.one(doc, responses[0])
            return scored, [scored]
        if self.task.averages_samples:
            samples = [self.one(doc, response) for response in responses]
            return samples[0], samples
        return self.task.scores(doc, responses), []


def is_mean(aggregate: Callable[[Sequence[float]], float] | None) -> bool:
    """Tell whether an aggregation is the mean over documents: lm-eval's by its name, others by their values."""
    if aggregate is None:
        return False
    if aggregate.__module__ == "lm_eval.api.metrics":
        return aggregate.__name__ in MEANS
    try:
        return all(
            math.isclose(aggregate(list(values)), sum(values) / len(values))
            for values in ((0.0, 1.0, 1.0), (0.25, 0.5, 0.75, 0.0, 1.0), (1.0,))
        )
    except Exception:  # a user's function may expect values of any type
        return False


def find(name: str, include: tuple[Path, ...]) -> list[TaskEntry]:
    """Find the entries of an external task, or of a flat group and its members; empty if there is none."""
    task_name = name.removeprefix("lm_eval:")
    for folder in (*(folder.resolve() for folder in include), lm_eval_task_file("")):
        path = _file_of(task_name, folder)
        if path is None:
            continue
        config = read_task_file(path, functions=False)
        if "group" not in config:
            return [_entry(task_name, path, config)]
        members: list[TaskEntry] = []
        for member in config["task"] if isinstance(config["task"], list) else [config["task"]]:
            member_file = _file_of(member, folder) if isinstance(member, str) else None
            if member_file is None or "group" in (member_config := read_task_file(member_file, functions=False)):
                raise UnusableGroup(f"group {task_name!r} has nested or inline members; name its tasks one by one")
            members.append(_entry(member, member_file, member_config))
            if members[-1].primary != members[0].primary and members[0].primary not in _metrics(member_config):
                first, last = members[0], members[-1]
                raise UnusableGroup(
                    f"group {task_name!r} has no average: the metric of {first.name} is {first.primary}, that of "
                    f"{last.name} is {last.primary}; name its tasks one by one"
                )
        micro = any(metric.get("weight_by_size", True) for metric in config.get("aggregate_metric_list") or [{}])
        group = TaskEntry(
            task_name,
            str(path),
            members[0].primary,
            members[0].version,
            tuple(m.name for m in members),
            "micro" if micro else "macro",
        )
        return [group, *members]
    return []


@dataclass(frozen=True, slots=True)
class Names:
    """Names in the files of external tasks, as far as single lines tell."""

    tasks: frozenset[str] = frozenset()
    """Tasks and groups."""
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Tag to the tasks whose own files carry it."""


def names(include: tuple[Path, ...]) -> Names:
    """Read the names of the tasks in the user's folders and of those that lm-eval ships."""
    return names_in(*include, lm_eval_task_file(""))


@lru_cache(maxsize=8)
def own_names(folders: tuple[Path, ...]) -> frozenset[str]:
    """Return the names of the tasks in the user's folders, without those of shipped task files."""
    return names_in(*(folder for folder in folders if not folder.resolve().is_relative_to(tasks_folder()))).tasks


def names_in(*folders: Path) -> Names:
    """Read the names of the tasks in folders."""
    found: set[str] = set()
    tags: dict[str, set[str]] = {}
    for folder in folders:
        for path in _files(folder):
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            own = NAME.findall(text)
            found.update(own)
            for tag in [tag for block in TAGS.findall(text) for tag in WORD.findall(block)]:
                tags.setdefault(tag, set()).update(own)
    return Names(frozenset(found), {tag: frozenset(tasks) for tag, tasks in tags.items() if tasks})


def _file_of(name: str, folder: Path) -> Path | None:
    """Find the YAML file that defines `name`. Files of that name are read first, then all others."""
    start, end = rb"^(?:task|group):[ \t]*[\"']?", rb"[\"']?[ \t\r]*(?:#.*)?$"
    pattern = re.compile(start + re.escape(name.encode()) + end, re.MULTILINE)
    for path in _by_likelihood(name, folder):
        try:
            if pattern.search(path.read_bytes()):
                return path
        except OSError:
            continue
    return None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.y*ml") if path.suffix in (".yaml", ".yml")]


def _by_likelihood(name: str, folder: Path) -> Iterator[Path]:
    files = _files(folder)
    yield from (path for path in files if path.stem == name)
    yield from (path for path in files if path.stem != name)


def _entry(name: str, path: Path, config: Mapping[str, Any]) -> TaskEntry:
    """Build the entry of a task. Raises UsageError for a file with values of other types."""
    try:
        return _read_entry(name, path, config)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise problem(path, error) from error


def _read_entry(name: str, path: Path, config: Mapping[str, Any]) -> TaskEntry:
    version = (config.get("metadata") or {}).get("version", 0)
    return TaskEntry(
        name, str(path), _primary(config), float(version) if str(version).replace(".", "", 1).isdigit() else 0.0,
        output=config.get("output_type", "generate_until"), shots=int(config.get("num_fewshot") or 0),
        dataset=str(config.get("dataset_path", "")), config=str(config.get("dataset_name") or "default"),
        split=str(config.get("test_split") or config.get("validation_split") or ""),
    )  # fmt: skip


def _metrics(config: Mapping[str, Any]) -> set[str]:
    """Return the names of the metrics in a task file; the default ones of its output type where it names none."""
    named = config.get("metric_list") or [
        {"metric": name} for name in DEFAULT_METRIC_REGISTRY.get(config.get("output_type", "generate_until")) or ()
    ]
    return {str(entry["metric"]).rpartition(".")[2] for entry in named}


def _primary(config: Mapping[str, Any]) -> str:
    """Return the first metric that is a mean over documents, as far as the unresolved file tells."""
    from olmes_suite.lm_eval_api import get_metric_aggregation

    output = config.get("output_type", "generate_until")
    metrics = config.get("metric_list") or [{"metric": name} for name in DEFAULT_METRIC_REGISTRY.get(output) or ()]
    names = [entry["metric"] for entry in metrics if isinstance(entry.get("metric"), str)]
    for entry in metrics:
        name, aggregate = entry.get("metric"), entry.get("aggregation")
        if not isinstance(name, str) or (output == "multiple_choice" and name in PAIRS):
            continue
        if name not in metric_registry and not entry.get("hf_evaluate"):
            name = name.rpartition(".")[2]  # a function of the user's, which lm-eval names by its own name
        if aggregate is None and name not in metric_registry:
            continue
        is_a_mean = aggregate in MEANS if isinstance(aggregate, str) else is_mean(get_metric_aggregation(name))
        if is_a_mean or (aggregate is not None and not isinstance(aggregate, str)):
            return name
    return names[0] if names else "exact_match"
