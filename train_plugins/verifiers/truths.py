"""Ground truths as the verifiers read them that compare with the truth alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from train_plugins.verifiers import final_answer, mathematics

TRUTHS: Mapping[str, Callable[[Any], Any]] = {
    "gsm8k": final_answer.number_of,
    "gsm8k_benchmark": final_answer.text_with_digits,
    "math": mathematics.gold_of,
    "math_benchmark": mathematics.gold_of,
    "string": final_answer.accepted_of,
}
"""What each verifier calls on a truth; none of it needs SymPy or a process."""


def read_truth(name: str, truth: Any) -> None:
    """Raise Malformed for a truth that the verifier `name` cannot read."""
    TRUTHS[name](truth)
