"""The watch in a training: statistics of a rollout, and the callback that stops a stage after a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from olmes_suite.errors import StageRefused
from train_plugins.rl.watch import Alarm, Rollout, Watch, most_repeated

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from train_plugins.rl.keys import WatchKeys

__all__ = ["Stop", "Watch", "answer_hash", "statistics"]

UNCLOSED = -1
"""Stands for the answer of a response whose thought did not end."""


def answer_hash(answer: str | None) -> int:
    """Return a number for an answer, the same on all processes; `UNCLOSED` for None. White space around is ignored."""
    if answer is None:
        return UNCLOSED
    return int.from_bytes(hashlib.sha256(answer.strip().encode("utf-8", "surrogatepass")).digest()[:7])


def statistics(
    step: int, given: Sequence[Sequence[int]], facts: Sequence[Sequence[float]], *, flat: float | None, thinks: bool
) -> Rollout:
    """Return the statistics of a rollout of all processes.

    `given` has a response's row and hashed answer, `facts` its score, its verified fraction and whether it ended.
    """
    prompts, answers = [row for row, _ in given], [answer for _, answer in given]
    closed = [(row, answer) for row, answer in given if answer != UNCLOSED]
    share, best = most_repeated([row for row, _ in closed], [answer for _, answer in closed])
    right = [one[1] for one, answer in zip(facts, answers, strict=True) if answer == best and one[1] == one[1]]
    count = len(given)
    return Rollout(
        step=step,
        prompts=len(set(prompts)),
        responses=count,
        ended=sum(one[2] for one in facts) / count,
        flat=flat,
        unclosed=answers.count(UNCLOSED) / count if thinks else None,
        repeated=share * len(closed) / count if len(set(prompts)) > 1 else None,
        verified=sum(right) / len(right) if best is not None and right else None,
    )


class Stop(TrainerCallback):
    """Saves a checkpoint after the step in which an alarm was raised that stops the stage, and stops before the next.

    A stage that resumes goes on: an alarm that was raised before its checkpoint does not stop it again.
    """

    def __init__(self, watch: Callable[[], Watch], keys: WatchKeys) -> None:
        """`watch` returns the trainer's watch, which a resumed training replaces."""
        self.watch, self.keys = watch, keys
        self.known = 0
        """Number of alarms that were raised before this start."""

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop after a checkpoint. Raises StageRefused."""
        if state.global_step and (alarm := self._stopping()) is not None:
            raise StageRefused(
                f"stopped by rlvr.watch after step {state.global_step}: {alarm.note}; "
                f"checkpoint-{state.global_step} is kept, and --resume continues from it"
            )

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave out alarms that were raised before the checkpoint from which the training resumes."""
        self.known = len(self.watch().alarms)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint."""
        if self._stopping() is not None:
            control.should_save = True

    def _stopping(self) -> Alarm | None:
        new = self.watch().alarms[self.known :]
        return next((alarm for alarm in new if self.keys.stops(alarm.kind)), None)
