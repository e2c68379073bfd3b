"""Task files of lm-eval's form, with errors in one line: reading them, and what is wrong with them."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from olmes_suite.errors import OlmesError, UsageError, nearest, one_line
from olmes_suite.lm_eval_api import TaskConfig, aggregation_registry, load_yaml, metric_registry
from olmes_suite.tasks import question_file
from olmes_suite.tasks.keys import TASK_KEYS
from olmes_suite.tasks.overrides import check_values
from olmes_suite.yaml_files import tab_advice

KNOWN = frozenset({"class", "include", *TASK_KEYS, *(field.name for field in fields(TaskConfig))})
"""Keys of a task file."""
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
STEPS = ("doc_to_text", "doc_to_target", "doc_to_choice", "process_docs", "process_results", "fewshot_context")
"""Functions of lm-eval's tasks that evaluate a key of the file of the same name."""


def read_task_file(path: Path, *, functions: bool = True) -> dict[str, Any]:
    """Read a task file and those that it includes; `functions` also imports what `!function` names.

    Raises UsageError for a file that cannot be read, and for a function that cannot be imported.
    """
    try:
        content = load_yaml(path, resolve_func=functions)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}" if mark else ""
        tab = tab_advice(Path(mark.name), mark) if mark else ""
        raise UsageError(f"{mark.name if mark else path}{where}: {error.problem or error.context}{tab}") from None
    except FileNotFoundError as error:
        raise UsageError(f"{path}: include: there is no file {error.filename}") from None
    except Exception as error:  # also what the user's module raises while it is imported
        cause = error.__cause__ if isinstance(error, ImportError) and error.__cause__ else error
        raise UsageError(f"{path}: a function that it names cannot be imported ({reason(cause)})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: is not a mapping of keys to values, as a task file is")
    return question_file.expand(path, functions=functions) if question_file.is_question_file(content) else content


def check_keys(config: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError for an unknown key, a missing data set, wrong sampling settings and an unknown metric."""
    for key in config:
        if key not in KNOWN:
            raise UsageError(f"{path}: unknown key {key!r}{nearest(str(key), KNOWN)}")
    if not config.get("dataset_path") and config.get("custom_dataset") is None:
        raise UsageError(f"{path}: lacks dataset_path: the Hub id of the data set, or json with data_files")
    for key in ("doc_to_text", "doc_to_target"):
        if config.get(key) is None and config.get("use_prompt") is None:
            raise UsageError(f"{path}: lacks {key}")
    if config.get("output_type") == "multiple_choice" and not (config.get("doc_to_choice") or config.get("use_prompt")):
        raise UsageError(f"{path}: lacks doc_to_choice: a column with a list of texts, or a list")
    for key, least in (("num_fewshot", 0), ("repeats", 1)):
        value = config.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UsageError(f"{path}: {key}: expected a whole number from {least}, not {value!r}")
    _check_filter_list(config.get("filter_list"), path)
    if config.get("output_type", "generate_until") == "generate_until":
        check_values(config.get("generation_kwargs"), f"{path}: generation_kwargs")
    if config.get("process_results") is not None:
        return  # its metrics have names of its own
    metrics = config.get("metric_list") or []
    if not isinstance(metrics, list) or not all(isinstance(entry, dict) and "metric" in entry for entry in metrics):
        raise UsageError(f"{path}: metric_list is not a list of mappings with the key `metric`")
    for entry in metrics:
        name = entry["metric"]
        if isinstance(name, str) and name not in metric_registry and not entry.get("hf_evaluate"):
            raise UsageError(f"{path}: unknown metric {name!r}{nearest(name, list(metric_registry))}")
        aggregation = entry.get("aggregation")
        if isinstance(aggregation, str) and aggregation not in aggregation_registry:
            raise UsageError(
                f"{path}: unknown aggregation {aggregation!r}{nearest(aggregation, list(aggregation_registry))}"
            )


def _check_filter_list(lists: Any, path: Path) -> None:
    for entry in lists if isinstance(lists, list) else []:
        steps = entry.get("filter") if isinstance(entry, dict) else None
        for step in steps if isinstance(steps, list) else []:
            if not isinstance(step, dict) or "function" not in step:
                raise UsageError(f"{path}: filter_list: {entry.get('name')}: {step!r} lacks the key `function`")


def check_splits(config: TaskConfig, splits: Mapping[str, Any]) -> None:
    """Raise UsageError where the loaded data lacks a split that a task file names."""
    for key in SPLITS:
        name = getattr(config, key)
        if isinstance(name, str) and name not in splits:
            raise UsageError(
                f"{key}: the data set has no split {name!r}{nearest(name, splits)}; it has {_list(splits)}"
            )


def problem(path: Path | str, error: Exception, where: str = "the task cannot be built") -> OlmesError:
    """Return the error for an exception of lm-eval, or of the user's functions, over a task file.

    An error of this package is returned with the file's name, or unchanged where its exit status is another.
    """
    if isinstance(error, UsageError) and type(error) is UsageError:
        text = str(error)
        return error if text.startswith(str(path)) else UsageError(f"{path}: {text}")
    if isinstance(error, OlmesError):
        return error
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    step = next((name for name in reversed(frames) if name in STEPS), None)
    return UsageError(f"{path}: {where} ({f'{step}: ' if step else ''}{reason(error)})")


def reason(error: BaseException) -> str:
    """Return the type and the text of an exception on one line."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else one_line(error)
    name = type(error).__name__
    return name if text == name or not text else f"{name}: {one_line(ValueError(text))}"


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(map(str, names)) or "none"
