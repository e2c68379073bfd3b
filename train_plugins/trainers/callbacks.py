"""Additions to every trainer: a check for finite gradients, progress, and checkpoints with their lineage."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from olmes_suite.errors import StageRefused
from olmes_suite.runs.schema import Lineage
from train_plugins.checkpoints import lineage, resume

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from transformers import TrainerControl, TrainerState, TrainingArguments


class Watched:
    """Mixin for a TRL trainer, placed before it: stops at the first gradient that is not finite, and writes no card."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the stage writes the card, with the lineage."""

    def _get_grad_norm(
        self, model: torch.nn.Module, grad_norm: float | torch.Tensor | None = None
    ) -> float | torch.Tensor | None:
        """Return the gradient's norm. Raises StageRefused if it is not finite.

        transformers calls this right before the optimiser's step, with the same norm on every process, so a loss that
        is not a number is noticed before it reaches the weights.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if norm is not None and not math.isfinite(float(norm)):
            raise self.not_a_number()
        return norm

    def not_a_number(self) -> StageRefused:
        """Return the error for numbers that are not finite, which names the last good checkpoint."""
        state, output = self.state, Path(self.args.output_dir)  # type: ignore[attr-defined]
        return StageRefused(
            f"the loss or its gradient is not a number at step {state.global_step + 1}; {lineage.last_good(output)}; "
            "lower trainer.learning_rate or check the data"
        )


class Checkpoints(TrainerCallback):
    """Writes lineage and card of each saved checkpoint, calls `saved`, and removes old checkpoints.

    The order makes a kill at any moment harmless: the lineage, which marks a whole checkpoint, is written after all
    processes have written their part (`together` waits for them), and old checkpoints are removed after that.
    transformers would rotate before the new checkpoint is whole. `held` returns checkpoints that must stay.
    """

    def __init__(
        self, described: Lineage, *, tokens: Callable[[], int], saved: Callable[[Path, TrainerState], None],
        before: Lineage, together: Callable[[], None] = lambda: None, limit: int | None = None,
        held: Callable[[], Collection[str]] = tuple, named: Callable[[], Sequence[str]] = tuple,
    ) -> None:  # fmt: skip
        """Take the lineage that all checkpoints share, and that of the checkpoint that the stage resumes from.

        `tokens` returns the number of tokens trained on since this start; `limit` is the number of checkpoints to keep,
        `named` returns what the watch over the training has named.
        """
        self.described = described
        self.tokens = tokens
        self.saved = saved
        self.before = before
        self.together = together
        self.limit = limit
        self.held = held
        self.named = named
        self.started = time.perf_counter()

    def write(self, folder: Path, step: int) -> Lineage:
        """Write lineage and card of a checkpoint; tokens and seconds include those of earlier starts."""
        tokens = (self.before.tokens or 0) + self.tokens()
        seconds = (self.before.seconds or 0.0) + time.perf_counter() - self.started
        described = self.described.but(watch=tuple(named)) if (named := self.named()) else self.described
        return lineage.write(folder, described, step, tokens, seconds)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Complete the checkpoint on the first process, after all processes have written their part."""
        self.together()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self.write(folder, state.global_step)
            self.saved(folder, state)
            resume.rotate(folder.parent, self.limit, state.best_model_checkpoint, self.held())


class Progress(TrainerCallback):
    """A progress bar on a terminal, plain lines elsewhere, both on stderr."""

    SHOWN = ("loss", "token_loss", "accuracy", "margin", "rewards/accuracies", "rewards/margins", "grad_norm")

    def __init__(self) -> None:
        self.bar: Bar | None = None
        self.task: TaskID | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the bar."""
        if state.is_world_process_zero and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self.bar = Bar(console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: Mapping[str, Any] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Show the logged metrics in one line."""
        metrics = [f"{name} {logs[name]:.5g}" for name in self.SHOWN if logs and name in logs]
        if not state.is_world_process_zero or not metrics:
            return
        line = f"step {state.global_step}/{state.max_steps}  {'  '.join(metrics)}"
        if self.bar is None or self.task is None:
            print(line, file=sys.stderr)
        else:
            self.bar.update(self.task, completed=state.global_step, description=line)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop the bar."""
        self.stop()

    def stop(self) -> None:
        """Stop the bar, if there is one."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
