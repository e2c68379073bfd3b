"""SFT as in OLMo 3: the token mean over packed documents, batches in tokens, and steps skipped as outliers."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from stop_after import StopAfter
from train_fixture import chat, losses, make_recipe, need_trl, refused, sft_rows, weights, write_rows

from olmes_suite.errors import UsageError
from train_plugins.running.dry_run import dry_run
from train_plugins.running.prepare_stage import trainer_arguments
from train_plugins.running.train_stage import run
from train_plugins.stages import registry
from train_plugins.trainers.spikes import FILE, SpikeKeys, Window

need_trl()


def arguments(folder: Path, trainer: dict[str, Any], **keys: Any) -> dict[str, Any]:
    data = write_rows(folder / "rows.jsonl", sft_rows(8))
    return trainer_arguments(registry.find("sft"), make_recipe("sft", folder, data, trainer=trainer, **keys))[1]


def test_a_batch_in_tokens_is_so_many_packed_sequences(train_folder: Path) -> None:
    packed = {"packing": True, "max_length": 128, "per_device_train_batch_size": 2}
    found = arguments(train_folder, packed, sft={"batch_tokens": 1024})
    assert found["gradient_accumulation_steps"] == 1024 // 128 // 2

    def bad(match: str, tokens: int = 1024, trainer: dict[str, Any] = packed, **keys: Any) -> None:
        refused(lambda: arguments(train_folder, trainer, sft={"batch_tokens": tokens}, **keys), match, UsageError)

    bad("1000 is not a multiple of trainer.max_length 128", 1000)
    bad("64 is not a multiple", 64)
    bad("batch_size 3 is not a multiple of the 2 rows", 3 * 128)
    bad("set trainer.packing: true", trainer={**packed, "packing": False})
    bad("give one of", batch_size=8)
    refused(lambda: arguments(train_folder, {}, sft={"skip_spikes": {"window": 19}}), "window must be at least 20")
    refused(lambda: arguments(train_folder, {}, sft={"skip_spikes": {"sigma": 0}}), "sigma must be above 0")
    bad("give one of", trainer={**packed, "gradient_accumulation_steps": 2})


@pytest.mark.long
def test_the_price_of_a_packed_stage_counts_its_tokens(train_folder: Path) -> None:
    data = write_rows(train_folder / "rows.jsonl", sft_rows(8))
    settings = {"packing": True, "max_length": 128, "per_device_train_batch_size": 1, "num_train_epochs": 2}
    wanted = make_recipe("sft", train_folder, data, trainer=settings, sft={"loss": "mean", "batch_tokens": 256})
    lines = dry_run(registry.find("sft"), wanted)
    assert "batch 2 (1 process × 1 row × 2 passes), 4 steps, about" in "\n".join(lines), lines


def test_a_step_is_an_outlier_by_its_distance_from_the_window() -> None:
    keys, window = SpikeKeys(window=40, sigma=6.0), Window()
    usual = [2.0 + 0.01 * math.sin(n) for n in range(60)]
    assert all(window.outlier(loss, 1.0, keys) is None for loss in usual)  # equal norms are none
    mean, spread = statistics.fmean(usual[-40:]), statistics.stdev(usual[-40:])
    assert window.outlier(mean + 5.9 * spread, 1.0, keys) is None
    before = list(window.losses)
    high = statistics.fmean(before) + 6.1 * statistics.stdev(before)
    why = window.outlier(high, 1.0, keys)
    assert why is not None and "loss" in why and "+6.1 standard deviations from the mean of 40 steps" in why
    assert (window.skipped, len(window.losses), window.losses[-1]) == (1, 40, high)
    assert "-" in str(window.outlier(-5.0, 1.0, keys))  # in either direction


def test_the_norm_counts_too_and_early_steps_never() -> None:
    keys, window = SpikeKeys(window=128, sigma=6.0), Window()
    assert window.outlier(1000.0, 1000.0, keys) is None
    for n in range(62):
        assert window.outlier(2.0, 1 + n % 2, keys) is None
    assert "gradient norm" in str(window.outlier(2.0, 1e6, keys))  # the 64th step: half of the window


def spiky(count: int = 30) -> list[dict[str, Any]]:
    """Equal rows, so that their losses are alike, but row 24."""
    rows = [{"messages": chat("say", "a a a a")} for _ in range(count)]
    rows[24] = {"messages": chat("say", "zz qq xx jj kk ww vv")}
    return rows


@pytest.mark.long
def test_an_outlying_step_leaves_the_weights_and_is_skipped_again_after_a_kill(
    train_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "save_steps": 2, "logging_steps": 1,
                "learning_rate": 1e-5, "train_sampling_strategy": "sequential"}  # fmt: skip

    def train(name: str, go_on: bool = False, plugins: Any = (), **own: Any) -> Path:
        data = write_rows(train_folder / "rows.jsonl", spiky())
        keys = {"trainer": settings, "sft": {"loss": "mean", **own}, "output": str(train_folder / name)}
        return run(registry.find("sft"), make_recipe("sft", train_folder, data, **keys), go_on, plugins)

    spikes = {"window": 20, "sigma": 8.0}
    whole = train("whole", skip_spikes=spikes)
    said = capsys.readouterr().err
    assert "step 25 is skipped: gradient norm" in said, said[-2500:]
    plain = train("plain")
    with pytest.raises(KeyboardInterrupt):
        train("broken", plugins=[StopAfter(22)], skip_spikes=spikes)
    kept = json.loads((train_folder / "broken/checkpoint-22" / FILE).read_text())
    assert len(kept["losses"]) == 20 and kept["skipped"] == 0
    broken = train("broken", True, skip_spikes=spikes)
    assert losses(broken) == losses(whole)
    one, other, third = weights(whole), weights(broken), weights(plain)
    assert all(bool((one[name] == other[name]).all()) for name in one)
    assert not all(bool((one[name] == third[name]).all()) for name in one)
    assert json.loads((whole / "trainer_state.json").read_text())["log_history"][-2]["skipped_steps"] == 1
