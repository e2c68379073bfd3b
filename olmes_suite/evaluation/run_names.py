"""Names of runs: one made of the command, or the user's (`--name`), and what happens where a name is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from olmes_suite.errors import OlmesError, UsageError
from olmes_suite.evaluation.plan import Options, TaskPlan, identity_of, run_name
from olmes_suite.runs.schema import Manifest, is_finished, read_manifest

_ALLOWED = re.compile(r"[^\W_][\w .+=@-]{0,99}", re.ASCII)
_FILES = (".json", ".jsonl", ".lock", ".gz")


def check(options: Options, plans: Sequence[TaskPlan]) -> None:
    """Check the user's name before a model is loaded.

    Raises UsageError for one that cannot be a folder's, and for one that another run has, as far as its model and its
    tasks tell.
    """
    name = options.name
    if name is None:
        return
    if not _ALLOWED.fullmatch(name) or name.endswith((" ", ".", *_FILES)):
        raise UsageError(
            f"--name {name!r}: a name starts with a letter or digit and has letters, digits, spaces and . _ + = @ -, "
            "at most 100"
        )
    other = _recorded(options.runs / name)
    if other is None or options.again:
        return
    asked = [plan.name for plan in plans]
    if other.imported or [plan.task for plan in other.plan] != asked:
        raise _taken(options, other, "has other tasks" if not other.imported else "was imported")
    if (other.model.path or "") != options.model or (other.limit, other.seed) != (options.limit, options.seed):
        raise _taken(options, other, "has another model, limit or seed")


def _recorded(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder) if is_finished(folder) else None
    except OlmesError:
        return None


def _taken(options: Options, other: Manifest, why: str) -> UsageError:
    what = other.model.path or other.engine.backend or "another model"
    return UsageError(
        f"--name {options.name}: the run {options.runs / str(options.name)} ({what}) {why}; choose another name"
    )


def free_name(options: Options, plans: Sequence[TaskPlan], fingerprint: str) -> tuple[str, Path | None, str]:
    """Return the run's name, the folder of the same run where it exists, and the name of its unfinished folder.

    The name is the first of name, name-2, … that is not taken. Raises UsageError where a run of other model, tasks or
    settings has the user's name.
    """
    name, identity = run_name(options, plans, fingerprint), identity_of(options, plans, fingerprint)
    previous, number, current = None, 1, name
    while (options.runs / current).exists():
        if options.name is None:
            previous = options.runs / current
        else:
            other = _recorded(options.runs / current)
            if other is not None and other.identity == identity:
                previous = options.runs / current
            elif number == 1 and not options.again:
                if other is None:
                    raise UsageError(f"--name {name}: {options.runs / name} exists and is no run; choose another name")
                raise _taken(options, other, "has other settings or data")
        number += 1
        current = f"{name}-{number}"
    return current, previous, current if options.name is None else f"{current}-{identity[:8]}"
