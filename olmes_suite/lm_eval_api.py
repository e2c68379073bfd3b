"""The parts of lm-eval that this package builds on, in one place.

lm-eval moves its internals between releases. A name of `PLACES` is looked up when it is first used, at each place in
turn, so that importing this module does not import lm-eval. The functions below do what has no common name.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.extras import install

PLACES: dict[str, tuple[str, ...]] = {
    "ConfigurableTask": ("lm_eval.api.task:ConfigurableTask", "lm_eval.api.task:Task"),
    "Instance": ("lm_eval.api.instance:Instance",),
    "LM": ("lm_eval.api.model:LM",),
    "DEFAULT_METRIC_REGISTRY": ("lm_eval.api.registry:DEFAULT_METRIC_REGISTRY",),
    "TaskConfig": ("lm_eval.config.task:TaskConfig", "lm_eval.api.task:TaskConfig"),
    "aggregation_registry": ("lm_eval.api.registry:aggregation_registry", "lm_eval.api.registry:AGGREGATION_REGISTRY"),
    "metric_registry": ("lm_eval.api.registry:metric_registry", "lm_eval.api.registry:METRIC_REGISTRY"),
    "get_metric_aggregation": ("lm_eval.api.registry:get_metric_aggregation",),
    "load_yaml": ("lm_eval.tasks._yaml_loader:load_yaml", "lm_eval.tasks:load_yaml"),
}
"""Name to the places where releases of lm-eval have it, as "module:name"; the first that exists counts."""
TEMPLATES = ("lm_eval.utils:env",)
"""The Jinja environment that templates of task files are compiled with. lm-eval 0.5 caches what it compiles."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = found(PLACES[name])
    if value is None:
        raise unsupported(name)
    globals()[name] = value
    return value


def found(places: Sequence[str]) -> Any:
    """Return the object at the first of the places that exists; None if none does.

    Raises ImportError if lm-eval is not installed or cannot be imported.
    """
    for place in places:
        module, _, name = place.partition(":")
        try:
            value = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            if error.name == "lm_eval" or not f"{module}.".startswith(f"{error.name}."):
                raise
            continue
        if value is not None:
            return value
    return None


def unsupported(name: str) -> UsageError:
    """Return the error for a release of lm-eval that lacks `name`."""
    from importlib.metadata import version

    return UsageError(f"lm-eval {version('lm_eval')} is not supported, it has no `{name}`: {install('eval')}")


def cache_templates() -> None:
    """Keep compiled templates: lm-eval 0.4 compiles a template on every call, which takes 95 % of its host time."""
    environment = found(TEMPLATES)
    if environment is not None and not hasattr(environment.from_string, "cache_info"):
        environment.from_string = functools.lru_cache(maxsize=512)(environment.from_string)


def few_shot_settings(task: Any) -> Any:
    """Return a task's few-shot settings, with `samples` and `split`."""
    for name in ("fewshot_cfg", "_fewshot_cfg"):
        if (settings := getattr(task, name, None)) is not None:
            return settings
    return task.config.fewshot_config


def resolve_field(base: Any, doc: Mapping[str, Any], field: str | None) -> Any:
    """Return a field of a document by the rule of lm-eval's task class `base`: a column, a template or plain text."""
    for name in ("resolve_field", "_resolve_field"):
        if (rule := getattr(base, name, None)) is not None:
            return rule(doc, field)
    raise unsupported("resolve_field")


def instance(kind: str, doc: Mapping[str, Any], arguments: tuple[Any, ...], task: str) -> Any:
    """Return lm-eval's record of one request of a document, for filters and metrics."""
    cls = __getattr__("Instance")
    values = {"request_type": kind, "doc": dict(doc), "arguments": arguments, "idx": 0, "metadata": (task, 0, 1)}
    known = inspect.signature(cls).parameters
    values |= {name: value for name, value in (("task_name", task), ("doc_id", 0)) if name in known}
    return cls(**values)


def metric_tables(task: Any) -> tuple[dict[str, Any], ...]:
    """Return a task's tables by metric, which are changed together; the first one holds the aggregations."""
    names = ("_aggregation_list", "_metric_fn_list", "_metric_fn_kwargs", "_higher_is_better")
    if missing := [name for name in names if not hasattr(task, name)]:
        raise unsupported(missing[0])
    return tuple(getattr(task, name) for name in names)


def filtered(task: Any, instances: Sequence[Any]) -> list[Any]:
    """Return the responses of the instances after the task's first list of filters."""
    ensembles = getattr(task, "_filters", None)
    if not ensembles:
        raise unsupported("filters of a task")
    ensembles[0].apply(list(instances))
    return [each.filtered_resps[ensembles[0].name] for each in instances]


def first_filters(task: Any) -> list[tuple[str, str, Callable[[], Any]]]:
    """Return the steps of a task's first list of filters: name of the list, name of the function, and its maker."""
    ensembles = getattr(task, "_filters", None)
    if not ensembles:
        raise unsupported("filters of a task")
    lists = task.config.filter_list or [{"filter": []}]
    functions = [str(step.get("function")) for step in lists[0].get("filter") or []]
    makers = list(ensembles[0].filters)
    if len(functions) != len(makers):  # lm-eval's default, without a list
        functions = ["take_first"] * len(makers)
    return [(ensembles[0].name, function, make) for function, make in zip(functions, makers, strict=True)]
