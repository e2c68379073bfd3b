"""TRL's asynchronous trainer in the places where its releases have it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from helpers import need

need("trl", "the extra `train` is not installed: pip install 'olmes-suite[train]'")


class Config:
    """A stand-in."""


class Trainer:
    """A stand-in."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        logs.update({name: values[-1] for name, values in self._metrics["train"].items() if values})
        self._metrics["train"].clear()


@pytest.mark.parametrize("place", ["trl", "trl.experimental.async_grpo"])
def test_the_trainer_is_found_in_either_place(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from train_plugins.rl import rollouts  # noqa: F401 - imports TRL before it is replaced

    stand_ins = {name: ModuleType(name) for name in ("trl", "trl.experimental", "trl.experimental.async_grpo")}
    for name, stand_in in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    vars(stand_ins[place]).update(AsyncGRPOConfig=Config, AsyncGRPOTrainer=Trainer)
    spec = importlib.util.find_spec("train_plugins.rl.async_grpo")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_plugins.rl.async_grpo", module)
    spec.loader.exec_module(module)
    assert module.AsyncGRPOConfig is Config
    assert issubclass(module.AsyncGrpo, Trainer)

    trainer = object.__new__(module.AsyncGrpo)
    trainer.staleness = module.Staleness()
    for ages, dropped in (([0.0, 2.0], [1.0]), ([1.0], [])):
        metrics = {"sample/staleness_mean": ages, "sample/staleness_max": ages, "sample/dropped_stale_total": dropped}
        trainer._metrics = {"train": dict(metrics)}
        logged: dict[str, float] = {}
        trainer.log(logged)
        assert (logged["rlvr/staleness"], logged["rlvr/staleness_max"]) == (ages[-1], ages[-1])
        assert ("rlvr/stale_dropped_total" in logged) == bool(dropped)
    assert trainer.staleness.summary(4) == (
        "staleness: 3 responses trained on, 1.00 weight updates old on average and at most 2 "
        "(trainer.max_staleness 4); 1 older ones dropped"
    )


def test_responses_older_than_the_limit_are_not_trained_on() -> None:
    """By TRL's own queue, which needs no GPU: what bounds the staleness, and the metrics that are shown."""
    import queue
    from collections import defaultdict
    from itertools import islice
    from types import SimpleNamespace

    from accelerate import PartialState

    source = pytest.importorskip("trl.experimental.async_grpo.async_grpo_trainer")
    waiting: queue.Queue[SimpleNamespace] = queue.Queue()
    for version in (1, 7, 8, 5, 9):
        waiting.put(
            SimpleNamespace(
                model_version=version, enqueued_at=None, input_ids=[version], completion_mask=[1], old_log_probs=[0.0],
                advantage=0.0, group_id=0, metrics={},
            )
        )  # fmt: skip
    metrics: dict[str, list[float]] = defaultdict(list)
    PartialState()  # accelerate's loggers need it
    rows = source.RolloutQueueDataset(waiting, lambda: 9, lambda _: None, 1.0, metrics, max_staleness=2)
    assert [row["input_ids"] for row in islice(rows, 3)] == [[7], [8], [9]]
    assert metrics["sample/staleness_max"] == [2.0, 1.0, 0.0]
    assert metrics["sample/dropped_stale_total"] == [1.0, 1.0]
