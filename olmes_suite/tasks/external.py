"""Tasks that are not ours: any that lm-eval ships, and a user's own lm-eval YAML files (`--include-path`).

They are rendered and scored by lm-eval's own code; we add the recording, the error bars and the fingerprints. Their
score is the mean over documents of the first metric of the task's first filter, so metrics that are not means over
documents (BLEU, F1 over a corpus, perplexity) are left out, and a task that has no other is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance as LmEvalInstance
from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from olmes_suite.errors import MissingData, UnsuitableTask, UsageError, first_line
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import Scorer, lm_eval_task_file
from olmes_suite.tasks.documents import DataSource, find_split, missing_message
from olmes_suite.tasks.generation_kwargs import unsupported
from olmes_suite.tasks.index import TaskEntry
from olmes_suite.tasks.task import Splits, SuiteTask

MEANS = ("mean", "nanmean")
"""lm-eval's names of aggregations that are means over documents."""
OUTPUT_TYPES = ("generate_until", "loglikelihood", "multiple_choice")


class LmEvalTask(SuiteTask):
    """An lm-eval task with lm-eval's own data loading, filters and `process_results`."""

    left_out_metrics: tuple[str, ...] = ()
    """Metrics of the task file that are not means over documents."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """A mirror's parquet files where there are any, else lm-eval's own loading.

        Raises MissingData, and UnsuitableTask for a task that has no mean over documents.
        """
        self._check()
        source, spec = self.source or DataSource.from_environment(), self.spec
        split = self.config.test_split or self.config.validation_split
        if split and find_split(source, spec, split) is not None:
            self.dataset = Splits(source, spec, None)
            return
        try:
            ConfigurableTask.download(self, dataset_kwargs, **kwargs)
        except Exception as error:  # the Hub client raises a dozen unrelated types
            raise MissingData(f"{missing_message(source, spec, split or 'test')} ({first_line(error)})") from error

    def _check(self) -> None:
        """Refuse what cannot be run, and leave out metrics that are not means; lm-eval calls `download` in time."""
        if self.OUTPUT_TYPE not in OUTPUT_TYPES:
            raise UnsuitableTask(
                f"output_type {self.OUTPUT_TYPE} is not supported here: run {self.config.task} with lm_eval"
            )
        if self.OUTPUT_TYPE == "generate_until" and (names := unsupported(self.config.generation_kwargs or {})):
            raise UnsuitableTask(
                f"generation_kwargs: {', '.join(names)} would change the answers and is not supported here: "
                f"remove it, or run {self.config.task} with lm_eval"
            )
        others = [name for name, aggregate in self._aggregation_list.items() if not is_mean(aggregate)]
        if len(others) == len(self._aggregation_list):
            raise UnsuitableTask(
                f"{', '.join(others)}: not a mean over documents, and the task has no other metric; "
                f"run {self.config.task} with lm_eval"
            )
        for name in others:
            for table in (self._aggregation_list, self._metric_fn_list, self._metric_fn_kwargs, self._higher_is_better):
                table.pop(name, None)
        self.left_out_metrics = tuple(others)

    def notes(self) -> list[str]:
        """Say which metrics are left out."""
        if not self.left_out_metrics:
            return []
        return [f"{self.config.task}: {', '.join(self.left_out_metrics)} left out: not a mean over documents"]

    @property
    def scorer(self) -> Scorer:
        """A scorer around the task's filters and metrics."""
        return LmEvalScorer(self)

    def scores(self, doc: Mapping[str, Any], responses: Sequence[Any]) -> Scored:
        """Scores of a document, by lm-eval's way from responses to metrics.

        `responses` are the samples of a generated answer, or (log-likelihood, is greedy) of each choice.
        """
        ranked = self.OUTPUT_TYPE != "generate_until"
        instances = []
        for resps in [[pair] for pair in responses] if ranked else [list(responses)]:
            instance = LmEvalInstance(self.OUTPUT_TYPE, dict(doc), ("", ""), 0, metadata=(self.config.task, 0, 1))
            instance.resps = resps
            instances.append(instance)
        ensemble = self._filters[0]
        ensemble.apply(instances)
        filtered = [instance.filtered_resps[ensemble.name] for instance in instances]
        answer = None if ranked else filtered[0]
        while isinstance(answer, list):
            answer = answer[0] if answer else None
        return Scored(self._means(self.process_results(doc, filtered)), str(answer) if answer is not None else None)

    def _means(self, found: Mapping[str, Any]) -> dict[str, float | None]:
        """The metrics that are numbers; NaN, which lm-eval's `nanmean` passes over, as None."""
        kept = {name: value for name, value in found.items() if name not in self.left_out_metrics}
        if wrong := [name for name, value in kept.items() if not isinstance(value, Real)]:
            raise UnsuitableTask(f"{self.config.task}: metric {wrong[0]} is not a number for each document")
        return {name: None if math.isnan(value) else float(value) for name, value in kept.items()}


class LmEvalScorer(Scorer):
    """All samples of a document go through the task's filters together, as in lm-eval."""

    takes_greedy = True

    def __init__(self, task: LmEvalTask) -> None:
        self.task = task
        together = task.OUTPUT_TYPE != "generate_until" or task.config.repeats > 1
        # Verdicts on these changed when all samples, and which answers are greedy, came to the task's own code.
        super().__init__(task.scores, isolated=False, timeout=60.0, version=2 if together else 1)

    def one(self, doc: Mapping[str, Any], response: Any) -> Scored:
        """Score one response: a text, or the list of (log-likelihood, is greedy) of the choices."""
        return self.task.scores(doc, response if isinstance(response, list) else [response])

    def document(self, doc: Mapping[str, Any], responses: Sequence[Any]) -> tuple[Scored, list[Scored]]:
        """Score the document by all responses together; a response alone where the filters take one."""
        if len(responses) == 1:
            scored = self.one(doc, responses[0])
            return scored, [scored]
        return self.task.scores(doc, responses), []


def is_mean(aggregate: Callable[[Sequence[float]], float] | None) -> bool:
    """Tell whether an aggregation is the mean over documents; lm-eval's by name, others by what they compute."""
    if aggregate is None:
        return False
    if aggregate.__module__ == "lm_eval.api.metrics":
        return aggregate.__name__ in MEANS
    try:
        return all(
            math.isclose(aggregate(list(values)), sum(values) / len(values))
            for values in ((0.0, 1.0, 1.0), (0.25, 0.5, 0.75, 0.0, 1.0), (1.0,))
        )
    except Exception:  # a function of the user's, over whatever its metric returns
        return False


def find(name: str, include: tuple[Path, ...]) -> list[TaskEntry]:
    """The entries of a task or flat group outside our own folder: itself and its members; empty where there is none."""
    wanted = name.removeprefix("lm_eval:")
    for folder in (*(folder.resolve() for folder in include), lm_eval_task_file("")):
        path = _file_of(wanted, folder)
        if path is None:
            continue
        config = load_yaml(path, resolve_func=False)
        if "group" not in config:
            return [_entry(wanted, path, config)]
        members: list[TaskEntry] = []
        for member in config["task"] if isinstance(config["task"], list) else [config["task"]]:
            inner = _file_of(member, folder) if isinstance(member, str) else None
            if inner is None or "group" in (leaf := load_yaml(inner, resolve_func=False)):
                raise UsageError(f"group {wanted!r} has nested or inline members; name its tasks one by one")
            members.append(_entry(member, inner, leaf))
        micro = any(metric.get("weight_by_size", True) for metric in config.get("aggregate_metric_list") or [{}])
        group = TaskEntry(
            wanted,
            str(path),
            members[0].primary,
            members[0].version,
            tuple(m.name for m in members),
            "micro" if micro else "macro",
        )
        return [group, *members]
    return []


def _file_of(name: str, folder: Path) -> Path | None:
    """The YAML file that defines `name`: by its file name first, else by reading all of them."""
    pattern = re.compile(rb"^(?:task|group):\s*[\"']?" + re.escape(name.encode()) + rb"[\"']?\s*$", re.MULTILINE)
    for path in _by_likelihood(name, folder):
        try:
            if pattern.search(path.read_bytes()):
                return path
        except OSError:
            continue
    return None


def _by_likelihood(name: str, folder: Path) -> Iterator[Path]:
    files = list(folder.rglob("*.yaml"))
    yield from (path for path in files if path.stem == name)
    yield from (path for path in files if path.stem != name)


def _entry(name: str, path: Path, config: Mapping[str, Any]) -> TaskEntry:
    version = (config.get("metadata") or {}).get("version", 0)
    return TaskEntry(
        name, str(path), _primary(config), float(version) if str(version).replace(".", "", 1).isdigit() else 0.0,
        output=config.get("output_type", "generate_until"), shots=int(config.get("num_fewshot") or 0),
        dataset=str(config.get("dataset_path", "")), config=str(config.get("dataset_name") or "default"),
        split=str(config.get("test_split") or config.get("validation_split") or ""),
    )  # fmt: skip


def _primary(config: Mapping[str, Any]) -> str:
    """The first metric that is a mean over documents, as far as the unresolved file tells."""
    from lm_eval.api.registry import get_metric_aggregation

    output = config.get("output_type", "generate_until")
    listed = config.get("metric_list") or [{"metric": name} for name in DEFAULT_METRIC_REGISTRY.get(output) or ()]
    names = [entry["metric"] for entry in listed if isinstance(entry.get("metric"), str)]
    for entry in listed:
        name, aggregate = entry.get("metric"), entry.get("aggregation")
        if not isinstance(name, str):
            continue
        known = aggregate in MEANS if isinstance(aggregate, str) else is_mean(get_metric_aggregation(name))
        if known or (aggregate is not None and not isinstance(aggregate, str)):
            return name
    return names[0] if names else "exact_match"
