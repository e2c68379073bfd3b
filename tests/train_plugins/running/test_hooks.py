"""A stage on a poisoned mix: stopped, filtered, or trained with the items flagged; and its leaderboard."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import write_gsm8k
from train_fixture import chat, make_recipe, need_trl, sft_rows, write_rows

from decontam import hooks as decontam_hooks
from leaderboard import hooks as board_hooks
from olmes_suite.errors import UsageError
from olmes_suite.hooks import Stage, StageRefused, manager
from train_plugins.running.prepare_stage import prepare, trainer_arguments
from train_plugins.running.train_stage import run
from train_plugins.stages import registry

need_trl()
pytestmark = pytest.mark.long
PLANTED = 3


@pytest.fixture
def planted_folder(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A tiny model, a mirror of 40 documents, a suite of one task, and a mix with three of the documents in it."""
    shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    write_gsm8k(tmp_path / "mirror")
    (tmp_path / "mine.yaml").write_text("suite: mine\ntasks: [gsm8k]\n")
    poison = [
        {
            "messages": chat(
                f"A shelf holds {n} books and {n + 3} more arrive. How many books are there?", f"{2 * n + 3}."
            )
        }
        for n in range(PLANTED)
    ]
    clean = sft_rows(13)
    write_rows(tmp_path / "rows.jsonl", [*clean[:5], *poison, *clean[5:]])
    return tmp_path


def recipe_of(folder: Path, answer: str, **more: float) -> Any:
    """An SFT recipe that asks for decontamination against the suite."""
    wanted = {"suites": [str(folder / "mine.yaml")], "data_dir": [str(folder / "mirror")], "on_contamination": answer}
    wanted |= more
    return make_recipe("sft", folder, folder / "rows.jsonl", decontam=wanted)


def prepared(folder: Path, answer: str, **more: float) -> Any:
    """The stage's data after the hooks."""
    stage = registry.find("sft")
    wanted, arguments = trainer_arguments(stage, recipe_of(folder, answer, **more))
    plugins = manager()
    if not plugins.is_registered(decontam_hooks):
        plugins.register(decontam_hooks)
    return prepare(stage, wanted, arguments, plugins)


def test_a_poisoned_mix_stops_the_stage(planted_folder: Path) -> None:
    with pytest.raises(StageRefused, match="tulu3_gsm8k"):
        prepared(planted_folder, "stop")
    assert (planted_folder / "out/decontam/report.json").is_file()
    assert not (planted_folder / "out/config.json").exists()


def test_findings_below_the_limit_are_named_and_a_limit_of_0_stops(
    planted_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = prepared(planted_folder, "stop", share=1)
    said = capsys.readouterr().err
    assert "items of tulu3_gsm8k are in its" in said and "no more than the limit of 100 %" in said
    assert ready.data.flags["tulu3_gsm8k"] and not ready.data.decontam["contaminated"]
    with pytest.raises(StageRefused, match="tulu3_gsm8k"):
        prepared(planted_folder, "stop", share=0)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_limit_that_is_no_share_is_refused(planted_folder: Path, share: float) -> None:
    with pytest.raises(UsageError, match=r"decontam\.share is a share from 0 to 1"):
        recipe_of(planted_folder, "stop", share=share)


def test_filter_takes_the_planted_rows_out_and_no_other(planted_folder: Path) -> None:
    ready = prepared(planted_folder, "filter")
    rows = ready.data.sets[0].rows
    assert len(rows) == 13
    assert not any("shelf" in str(row["messages"]) for row in rows)
    assert ready.data.flags == {}
    assert ready.data.decontam["removed"] == {str(planted_folder / "rows.jsonl"): PLANTED}


def test_warn_trains_and_flags_the_items_in_the_lineage(planted_folder: Path) -> None:
    plugins = () if manager().is_registered(decontam_hooks) else (decontam_hooks,)
    checkpoint = run(registry.find("sft"), recipe_of(planted_folder, "warn"), False, plugins)
    from train_plugins.checkpoints import lineage

    found = lineage.read(checkpoint)
    # Questions about a shelf share all their words but the numbers: at least the planted ones are flagged.
    assert set(range(PLANTED)) <= set(found.flags["tulu3_gsm8k"])
    assert found.decontam["contaminated"]


def test_the_page_is_written_after_a_stage_that_evaluates(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    stage = Stage("sft", "base", tmp_path / "out", False, {"eval": {"runs": str(runs)}})
    board_hooks.olmes_after_stage(stage, tmp_path / "out", {})
    assert "<table" in (runs / board_hooks.PAGE).read_text()
    board_hooks.olmes_after_stage(Stage("sft", "base", tmp_path, False, {}), tmp_path, {})
