"""The gate after a stage: its last checkpoint against the one that it started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.comparison.gate_rules import rules
from olmes_suite.errors import StageRefused

if TYPE_CHECKING:
    from train_plugins.checkpoints.evaluator import Result
    from train_plugins.config.recipe import Evaluation

FILE = "gate.json"
"""In the stage's output: what the gate said, as `olmes gate --json` prints it."""


def judge(given: str | Mapping[str, Any], wanted: Evaluation, parent: str, output: Path, result: Result | None) -> str:
    """Judge the stage in `output` by its last evaluation; returns the verdict in a sentence.

    The parent is evaluated in the same way where it has not been. Raises StageRefused unless the candidate passes;
    what the documents cannot decide passes only where the rules say `inconclusive: pass`.
    """
    from olmes_suite.comparison.gate import as_json, gate
    from olmes_suite.files import write_json
    from olmes_suite.runs.scores import read_run
    from train_plugins.checkpoints.evaluator import evaluate

    before = evaluate(wanted, parent)
    for which, found in (("checkpoint", result), ("parent", before)):
        if found is None or found.run is None:
            raise StageRefused(f"gate: the {which} has no scores ({found.error if found else 'not evaluated'})")
    assert result is not None and result.run is not None and before.run is not None
    report = gate(read_run(Path(before.run)), read_run(Path(result.run)), rules(given, "gate"))
    write_json(output / FILE, as_json(report))
    said = f"gate: {report.verdict}: {report.suite.sentence()}"
    if report.exit:
        raise StageRefused(f"{said} ({output / FILE})")
    return said


def passed(output: Path) -> bool:
    """A gate has let the stage in `output` pass."""
    from olmes_suite.files import read_json

    file = output / FILE
    return file.is_file() and read_json(file).get("exit") == 0
