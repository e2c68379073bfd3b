"""Resuming: what may change between two starts of a stage, and what a checkpoint must hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from stop_after import StopAfter
from train_fixture import losses, make_recipe, need_trl, refused, sft_rows, weights, write_rows

need_trl()

from olmes_suite.errors import UsageError  # noqa: E402
from train_plugins.checkpoints import changes, saved_state  # noqa: E402
from train_plugins.running.train_stage import run  # noqa: E402
from train_plugins.stages import registry  # noqa: E402

SFT: dict[str, Any] = {"sft": {"loss": "sum"}}
GRPO: dict[str, Any] = {"rlvr": {"algorithm": "grpo"}}


def with_trainer(recipe: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    """The recipe with trainer arguments."""
    return {**recipe, "trainer": trainer}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({**SFT, "batch_size": 8}, with_trainer({**SFT, "batch_size": 8}, per_device_train_batch_size=4)),
        (
            with_trainer(SFT, per_device_train_batch_size=8),
            with_trainer(SFT, per_device_train_batch_size=2, gradient_accumulation_steps=4),
        ),
        (
            with_trainer(GRPO, per_device_train_batch_size=8, steps_per_generation=2),
            with_trainer(
                GRPO, per_device_train_batch_size=4, steps_per_generation=4, gradient_accumulation_steps=2
            ),
        ),
    ],
)  # fmt: skip
def test_a_step_may_be_split_otherwise(before: dict[str, Any], now: dict[str, Any]) -> None:
    (note,) = changes.check(before, now, 1)
    assert note.startswith("note: a pass has") and "last bits" in note and "\n" not in note


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (
            {**SFT, "batch_size": 8},
            {**SFT, "batch_size": 16},
            "batch_size was 8 and is now 16; a step would have 16 rows",
        ),
        (SFT, with_trainer(SFT, per_device_train_batch_size=4), "a step would have 4 rows, not 8"),
        (
            with_trainer({**GRPO, "batch_size": 8}, steps_per_generation=2),
            with_trainer({**GRPO, "batch_size": 8}, steps_per_generation=2, per_device_train_batch_size=4),
            "a rollout would have 8 rows, not 16",
        ),
        (
            {"rlvr": {"algorithm": "grpo", "asynchronous": True}, "batch_size": 8},
            with_trainer(
                {"rlvr": {"algorithm": "grpo", "asynchronous": True}, "batch_size": 8}, per_device_train_batch_size=4
            ),
            "asynchronous",
        ),
        (SFT, with_trainer(SFT, max_steps=9), "schedule was made for the old number of steps"),
        (SFT, with_trainer(SFT, max_length=9), "earlier steps were trained with the old value"),
        (with_trainer(SFT, weight_decay=0.1), SFT, "saved state of optimiser"),
        (SFT, {**SFT, "seed": 2}, "seed was None and is now 2; earlier steps"),
    ],
)
def test_what_changes_the_training_is_refused_with_its_reason(
    before: dict[str, Any], now: dict[str, Any], said: str
) -> None:
    refused(lambda: changes.check(before, now, 1), said, UsageError)


@pytest.mark.parametrize(
    "trainer",
    [{"gradient_checkpointing": False}, {"report_to": "tensorboard"}, {"save_only_model": True},
     {"dataloader_num_workers": 2}, {"dataset_num_proc": 2}],
)  # fmt: skip
def test_what_only_runs_the_training_may_change(trainer: dict[str, Any]) -> None:
    assert changes.check(SFT, with_trainer(SFT, **trainer), 1) == []


def test_servers_and_workers_may_change() -> None:
    now = {"rlvr": {"algorithm": "grpo", "workers": 9, "server": "http://elsewhere"}}
    assert changes.check(GRPO, now, 1) == []


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A folder with a stage stopped after its fourth step of six, and `whole`, one that was not; read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pluggy.PluginManager.load_setuptools_entrypoints", lambda *_: 0)
        folder = tmp_path_factory.mktemp("stopped")
        patch.setenv("OLMES_CACHE", str(folder / "cache"))
        shutil.copytree(tiny_checkpoint, folder / "tiny")
        rows = write_rows(folder / "rows.jsonl", sft_rows(24))
        settings = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "save_steps": 2}
        for name, plugins in (("whole", []), ("out", [StopAfter(4)])):
            wanted = make_recipe("sft", folder, rows, trainer=settings, batch_size=8, output=str(folder / name))
            try:
                run(registry.find("sft"), wanted, False, plugins)
            except KeyboardInterrupt:
                assert name == "out"
    return folder


@pytest.fixture
def broken(stopped: Path, train_folder: Path) -> Path:
    """A copy of the stopped stage."""
    shutil.copytree(stopped / "out", train_folder / "out")
    shutil.copy(stopped / "rows.jsonl", train_folder)
    return train_folder


def resumed(folder: Path, stopped: Path, rows: Path | None = None, **trainer: Any) -> Path:
    """Resume the stage in `folder`."""
    settings = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "save_steps": 2, **trainer}
    wanted = make_recipe(
        "sft", folder, rows or stopped / "rows.jsonl", trainer=settings, batch_size=8, model=str(stopped / "tiny")
    )
    return run(registry.find("sft"), wanted, True, [])


@pytest.mark.long
def test_a_stage_resumes_with_less_memory_from_data_that_were_moved(
    broken: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = (broken / "rows.jsonl").rename(broken / "moved.jsonl")
    other_rows = write_rows(broken / "other.jsonl", sft_rows(24, seed=1))
    refused(lambda: resumed(broken, stopped, other_rows), "24 rows .SHA-256 .* has 24 rows", UsageError)
    out = resumed(broken, stopped, moved, per_device_train_batch_size=4)
    said = capsys.readouterr().err
    assert "note: a pass has 4 rows, 8 before" in said
    assert f"note: {moved} has the rows of {stopped / 'rows.jsonl'} (compared by their SHA-256)" in said
    one, other = weights(stopped / "whole"), weights(out)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-4
    assert losses(out) == pytest.approx(losses(stopped / "whole"), rel=1e-4)
    again = Path(shutil.copy(moved, broken / "again.jsonl"))  # the stage is finished by now
    assert resumed(broken, stopped, again) == out
    said = capsys.readouterr().err
    assert f"note: {again} has the rows of {moved}" in said and "already finished" in said
    refused(lambda: resumed(broken, stopped, other_rows), "24 rows .SHA-256 .* has 24 rows", UsageError)


@pytest.mark.long
@pytest.mark.parametrize("damage", ["missing", "truncated"])
@pytest.mark.parametrize(
    "name", ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"]
)
def test_a_damaged_checkpoint_is_refused_by_the_name_of_the_file(
    broken: Path, stopped: Path, name: str, damage: str
) -> None:
    file = broken / "out/checkpoint-4" / name
    content = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    what = "is missing" if damage == "missing" else "is damaged"
    said = rf"--resume: .*checkpoint-4/{name} {what}.*; remove .*checkpoint-4 to resume from checkpoint-2"
    refused(lambda: resumed(broken, stopped), said, UsageError)
    assert not (broken / "out/config.json").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optimizer.pt", "checkpoint-4 is damaged .KeyError"),
        ("scheduler.pt", "checkpoint-4 is damaged .KeyError"),
        ("rng_state.pth", "checkpoint-4 is damaged .KeyError"),
        ("trainer_state.json", "trainer_state.json is damaged .it has no 'global_step'"),
        ("config.json", "config.json is damaged .it has no 'model_type'"),
    ],
)
def test_a_file_of_other_content_is_refused(broken: Path, stopped: Path, name: str, said: str) -> None:
    import torch

    file = broken / "out/checkpoint-4" / name
    if file.suffix == ".json":
        file.write_text('{"global_step": "two"}')
    else:
        torch.save({"other": 1}, file)
    refused(lambda: resumed(broken, stopped), f"--resume: .*{said}.*; .*another --output", UsageError)


@pytest.mark.long
def test_a_checkpoint_is_not_advised_that_cannot_be_resumed_either(broken: Path, stopped: Path) -> None:
    for checkpoint in (broken / "out").glob("checkpoint-*"):
        (checkpoint / "optimizer.pt").unlink()
    refused(lambda: resumed(broken, stopped), "optimizer.pt is missing; start again with another --output", UsageError)


@pytest.mark.long
def test_a_stage_that_cannot_be_resumed_says_so(train_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_rows(train_folder / "rows.jsonl", sft_rows(8))
    wanted = make_recipe("sft", train_folder, rows, trainer={"save_only_model": True, "save_steps": 1, "max_steps": 2})
    with pytest.raises(KeyboardInterrupt):
        run(registry.find("sft"), wanted, False, [StopAfter(1)])
    assert "note: this stage cannot be resumed: trainer.save_only_model" in capsys.readouterr().err
    refused(
        lambda: run(registry.find("sft"), wanted, True, []),
        r"--resume: .*checkpoint-1/(rng_state.pth|optimizer.pt) is missing.*; start again with another --output",
        UsageError,
    )


def test_every_file_of_sharded_weights_is_expected(tmp_path: Path) -> None:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / saved_state.INDEX).write_text(json.dumps({"weight_map": names}))
    assert [file.name for file in saved_state._weights(tmp_path)] == [saved_state.INDEX, *names.values()]


def test_a_synchronised_reference_is_not_in_checkpoints(tmp_path: Path) -> None:
    refused(lambda: saved_state.check(tmp_path, 1, {"trainer": {"sync_ref_model": True}}), "sync_ref_model", UsageError)
    assert saved_state.notes({"sync_ref_model": True}) and not saved_state.notes({"save_strategy": "steps"})
