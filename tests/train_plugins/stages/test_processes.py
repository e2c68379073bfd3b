"""Two processes train as one: losses and gradients, data parallel and sharded; the launcher; its bad input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import olmes, one_line_error
from processes import FSDP, work
from rounding import gradient_limit
from train_fixture import need_trl, pair_rows, refused, sft_rows, write_rows

from olmes_suite.errors import UsageError
from train_plugins.checkpoints import lineage
from train_plugins.running import launch

need_trl()
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("processes")]
LIMIT = gradient_limit(8 * 62)  # four pairs, whose texts have at most 62 tokens


@pytest.fixture(scope="module")
def sft_and_pairs_folder(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The tiny checkpoint with conversations and preference pairs to train it on."""
    made = tmp_path_factory.mktemp("processes")
    shutil.copytree(tiny_checkpoint, made / "tiny")
    write_rows(made / "sft.jsonl", sft_rows(12))
    write_rows(made / "pairs.jsonl", pair_rows(12))
    return made


@pytest.fixture(scope="module")
def alone(sft_and_pairs_folder: Path) -> dict[str, Any]:
    return work("train_worker.py", sft_and_pairs_folder, 1)


@pytest.mark.parametrize(("words", "kind", "extra"), [((), "MULTI_CPU", {}), (("fsdp",), "FSDP", FSDP)])
def test_two_processes_are_one(
    sft_and_pairs_folder: Path, alone: dict[str, Any], words: tuple[str, ...], kind: str, extra: dict[str, str]
) -> None:
    found = work("train_worker.py", sft_and_pairs_folder, 2, *words, **extra)
    for stage, one in alone.items():
        both = found[stage]
        assert both["type"] == kind
        assert both["losses"] == pytest.approx(one["losses"], rel=LIMIT), stage
        for mine, other in zip(both["gradients"], one["gradients"], strict=True):
            assert mine.keys() == other.keys()
            largest = max(float(value.abs().max()) for value in other.values())
            assert largest > 0
            far = max(float((mine[name] - other[name]).abs().max()) for name in other) / largest
            assert far < LIMIT, (stage, far)


def sft_recipe(folder: Path, name: str, **trainer: Any) -> Path:
    file = folder / f"{name}.yaml"
    settings = {"per_device_train_batch_size": 2, "max_steps": 2, "learning_rate": 1e-3, "max_length": 256,
                "logging_steps": 1, **trainer}  # fmt: skip
    data = {"model": str(folder / "tiny"), "output": str(folder / name), "chat_template": "tulu", "batch_size": 4,
            "data": [{"path": str(folder / "sft.jsonl")}], "trainer": settings}  # fmt: skip
    file.write_text(yaml.safe_dump(data))
    return file


def test_the_launcher_trains_in_two_processes_and_tells_errors_in_one_line(sft_and_pairs_folder: Path) -> None:
    two = ("--launcher", "accelerate", "--num-processes", "2")
    done = olmes("train", "sft", sft_recipe(sft_and_pairs_folder, "both"), *two, tmp=sft_and_pairs_folder)
    assert done.returncode == 0 and done.stdout.strip() == str(sft_and_pairs_folder / "both"), done.stderr
    assert lineage.read(sft_and_pairs_folder / "both").hardware["training_processes"] == 2
    again = olmes("train", "sft", sft_recipe(sft_and_pairs_folder, "both"), *two, tmp=sft_and_pairs_folder)
    assert "is not empty" in one_line_error(again)


def test_launch_options_are_checked(tmp_path: Path) -> None:
    refused(lambda: launch.read(None, 2, None), "need --launcher", UsageError)
    refused(lambda: launch.read("mpi", 2, None), "known: accelerate", UsageError)
    refused(lambda: launch.read("accelerate", None, None), "needs --num-processes", UsageError)
    refused(lambda: launch.read("accelerate", 2, "fsdb"), "did you mean 'fsdp'.*shipped: fsdp, zero3", UsageError)
    found = launch.read("accelerate", 2, "zero3")
    assert found is not None and found.config is not None
    config = yaml.safe_load(found.config.read_text())
    assert config["deepspeed_config"]["zero_stage"] == 3
    config = yaml.safe_load((launch.SHIPPED / "fsdp.yaml").read_text())
    kept = {f"FSDP_{key.removeprefix('fsdp_').upper()}": str(value) for key, value in config["fsdp_config"].items()}
    for name in FSDP.keys() & kept.keys() - {"FSDP_CPU_RAM_EFFICIENT_LOADING"}:
        assert kept[name].lower() == FSDP[name].lower()
