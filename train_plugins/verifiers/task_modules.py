"""The evaluator's task modules, whose functions the verifiers use."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

from olmes_suite.tasks.index import tasks_folder


@lru_cache(maxsize=8)
def task(name: str) -> Any:
    """Load the module `task.py` of a task's folder."""
    return part(name, "task.py")


@lru_cache(maxsize=8)
def part(name: str, module_file: str) -> Any:
    """Load a module of a task's folder."""
    file = tasks_folder() / name / module_file
    spec = importlib.util.spec_from_file_location(f"olmes_verifier_{file.stem}_{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
