"""Tasks that are not ours: any that lm-eval ships, and a user's own lm-eval YAML files (`--include-path`).

They are rendered and scored by lm-eval's own code; we add the recording, the error bars and the fingerprints. Their
score is the mean over documents of the first metric of the task's first filter, so a task whose metric is no mean over
documents (BLEU, F1 over a corpus, perplexity) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance as LmEvalInstance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from olmes_suite.errors import MissingData, UsageError, first_line
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import Scorer, lm_eval_task_file
from olmes_suite.tasks.documents import DataSource, find_split, missing_message
from olmes_suite.tasks.index import TaskEntry
from olmes_suite.tasks.task import Splits, SuiteTask


class LmEvalTask(SuiteTask):
    """An lm-eval task with lm-eval's own data loading, filters and `process_results`."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """A mirror's parquet files where there are any, else lm-eval's own loading. Raises MissingData."""
        source, spec = self.source or DataSource.from_environment(), self.spec
        split = self.config.test_split or self.config.validation_split
        if split and find_split(source, spec, split) is not None:
            self.dataset = Splits(source, spec, None)
            return
        try:
            ConfigurableTask.download(self, dataset_kwargs, **kwargs)
        except Exception as error:  # the Hub client raises a dozen unrelated types
            raise MissingData(f"{missing_message(source, spec, split or 'test')} ({first_line(error)})") from error

    @property
    def scorer(self) -> Scorer:
        """A scorer around the task's filters and metrics."""
        return Scorer(self._score, isolated=False, timeout=60.0, version=1)

    def _score(self, doc: Mapping[str, Any], response: Any) -> Scored:
        if isinstance(response, list):
            return Scored(self._means(self.process_results(doc, [(value, False) for value in response])))
        instance = LmEvalInstance("generate_until", dict(doc), ("", {}), 0, metadata=(self.config.task, 0, 1))
        instance.resps = [response]
        ensemble = self._filters[0]
        ensemble.apply([instance])
        filtered = instance.filtered_resps[ensemble.name]
        extracted = filtered if isinstance(filtered, str) else (filtered[0] if filtered else None)
        return Scored(
            self._means(self.process_results(doc, [filtered])), str(extracted) if extracted is not None else None
        )

    def _means(self, found: Mapping[str, Any]) -> dict[str, float | None]:
        wrong = [name for name, value in found.items() if not isinstance(value, (int, float))]
        if wrong:
            raise UsageError(
                f"{self.config.task}: metric {wrong[0]} is no mean over documents; only such tasks can be run here"
            )
        return {name: float(value) for name, value in found.items()}


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
    metrics = config.get("metric_list")
    default = "acc" if config.get("output_type") == "multiple_choice" else "exact_match"
    primary = metrics[0]["metric"] if metrics and isinstance(metrics[0].get("metric"), str) else default
    version = (config.get("metadata") or {}).get("version", 0)
    return TaskEntry(
        name, str(path), primary, float(version) if str(version).replace(".", "", 1).isdigit() else 0.0,
        output=config.get("output_type", "generate_until"), shots=int(config.get("num_fewshot") or 0),
        dataset=str(config.get("dataset_path", "")), config=str(config.get("dataset_name") or "default"),
        split=str(config.get("test_split") or config.get("validation_split") or ""),
    )  # fmt: skip
