"""The verdict on a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["pass", "fail", "timeout", "error"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one program."""

    outcome: Outcome
    """pass: every test passed; fail: a test failed, or the program ended early; timeout: the program exceeded its time
    limit; error: the sandbox itself failed, so nothing is known about the program."""
    detail: str = ""
    """The failed assertion or the exception, shortened; for people, not for scoring."""
    cpu: float = 0.0
    """Processor seconds of the program."""
    wall: float = 0.0
    """Seconds from start to end."""

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.outcome == "pass"


@dataclass(frozen=True, slots=True)
class Ran:
    """The stdout of a program and its verdict: `pass` where it ended by itself with exit status 0."""

    stdout: str
    verdict: Verdict
