"""Runs made of imported scores, for the tests of compare and gate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Scores = dict[str, Iterable[float]]
Cli = Callable[..., tuple[int, str, str]]
"""Runs a command in this process; returns status, output and errors."""


def write_scores(path: Path, tasks: Scores, clusters: dict[str, list[int]] | None = None, start: int = 0) -> Path:
    """A scores file for `olmes import scores`."""
    with path.open("w", encoding="utf-8") as handle:
        for task, scores in tasks.items():
            for number, score in enumerate(scores):
                line: dict[str, Any] = {"task": task, "doc_id": start + number, "score": float(score)}
                if clusters and task in clusters:
                    line["cluster"] = clusters[task][number]
                handle.write(json.dumps(line) + "\n")
    return path


def imported(cli: Cli, name: str, tasks: Scores, **more: Any) -> None:
    """A run of the given scores in ./runs."""
    file = write_scores(Path(f"{name}.jsonl"), tasks, **more)
    status, _, err = cli("import", "scores", file, "--name", name)
    assert status == 0, err


def table(wins: int, losses: int, n: int) -> tuple[list[float], list[float]]:
    """Scores of two runs with so many documents improved, worsened of n."""
    before = [0.0] * wins + [1.0] * losses + [1.0] * (n - wins - losses)
    after = [1.0] * wins + [0.0] * losses + [1.0] * (n - wins - losses)
    return before, after


def two_runs(cli: Cli, **tasks: tuple[int, int, int]) -> None:
    """Runs `a` and `b` with (wins, losses, n) per task."""
    both = {task: table(*counts) for task, counts in tasks.items()}
    imported(cli, "a", {task: scores[0] for task, scores in both.items()})
    imported(cli, "b", {task: scores[1] for task, scores in both.items()})


def gated(cli: Cli, *args: str) -> tuple[int, dict[str, Any]]:
    """`olmes gate` of b against a, as JSON."""
    status, out, err = cli("gate", "--baseline", "a", "--candidate", "b", "--json", *args)
    assert out, err
    report: dict[str, Any] = json.loads(out)
    assert report["exit"] == status
    return status, report


def one_line(done: tuple[int, str, str], status: int) -> str:
    """The one line that a user's mistake gives."""
    code, _, err = done
    lines = err.strip().splitlines()
    assert code == status, err
    assert len(lines) == 1, err
    assert lines[0].startswith("olmes: ")
    return lines[0]
