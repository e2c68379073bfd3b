"""Logs of other evaluation tools, read into runs: lm-eval, OLMES, Inspect, LightEval and Every Eval Ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from olmes_suite.runs.importers.log import Log

FORMATS = {
    "lm-eval": "lm_eval",
    "olmes": "olmes",
    "inspect": "inspect_log",
    "lighteval": "lighteval",
    "every-eval-ever": "every_eval_ever",
}
"""Names on the command line, and their modules here."""


def reader(name: str) -> Callable[[Path], Sequence[Log]]:
    """Return the function that reads the logs below a path. Raises KeyError for an unknown format."""
    read: Callable[[Path], Sequence[Log]] = import_module(f"olmes_suite.runs.importers.{FORMATS[name]}").read
    return read
