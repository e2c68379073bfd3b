"""Runs in the forms of other tools: lm-eval, Every Eval Ever, Inspect, the Hub, and tables."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from olmes_suite.runs.run import Run

FORMS = {
    "lm-eval": "lm_eval.write",
    "every-eval-ever": "every_eval_ever.write",
    "inspect": "inspect_log.write",
    "hub": "hub.write",
    "csv": "tables.csv",
    "markdown": "tables.markdown",
    "latex": "tables.latex",
}
"""Names on the command line, and their functions here."""


def exporter(form: str) -> Callable[[Run, Path], list[Path]]:
    """Return the function that writes a run below a path and returns the files. Raises KeyError for an unknown form."""
    module, _, function = FORMS[form].partition(".")
    write: Callable[[Run, Path], list[Path]] = getattr(
        import_module(f"olmes_suite.evaluation.exports.{module}"), function
    )
    return write
