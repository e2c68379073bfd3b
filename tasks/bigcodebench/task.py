"""BigCodeBench and its hard part, instruct, one greedy sample (allenai/olmes `bigcodebench::tulu`, `…_hard::tulu`).

The response is reduced to the code that the entry point needs, appended to the prompt's code ("calibrated"), and run
with the problem's unittest class: see `olmes_suite/sandbox/inside/unittests.py`. The reference runs it in a service.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from olmes_suite.errors import MissingData
from olmes_suite.records import Scored
from olmes_suite.sandbox.limits import Limits
from olmes_suite.sandbox.sanitize import sanitize
from olmes_suite.sandbox.scores import scored
from olmes_suite.scoring import sandboxed

PYTHON = "OLMES_BIGCODEBENCH_PYTHON"
_LIMITS = Limits(cpu=3.0, memory=16 * 2**30)
_PRELOAD = (
    "numpy", "pandas", "matplotlib.pyplot", "scipy.stats", "sklearn.linear_model", "sklearn.ensemble", "seaborn",
    "requests", "bs4", "PIL.Image", "nltk", "cv2", "statsmodels.api",
)  # fmt: skip


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the user turn."""
    return (
        "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
        f"{doc['instruct_prompt']}\n"
    )


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """Return None: programs are run, not compared."""


def environment(doc: Mapping[str, Any], sandbox: Any) -> Any:
    """Return the sandbox with BigCodeBench's libraries.

    Without the libraries it runs only sample documents that use the standard library, and raises MissingData for
    others.
    """
    if python := os.environ.get(PYTHON):
        return sandbox.under(python, _PRELOAD)
    if set(ast.literal_eval(doc["libs"])) <= sys.stdlib_module_names and str(doc["task_id"]).startswith("Sample/"):
        return sandbox
    raise MissingData(f"BigCodeBench's libraries: set ${PYTHON} to the Python of an environment that has them")


@sandboxed()
def score(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1, with 3 processor seconds for all tests of a document."""
    where = environment(doc, sandbox)
    programs = [sanitize(response, doc["entry_point"]) for response in responses]
    verdicts = [
        where.unittests(f"{doc['code_prompt']}\n    pass\n{program}", doc["test"], _LIMITS.cpu, _LIMITS)
        for program in programs
    ]
    return scored(verdicts, extracted=programs)


def gold(doc: Mapping[str, Any]) -> str:
    """Return the canonical solution as a response."""
    return f"{doc['code_prompt']}{doc['canonical_solution']}\n"


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a program that loads but returns None."""
    return f"def {doc['entry_point']}(*args, **kwargs):\n    return None\n"
