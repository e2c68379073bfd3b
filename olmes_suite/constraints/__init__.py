"""Constraints on a response that code can check: one function each, grouped by family, in two profiles.

`reference` reproduces the checkers of allenai/olmes (commit 5a51f50), their defects included, so that published scores
compare; `repaired` fixes the defects. `registry` holds all constraints, `verdicts` applies them to a document.
docs/ifeval_ood.md lists the defects.
"""

from olmes_suite.constraints.registry import CheckerError, constraint

__all__ = ["CheckerError", "constraint"]
