"""The index of tasks: their names, files and settings, in a JSON file that is read without importing lm-eval.

`python -m olmes_suite.tasks.index` rebuilds the index from the task files; a test fails when it is stale.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from olmes_suite import errors
from olmes_suite.errors import UsageError

PREFIX = "tulu3_"
"""Prefix of the tasks of the Tülu 3 suites, which may be left out."""
LATER = "olmo3_"
"""Prefix of the tasks of the OLMo 3 suites, which may not be left out."""
INDEX = "index.json"
NESTED = "nested"


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """An entry of the index: a leaf task or a group of leaf tasks."""

    name: str
    file: str
    """Path of the YAML file, relative to the task folder."""
    primary: str
    version: float
    members: tuple[str, ...] = ()
    """Leaf tasks of a group; empty for a leaf."""
    aggregate: str = "mean"
    """mean for a leaf; for a group macro (unweighted mean of the sub-tasks), micro (weighted by their documents) or
    nested (macro within each data set, then over the data sets)."""
    output: str = ""
    shots: int = 0
    dataset: str = ""
    config: str = ""
    split: str = ""
    revision: str = "main"
    """Revision of the data set on the Hub."""
    repeats: int = 1
    """Number of answers to each request."""
    summary: bool = False
    """Whether the primary metric is computed from all documents and is no mean over them."""
    note: str = ""
    """What a user of the task should know before a run and beside its score."""
    judge: str = ""
    """The judge of the reference, for a task whose scores depend on which model judges."""
    differs: str = ""
    """What a repaired variant reads in another way, and how often that changes a verdict."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """The leaf tasks: the members of a group, or the task itself."""
        return self.members or (self.name,)


def tasks_folder() -> Path:
    """Return the task folder: inside the package in a wheel, beside the package in a checkout."""
    package = Path(__file__).parent.parent
    shipped = package / "_tasks"
    return shipped if shipped.is_dir() else package.parent / "tasks"


@lru_cache(maxsize=1)
def index() -> dict[str, TaskEntry]:
    """Read the index: all tasks and groups by name."""
    path = tasks_folder() / INDEX
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"the task index {path} cannot be read ({error}); rebuild it: python -m olmes_suite.tasks.index"
        ) from error
    return {
        name: TaskEntry(name=name, **{**entry, "members": tuple(entry.get("members", ()))})
        for name, entry in entries.items()
    }


def full_name(name: str) -> str:
    """Return the name with its prefix if such a task exists, otherwise the name itself."""
    return PREFIX + name if PREFIX + name in index() else name


def nearest(name: str, known: list[str]) -> str:
    """Return `, did you mean 'x'?` for the nearest name, ignoring the task prefix, or an empty string."""
    return errors.nearest(name.removeprefix(PREFIX), known)


def top_level() -> list[TaskEntry]:
    """Return the entries that are not sub-tasks of a group."""
    members = {member for entry in index().values() for member in entry.members}
    return [entry for entry in index().values() if entry.name not in members]


def nested_shares(leaves: Sequence[str]) -> list[float]:
    """Return the weights of leaf tasks in a nested average: data sets weigh alike, and so do the leaf tasks of one."""
    datasets = [index()[name].dataset if name in index() else name for name in leaves]
    number = Counter(datasets)
    return [1 / (len(number) * number[dataset]) for dataset in datasets]


def remarks(name: str, judge: str | None) -> list[str]:
    """List what to know before a run of a task and beside its score. `judge` is the model that judges, if one does."""
    entry = index().get(name)
    if entry is None:
        return []
    lines = [entry.note] if entry.note else []
    if entry.judge and judge and judge != entry.judge:
        lines.append(f"a variant: judged by {judge}; scores of the reference are by {entry.judge}")
    return lines


def task_file(entry: TaskEntry) -> Path:
    """Return the YAML file of a task."""
    return tasks_folder() / entry.file


def build(folder: Path) -> dict[str, Any]:
    """Read every task file under `folder` and return the index."""
    from olmes_suite.lm_eval_api import load_yaml

    tasks: dict[str, Any] = {}
    for path in sorted([*folder.rglob(f"{PREFIX}*.yaml"), *folder.rglob(f"{LATER}*.yaml")]):
        config = load_yaml(path, resolve_func=False)
        metadata = config["metadata"]
        entry: dict[str, Any] = {
            "file": path.relative_to(folder).as_posix(),
            "primary": metadata["primary"],
            "version": metadata["version"],
        }
        entry |= {key: metadata[key] for key in ("note", "judge", "differs") if key in metadata}
        if "group" in config:
            entry |= {"members": config["task"], "aggregate": metadata["aggregate"]}
        else:
            entry |= {
                "output": config["output_type"],
                "shots": metadata.get("shots", config.get("num_fewshot", 0)),
                "dataset": config["dataset_path"],
                "config": config.get("dataset_name") or "default",
                "split": config["test_split"],
                **{key: config[key] for key in ("revision", "repeats") if key in config},
                **({"summary": True} if "summary" in config else {}),
            }
        tasks[config.get("group") or config["task"]] = entry
    return {"schema": 1, "tasks": tasks}


def main() -> None:
    """Rebuild the index file."""
    folder = tasks_folder()
    (folder / INDEX).write_text(
        json.dumps(build(folder), indent=0, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
