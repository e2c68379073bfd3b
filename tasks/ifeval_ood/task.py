"""IFEval-OOD's differences from IFBench: one constraint without a public checker, and golds that differ by profile.

`count:words_french` no longer has a public checker: the reference's task leaves its rows out and counts them, and the
repaired task scores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.constraints.registry import find
from olmes_suite.constraints.task import gold


def gold_repaired(doc: Mapping[str, Any]) -> str | None:
    """Return a response that follows the prompt under the repaired checkers, which may need a different one."""
    return doc.get("_pass_repaired") or gold(doc)


def without_checker(doc: Mapping[str, Any]) -> str | None:
    """Return the document's constraint without a public checker; the reference's task leaves such rows out."""
    return next((name for name in doc["instruction_id_list"] if find(name, "reference") is None), None)
