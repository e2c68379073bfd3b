"""Execution of model-written code: jails, and graders whose verdicts the code cannot influence."""

from olmes_suite.sandbox.limits import Limits
from olmes_suite.sandbox.verdict import Ran, Verdict

__all__ = ["Limits", "Ran", "Verdict"]
