"""Tasks that are a file of questions and answers, described in three lines of YAML::

    task: my_math
    data: questions.jsonl
    metric: number

`data` is a file of JSON lines, JSON, CSV, TSV or parquet beside the YAML file. Its columns are found by their names, or
named with `question`, `answer` and `choices`. `expand` turns the keys into those of an ordinary task file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError, nearest
from olmes_suite.scoring.answer_metrics import METRICS
from olmes_suite.tasks.index import TaskEntry

ACC = "acc"
"""Metric of choices: the letter with the largest log-likelihood is the right one."""
QUESTION = ("question", "prompt", "problem", "query", "instruction", "input")
ANSWER = (
    "answer", "answers", "target", "targets", "label", "gold", "reference", "ground_truth", "expected", "solution",
    "output", "response", "completion",
)  # fmt: skip
CHOICES = ("choices", "options")
LETTERED = ("A", "B", "C", "D", "E", "F", "G", "H", "I", "J")
"""Columns of choices, one each."""
CONTEXT = ("context", "passage")
_OTHER_FORM = (
    "dataset_path", "doc_to_text", "doc_to_target", "doc_to_choice", "metric_list", "output_type", "test_split",
    "generation_kwargs", "filter_list", "process_results", "process_docs", "group",
)  # fmt: skip
"""Keys of lm-eval's form, which do not go with `data`."""


class NoQuestions(UsageError):
    """The file of questions that a task file names does not exist."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of such a task."""

    task: str
    data: str
    """File of rows, relative to the YAML file."""
    metric: str | list[str] = ""
    """exact_match, contains, number, f1; acc for choices. Of several the first is the score."""
    question: str | None = None
    """Column of the question; the other two likewise. By default they are found by their usual names."""
    answer: str | None = None
    choices: str | list[str] | None = None
    """Column with a list of texts, or the columns with a choice each."""
    prompt: str | None = None
    """Jinja template of the user's turn over the columns; by default the question (and the lettered choices)."""
    description: str | None = None
    """System prompt."""
    examples: str | None = None
    """File of few-shot examples with the same columns."""
    num_fewshot: int | None = None
    """Number of these examples; by default all of them."""
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    """Texts that end an answer."""
    cluster: str | None = None
    """Column whose value is equal for the documents of a cluster."""
    version: float = 1.0

    @property
    def metrics(self) -> list[str]:
        """The metrics, the score's first; for choices `acc`, otherwise `exact_match`, where the file names none."""
        return [self.metric] if isinstance(self.metric, str) else self.metric


def is_question_file(config: Any) -> bool:
    """Tell whether the content of a task file has this form."""
    return isinstance(config, Mapping) and "data" in config and "task" in config


def is_question_task(entry: TaskEntry) -> bool:
    """Tell whether a task is such a file: its data set is a file of rows, by its absolute path."""
    from olmes_suite.training_rows.files import kind_of

    file = Path(entry.dataset)
    return Path(entry.file).is_absolute() and file.is_absolute() and file.is_file() and kind_of(file) is not None


def expand(path: Path, *, functions: bool = True) -> dict[str, Any]:
    """Return the task file at `path` in the ordinary form; without `functions` only what can be told without code.

    Raises UsageError naming the key, the file of rows or the column that is wrong, DataError for rows.
    """
    keys = _read(path)
    names, columns = _described(path, keys)
    ranked = names[0] == ACC
    config: dict[str, Any] = {
        "task": keys.task,
        "dataset_path": str(data_file(path, keys.data)),
        "test_split": "test",
        "output_type": "multiple_choice" if ranked else "generate_until",
        "num_fewshot": 0,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names],
        "metadata": {
            "version": keys.version, "primary": names[0], "shots": 0, "texts": columns,
        },
    }  # fmt: skip
    if keys.description is not None:
        config["description"] = keys.description
    if keys.cluster is not None:
        config["cluster"] = keys.cluster
    if not ranked:
        settings: dict[str, Any] = {"until": list(keys.stop), "max_gen_toks": keys.max_tokens}
        config["generation_kwargs"] = {**settings, "temperature": 0.0, "do_sample": False}
    if functions:
        from olmes_suite.tasks import question_task

        config |= question_task.functions(path, keys, names)
    return config


def data_file(path: Path, name: str) -> Path:
    """Return the absolute path of a file that a task file names. Raises UsageError where there is none."""
    from olmes_suite.training_rows.files import kind_of, known_kinds

    file = (path.parent / name).resolve()
    if not file.is_file():
        raise NoQuestions(f"{path}: there is no file {file}")
    if kind_of(file) is None:
        raise UsageError(f"{path}: {name}: not a file of rows; known are {known_kinds()}")
    return file


def _read(path: Path) -> Keys:
    file = yaml_files.read(path, "task file")
    if other := next((key for key in _OTHER_FORM if key in file.data), None):
        raise UsageError(
            f"{file.place.line((other,))}: {other} does not go with `data`: use prompt, metric, question, answer and "
            "choices, or write lm-eval's form with `dataset_path: json` and `dataset_kwargs`"
        )
    data = dict(file.data)
    if isinstance(metadata := data.pop("metadata", None), Mapping):
        data.setdefault("version", metadata.get("version", 1.0))
    keys = yaml_files.typed(Keys, data, file.place)
    for name in ("max_tokens", "num_fewshot"):
        value = getattr(keys, name)
        if value is not None and value < 1:
            raise UsageError(f"{file.place.line((name,))}: {name}: must be at least 1, not {value}")
    if keys.num_fewshot is not None and keys.examples is None:
        raise UsageError(
            f"{file.place.line(('num_fewshot',))}: num_fewshot needs `examples`: a file with the same columns"
        )
    known = [*METRICS, ACC]
    for name in filter(None, keys.metrics):
        if name not in known:
            raise UsageError(
                f"{file.place.line(('metric',))}: metric: unknown {name!r}{nearest(name, known)}; known are "
                f"{', '.join(known)}"
            )
    return keys


@lru_cache(maxsize=256)
def _columns_of(file: Path, signature: str) -> tuple[str, ...]:
    from olmes_suite.training_rows.reading import Unreadable, rows_of

    first = next(iter(rows_of(file)), None)
    if first is None:
        raise UsageError(f"{file}: has no rows")
    if isinstance(first, Unreadable):
        raise UsageError(f"{file}: {first.why}")
    return tuple(first)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file of rows that a task reads."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()
    """One column with lists, or a column for each choice; empty without choices."""
    context: str | None = None

    @property
    def texts(self) -> list[str]:
        """Columns whose texts a prompt shows."""
        return [name for name in (self.context, self.question, *self.choices) if name]


def columns(path: Path, keys: Keys, file: Path) -> Columns:
    """Find the columns of the question, the answer and the choices. Raises UsageError for one that is not there."""
    from olmes_suite.files import file_signature

    known = _columns_of(file, file_signature(file))
    lower = {name.strip().lower(): name for name in reversed(known)}

    def named(key: str, name: str) -> str:
        if name not in known:
            raise UsageError(
                f"{path}: {key}: {file.name} has no column {name!r}{nearest(name, known)}; it has {', '.join(known)}"
            )
        return name

    def found(key: str, given: str | None, usual: tuple[str, ...]) -> str:
        if given is not None:
            return named(key, given)
        if (name := next((lower[name] for name in usual if name in lower), None)) is None:
            raise UsageError(
                f"{path}: {file.name} has no column for the {key} (such as {', '.join(usual[:4])}); it has "
                f"{', '.join(known)}: name the column with `{key}: COLUMN`"
            )
        return name

    question = found("question", keys.question, QUESTION)
    answer = found("answer", keys.answer, tuple(name for name in ANSWER if lower.get(name) != question))
    if keys.choices is None:
        lettered = [name for name in LETTERED if name in known]
        one = next((lower[name] for name in CHOICES if name in lower), None)
        choices = (one,) if one else tuple(lettered) if lettered[:2] == ["A", "B"] else ()
    else:
        listed = [keys.choices] if isinstance(keys.choices, str) else keys.choices
        choices = tuple(named("choices", name) for name in listed)
    if keys.cluster is not None:
        named("cluster", keys.cluster)
    context = next((lower[name] for name in CONTEXT if name in lower and lower[name] not in (question, answer)), None)
    return Columns(question, answer, choices, None if keys.prompt else context)


def _described(path: Path, keys: Keys) -> tuple[list[str], list[str]]:
    """Return the metrics and the columns whose texts decontamination compares."""
    found = columns(path, keys, data_file(path, keys.data))
    names = list(dict.fromkeys(filter(None, keys.metrics))) or [ACC if found.choices else "exact_match"]
    if ACC in names and (not found.choices or len(names) > 1):
        why = "needs choices: a column `choices` with lists, or columns A, B, …" if not found.choices else "goes alone"
        raise UsageError(f"{path}: metric: {ACC} {why}")
    if found.choices and names not in ([ACC], ["exact_match"]):
        raise UsageError(f"{path}: metric: with choices it is {ACC}, or exact_match of a generated letter")
    return names, found.texts
