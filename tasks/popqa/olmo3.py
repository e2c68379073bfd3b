"""PopQA in the OLMo 3 regime (allenai/olmes `popqa::olmo3:adapt`): the fifteen examples in one user turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.scoring import module_beside


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn: examples and question, separated by blank lines."""
    task = module_beside(__file__, "task.py")
    shots = [f"Q: {pair['question']} A: {task.fewshot_target(pair)}" for pair in task.fewshot(None)]
    return "\n\n".join([*shots, task.doc_to_text(doc)])
