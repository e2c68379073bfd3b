"""The gate after a stage, which compares its last checkpoint with the one that it started from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.comparison.gate_rules import rules
from olmes_suite.errors import StageRefused

if TYPE_CHECKING:
    from olmes_suite.comparison.gate import GateReport
    from train_plugins.checkpoints.evaluator import Result
    from train_plugins.config.evaluation import Evaluation

FILE = "gate.json"
"""File in the stage's output with the gate's report, as `olmes gate --json` prints it."""


def judge(
    gate_rules: str | Mapping[str, Any], evaluation: Evaluation, parent: str, output: Path, result: Result | None,
    *, told: Callable[[GateReport], None] | None = None,
) -> str:  # fmt: skip
    """Judge the stage in `output` by its last evaluation and return the verdict in a sentence.

    `told` receives the report. The parent is evaluated in the same way unless it has been already. Raises StageRefused
    unless the candidate passes; an inconclusive verdict passes only if the rules say `inconclusive: pass`.
    """
    from olmes_suite.comparison.gate import as_json, gate
    from olmes_suite.files import write_json
    from olmes_suite.runs.scores import read_run
    from train_plugins.checkpoints.evaluator import evaluate

    before = evaluate(evaluation, parent)
    for role, evaluated in (("checkpoint", result), ("parent", before)):
        if evaluated is None or evaluated.run is None:
            raise StageRefused(f"gate: the {role} has no scores ({evaluated.error if evaluated else 'not evaluated'})")
    assert result is not None and result.run is not None and before.run is not None
    report = gate(read_run(Path(before.run)), read_run(Path(result.run)), rules(gate_rules, "gate"))
    write_json(output / FILE, as_json(report))
    if told is not None:
        told(report)
    verdict = f"gate: {report.verdict}: {report.suite.sentence()}"
    if report.exit:
        raise StageRefused(f"{verdict} ({output / FILE})")
    return verdict


def passed(output: Path) -> bool:
    """Return whether the stage in `output` has passed its gate."""
    from olmes_suite.files import read_json

    file = output / FILE
    return file.is_file() and read_json(file).get("exit") == 0
