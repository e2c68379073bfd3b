"""The cost of a stage in arithmetic and GPU time, from the numbers of parameters and tokens alone."""

from __future__ import annotations

from dataclasses import dataclass

GPU = "H100"
PEAK = 989e12
"""FLOP/s of an H100 SXM in dense bfloat16 (NVIDIA's data sheet)."""
UTILISATION = 0.4
"""Share of the peak that training of dense models reaches as a rule."""
FORWARD, BACKWARD = 2.0, 4.0
"""FLOP per parameter and token (Kaplan et al. 2020, §2.1), attention over long texts not included."""


@dataclass(frozen=True, slots=True)
class Passes:
    """How often a token passes through the model."""

    learnt: float = 1.0
    """Forward passes with a backward one."""
    forward: float = 0.0
    """Forward passes alone: sampling, a reference, old log-probabilities."""
    recomputed: bool = True
    """Whether gradient checkpointing repeats the forward pass."""
    assumed: str = ""
    """What the number of tokens assumes."""

    @property
    def flop(self) -> float:
        """FLOP per parameter and token."""
        learnt = FORWARD + BACKWARD + (FORWARD if self.recomputed else 0.0)
        return learnt * self.learnt + FORWARD * self.forward


def estimate(parameters: float, tokens: float, passes: Passes) -> str:
    """Describe the arithmetic of `tokens` through `parameters`, and the time it takes on one GPU."""
    flop = parameters * tokens * passes.flop
    assumed = f"; {passes.assumed}" if passes.assumed else ""
    return (
        f"time: about {flop:.1e} FLOP ({passes.flop:g} per parameter and token, without attention), "
        f"{_hours(flop / (PEAK * UTILISATION) / 3600)} of one {GPU} at {UTILISATION:.0%} of {PEAK / 1e12:.0f} TFLOP/s"
        f"{assumed}"
    )


def _hours(hours: float) -> str:
    if hours < 0.1:
        return f"{3600 * hours:.3g} seconds"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.0f} days"
