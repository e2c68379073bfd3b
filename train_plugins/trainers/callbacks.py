"""What every trainer is watched for, and what it tells: finite gradients, progress, checkpoints with their lineage."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from olmes_suite.errors import StageRefused
from olmes_suite.runs.schema import Lineage
from train_plugins.checkpoints import lineage, resume


class Watched:
    """Mixed in before a TRL trainer: stops at the first gradient that is not finite, writes no card of its own."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The stage writes the card, with the lineage."""

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient's norm; transformers asks for it right before the optimiser's step, the same on every process.

        A loss that is not a number shows here before it reaches the weights.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if norm is not None and not math.isfinite(float(norm)):
            raise self.not_a_number()
        return norm

    def not_a_number(self) -> StageRefused:
        """The error for numbers that are not finite, naming the checkpoint that is left."""
        state, output = self.state, Path(self.args.output_dir)  # type: ignore[attr-defined]
        return StageRefused(
            f"the loss or its gradient is not a number at step {state.global_step + 1}; {lineage.last_good(output)}; "
            "lower trainer.learning_rate or look at the data"
        )


class Checkpoints(TrainerCallback):
    """Gives each saved checkpoint its lineage and card, tells `saved`, and removes old checkpoints.

    The order is what makes a kill at any moment harmless: all processes have written their part (`together` waits for
    them) before the lineage says that the checkpoint is whole, and older ones go after that. transformers, left to
    itself, rotates before the new checkpoint is whole. `held` names those that must not go yet.
    """

    def __init__(
        self, described: Lineage, tokens: Callable[[], int], saved: Callable[[Path, Any], None],
        before: Lineage, together: Callable[[], None] = lambda: None, limit: int | None = None,
        held: Callable[[], Collection[str]] = tuple,
    ) -> None:  # fmt: skip
        self.described = described
        self.tokens = tokens
        self.saved = saved
        self.before = before
        self.together = together
        self.limit = limit
        self.held = held
        self.started = time.perf_counter()

    def write(self, folder: Path, step: int) -> Lineage:
        """Write lineage and card of a checkpoint; tokens and seconds include those before a resume."""
        tokens = (self.before.tokens or 0) + self.tokens()
        seconds = (self.before.seconds or 0.0) + time.perf_counter() - self.started
        return lineage.write(folder, self.described, step, tokens, seconds)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """On the first process only, when all have written."""
        self.together()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self.write(folder, state.global_step)
            self.saved(folder, state)
            resume.rotate(folder.parent, self.limit, state.best_model_checkpoint, self.held())


class Progress(TrainerCallback):
    """A bar on a terminal, plain lines elsewhere, both on standard error."""

    SHOWN = ("loss", "token_loss", "accuracy", "margin", "rewards/accuracies", "rewards/margins", "grad_norm")

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the bar."""
        if state.is_world_process_zero and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self.bar = Bar(console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """One line for what was logged."""
        said = [f"{name} {logs[name]:.5g}" for name in self.SHOWN if logs and name in logs]
        if not state.is_world_process_zero or not said:
            return
        line = f"step {state.global_step}/{state.max_steps}  {'  '.join(said)}"
        if self.bar is None:
            print(line, file=sys.stderr)
        else:
            self.bar.update(self.task, completed=state.global_step, description=line)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the bar."""
        self.stop()

    def stop(self) -> None:
        """Stop the bar, if there is one."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
