"""Asynchronous GRPO with TRL's trainer: a server samples rollouts while the learner trains.

The training is off-policy: responses come from weights that are up to `max_staleness` steps old. It has no KL term.
The trainer needs a GPU, so only the reward and the configuration have tests that run without one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from train_plugins.rl import advantages
from train_plugins.rl.answers import Answers
from train_plugins.rl.rewards import Rewards
from train_plugins.rl.rollouts import response_text
from train_plugins.trainers import dropout
from train_plugins.trainers.callbacks import Watched
from train_plugins.verifiers import Verifiers

if TYPE_CHECKING:
    from transformers.trainer_utils import TrainOutput

    from train_plugins.rl.keys import RlvrKeys

try:  # the place since TRL 1.18
    from trl import AsyncGRPOConfig, AsyncGRPOTrainer
except ImportError:
    from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer

SHOWN = {
    "sample/staleness_mean": "rlvr/staleness",
    "sample/staleness_max": "rlvr/staleness_max",
    "sample/dropped_stale_total": "rlvr/stale_dropped_total",
    "reward": "rlvr/reward",
}
"""Metrics of TRL's asynchronous trainer and their names in this package's log; TRL reduces them by these endings."""

__all__ = ["AsyncGRPOConfig", "AsyncGrpo", "Reward"]


@dataclass
class Reward:
    """The reward function that TRL's rollout process receives; its first call starts the verifiers' workers there."""

    names: tuple[str, ...]
    keys: RlvrKeys
    ends: tuple[int, ...]
    """Token ids that end a text."""
    answers: Answers | None = None
    """What the verifiers read; None: responses as they are."""
    state: dict[str, Any] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {"names": self.names, "keys": self.keys, "ends": self.ends, "answers": self.answers, "state": {}}

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]],
        verifier: Sequence[str], truth: Sequence[str], extra: Sequence[str], row: Sequence[int], **_: Any,
    ) -> list[float | None]:  # fmt: skip
        """Return the scores of a group's responses, None for a skipped row. Called from several threads."""
        lock = self.state.setdefault("lock", threading.Lock())
        columns = zip(prompts, verifier, truth, extra, row, strict=True)
        rows = [dict(zip(("prompt", "verifier", "truth", "extra", "row"), one, strict=True)) for one in columns]
        texts = [response_text(answer) for answer in completions]
        with lock:
            if "verifiers" not in self.state:
                made = Verifiers(self.names, self.keys.workers, self.keys.timeout, judge=self.keys.judge)
                self.state["verifiers"] = made.__enter__()
            rewards = Rewards.of(self.keys)
            scored = rewards.score(self.state["verifiers"], rows, texts, completion_ids, self.answers)
        return [
            advantages.score(one.total, bool(ids) and ids[-1] in self.ends, self.keys.reward, self.keys.no_eos_penalty)
            for one, ids in zip(scored, completion_ids, strict=True)
        ]


class AsyncGrpo(Watched, AsyncGRPOTrainer):
    """Asynchronous GRPO on verified rewards."""

    def __init__(self, *args: Any, keys: RlvrKeys, **kwargs: Any) -> None:
        names = Rewards.of(keys).verifiers(set(kwargs["train_dataset"]["verifier"]))
        ends = (int(kwargs["processing_class"].eos_token_id),)
        answers = Answers(kwargs["processing_class"], keys, getattr(kwargs["args"], "chat_template_kwargs", None))
        super().__init__(*args, reward_funcs=Reward(names, keys, ends, answers), **kwargs)
        self._total_train_tokens = 0
        self.staleness = Staleness()
        dropout.switch_off(self.model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Also log the rewards, and how old the responses were, as metrics of this package."""
        metrics = self._metrics["train"]
        for name, shown in SHOWN.items():
            if metrics.get(name):
                metrics[shown] = list(metrics[name])
        self.staleness.add(metrics)
        super().log(logs, start_time)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, and say at the end how old the responses were."""
        done: TrainOutput = super().train(*args, **kwargs)
        if self.is_world_process_zero():
            print(self.staleness.summary(self.args.max_staleness), file=sys.stderr)
        return done


@dataclass
class Staleness:
    """The ages of the responses that were trained on, in updates of the server's weights, since this start."""

    count: int = 0
    total: float = 0.0
    oldest: float = 0.0
    dropped: int = 0
    """Number of responses that were older than the limit and were not trained on."""

    def add(self, metrics: Mapping[str, Sequence[Any]]) -> None:
        """Add the metrics that TRL has gathered since its last log."""
        ages = [float(age) for age in metrics.get("sample/staleness_mean", ())]
        self.count += len(ages)
        self.total += sum(ages)
        self.oldest = max([self.oldest, *ages])
        self.dropped += len(metrics.get("sample/dropped_stale_total", ()))

    def summary(self, limit: int) -> str:
        """Describe the ages in a sentence."""
        mean = self.total / self.count if self.count else 0.0
        return (
            f"staleness: {self.count} responses trained on, {mean:.2f} weight updates old on average and at most "
            f"{self.oldest:.0f} (trainer.max_staleness {limit}); {self.dropped} older ones dropped"
        )
