"""Skipping of steps whose loss or gradient norm is an outlier, as in OLMo 3's SFT (OLMo-core, `SkipStepOptimizer`)."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError

if TYPE_CHECKING:
    import torch

FILE = "spikes.json"
"""File in a checkpoint with the window, so that a resumed stage skips the same steps."""
SHORTEST = 20
"""The first step that can be skipped, or the one at half of a longer window."""


@dataclass(frozen=True, slots=True)
class SpikeKeys:
    """Keys under `sft.skip_spikes`."""

    window: int = 128
    """Number of earlier steps that a step is compared with."""
    sigma: float = 6.0
    """Largest distance from their mean, in standard deviations."""


def check(keys: SpikeKeys | None) -> None:
    """Raise UsageError for a window or a distance with which nothing could be compared."""
    if keys is None:
        return
    if keys.window < SHORTEST:
        raise UsageError(f"sft.skip_spikes.window must be at least {SHORTEST}, not {keys.window}")
    if not (keys.sigma > 0 and math.isfinite(keys.sigma)):
        raise UsageError(f"sft.skip_spikes.sigma must be above 0, not {keys.sigma}")


@dataclass(slots=True)
class Window:
    """The losses and gradient norms of the last steps, skipped ones included, and the number of skipped steps."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    skipped: int = 0

    def outlier(self, loss: float, norm: float, keys: SpikeKeys) -> str | None:
        """Add a step and say why it is an outlier; None if it is not, or if there are too few steps to compare with.

        A value is an outlier if it is more than `sigma` standard deviations (with n − 1) above or below the mean of the
        window. While all values of a window are equal, none is an outlier.
        """
        enough = len(self.losses) + 1 >= max(SHORTEST, keys.window // 2)
        why = None
        for name, value, before in (("loss", loss, self.losses), ("gradient norm", norm, self.norms)):
            distance = deviations(value, before) if enough else 0.0
            if why is None and abs(distance) > keys.sigma:
                why = f"{name} {value:.4g} is {distance:+.1f} standard deviations from the mean of {len(before)} steps"
        for value, before in ((loss, self.losses), (norm, self.norms)):
            before.append(value)
            del before[: -keys.window]
        self.skipped += why is not None
        return why


def deviations(value: float, before: list[float]) -> float:
    """Return the distance of a value from the mean of others, in their standard deviations; 0 if they are all equal."""
    if len(before) < 2:
        return 0.0
    spread = statistics.stdev(before)
    return (value - statistics.fmean(before)) / spread if spread > 0 else 0.0


class SkipsSpikes:
    """Mixin for a trainer, placed before it: drops the gradients of outlying steps. `spikes` None: of none.

    Without gradients the optimiser changes neither weights nor moments; the schedule and the count of steps go on.
    """

    spikes: SpikeKeys | None
    window: Window
    step_loss: torch.Tensor | None = None

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Add the loss of a pass to that of the step."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if self.spikes is not None:
            self.step_loss = loss.detach().clone() if self.step_loss is None else self.step_loss + loss.detach()
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if self.spikes is None or self.step_loss is None:
            return norm
        loss = self.accelerator.reduce(self.step_loss, "mean")  # type: ignore[attr-defined]
        self.step_loss = None
        why = self.window.outlier(float(loss), float(norm), self.spikes)
        if why is not None:
            model.zero_grad(set_to_none=True)
            if self.is_world_process_zero():  # type: ignore[attr-defined]
                print(f"step {self.state.global_step + 1} is skipped: {why}", file=sys.stderr)  # type: ignore[attr-defined]
        self._metrics["train"]["skipped_steps"] = [self.window.skipped]  # type: ignore[attr-defined]
        return norm

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        if self.spikes is not None and self.is_world_process_zero():  # type: ignore[attr-defined]
            (Path(output_dir) / FILE).write_text(json.dumps(asdict(self.window)), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint and self.spikes is not None:
            self.window = read(Path(checkpoint) / FILE)


def read(file: Path) -> Window:
    """Read the window of a checkpoint. Raises UsageError for a damaged file."""
    try:
        found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Window([float(x) for x in found["losses"]], [float(x) for x in found["norms"]], int(found["skipped"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"--resume: {file} is missing or damaged; start again with another --output") from None
