"""What a checkpoint says of where it comes from: it survives a changed recipe, and the card says the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from train_fixture import make_recipe, need_trl, refused, sft_rows, write_rows

from olmes_suite.errors import UsageError
from olmes_suite.hooks import Stage, StageData, TrainingSet, hookimpl
from olmes_suite.models.model_args import parse
from olmes_suite.runs.schema import Lineage
from train_plugins.checkpoints import eval_command, evaluator, lineage, resume
from train_plugins.config.evaluation import Evaluation
from train_plugins.running.train_stage import run
from train_plugins.stages import registry

need_trl()

LINEAGE = Lineage.from_json({
    "parent": "p", "root": "r", "stage": "rlvr", "recipe": {"output": "x"}, "rows": {"trained": 3}, "data": [],
    "decontam": None, "flags": {"tulu3_gsm8k": [1, 2]}, "ancestors": [{"checkpoint": "zz", "stage": "sft", "step": 9}],
    "seed": 1, "versions": {"trl": "1"}, "hardware": {"gpus": ["H100"], "processors": 2, "training_processes": 8},
})  # fmt: skip


WRITTEN = LINEAGE.but(step=5, tokens=10, seconds=1.0)


class Policy:
    """Stands in for decontamination: `warn` flags two rows, `filter` takes them out, `other` takes others out."""

    def __init__(self, kept: list[int] | None = None) -> None:
        self.kept = kept

    @hookimpl
    def olmes_before_stage(self, stage: Any, data: StageData) -> StageData:
        asked = stage.recipe["decontam"]["on_contamination"]
        if asked == "warn":
            return replace(data, decontam={"on_contamination": "warn"}, flags={"tulu3_gsm8k": [0, 1]})
        (one,) = data.sets
        kept = one.rows.select(self.kept or range(2, len(one.rows)))
        return replace(data, sets=(replace(one, rows=kept),), decontam={"on_contamination": "filter"})


class Kill:
    """Ends the stage after its first checkpoint."""

    @hookimpl
    def olmes_after_checkpoint(self, stage: Any, checkpoint: Path) -> None:
        raise KeyboardInterrupt


def begun(folder: Path, policy: str, go_on: bool = False, *plugins: Any, **decontam: Any) -> Path:
    """A stage of five steps of two rows, with a checkpoint after the second."""
    settings = {"per_device_train_batch_size": 2, "save_steps": 2, "max_steps": 5}
    rows = write_rows(folder / "rows.jsonl", sft_rows(12))
    wanted = make_recipe("sft", folder, rows, trainer=settings, decontam={"on_contamination": policy, **decontam})
    return run(registry.find("sft"), wanted, go_on, plugins)


@pytest.mark.long
def test_a_resumed_stage_cannot_shed_what_it_was_trained_on(train_folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        begun(train_folder, "warn", False, Policy(), Kill())
    said = r"on_contamination was 'warn' and is now 'filter'; earlier steps"
    refused(lambda: begun(train_folder, "filter", True, Policy()), said, UsageError)

    class Blind:
        """An installed plugin that finds nothing, as one asked for other suites would."""

        @hookimpl
        def olmes_before_stage(self, stage: Any, data: StageData) -> StageData:
            return replace(data, decontam={"on_contamination": "warn"})

    out = begun(train_folder, "warn", True, Blind(), suites=["dev"])
    assert lineage.read(out).flags == {"tulu3_gsm8k": (0, 1)}
    assert "| tulu3_gsm8k | 2 | 0, 1 |" in (out / "README.md").read_text()


@pytest.mark.long
def test_a_resumed_stage_has_the_rows_that_it_began_with(train_folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        begun(train_folder, "filter", False, Policy(), Kill())
    for kept in (list(range(1, 12)), [*range(3, 12), 2], [0, *range(3, 12)]):  # more, another order, another row
        refused(
            lambda kept=kept: begun(train_folder, "filter", True, Policy(kept)),
            "what decontamination leaves",
            UsageError,
        )
    assert lineage.read(begun(train_folder, "filter", True, Policy())).rows["trained"] == 10


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    from datasets import Dataset

    one = TrainingSet("a.jsonl", "0" * 64, Dataset.from_list([{"messages": []}] * 3))
    stage = Stage("sft", "p", tmp_path, False, {})
    described = lineage.describe(stage, StageData((one,)), rows={}, seed=0, processes=1)
    older = tuple(line.but(rows_sha256=None) for line in described.data)
    lineage.write(tmp_path, described.but(data=older), 1, 1, 1.0)
    resume.same_stage(tmp_path, {}, [one])
    less = replace(one, rows=one.rows.select([0, 1]))
    refused(lambda: resume.same_stage(tmp_path, {}, [less]), "what decontamination leaves", UsageError)


def test_the_card_says_what_the_lineage_says(tmp_path: Path) -> None:
    lineage.write(tmp_path, LINEAGE, 5, 10, 1.0)
    card = (tmp_path / "README.md").read_text()
    for said in ("| tulu3_gsm8k | 2 | 1, 2 |", "gpus: H100", "training_processes: 8", "| zz | sft | 9 |", "trl 1"):
        assert said in card


def test_an_evaluation_takes_the_settings_of_its_recipe() -> None:
    plain = Evaluation(tasks=("gsm8k",))
    assert eval_command.sampling_options(plain) == [] and eval_command.asked(plain) == "gsm8k limit=None"
    wanted = Evaluation(
        tasks=("gsm8k",), profile="olmo3", gen_kwargs={"max_tokens": 99, "stop": ["a,b"]}, samples=2,
        chat_template_args={"enable_thinking": False},
    )  # fmt: skip
    options = eval_command.sampling_options(wanted)
    assert eval_command.command(wanted, "m")[-len(options) :] == options
    assert eval_command.asked(wanted) != eval_command.asked(plain)
    parsed = dict(zip(options[::2], options[1::2], strict=True))
    assert parse(parsed["--gen-kwargs"]) == wanted.gen_kwargs
    assert parse(parsed["--chat-template-args"]) == {"enable_thinking": False}
    assert (parsed["--profile"], parsed["--samples"]) == ("olmo3", "2")


def test_what_a_stage_added_to_its_card_stays(tmp_path: Path) -> None:
    lineage.write(tmp_path, LINEAGE, 5, 10, 1.0)
    wanted = Evaluation(tasks=("gsm8k",))
    result = {"step": 5, "checkpoint": str(tmp_path), "run": "r", "tasks": {"tulu3_gsm8k": 0.5}, "average": 0.5}
    (tmp_path / evaluator.FILE).write_text(json.dumps({**result, "asked": eval_command.asked(wanted)}) + "\n")
    card = tmp_path / "README.md"
    card.write_text(card.read_text() + "\n## Reward, KL and dev\n\n| 5 |\n")
    for _ in range(2):  # a finished stage that is resumed writes its scores into the card
        evaluator.Evaluator(wanted, tmp_path).catch_up()
    said = card.read_text()
    assert said.count("## Reward, KL and dev\n\n| 5 |\n") == 1 and "| 5 | tulu3_gsm8k | 50.0 |" in said


def front_matter(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text().split("---\n")[1])


def test_the_front_matter_is_yaml_whatever_the_parent_is_called(tmp_path: Path) -> None:
    for parent in ("org/model", "/runs/a: b #1", "[x]", "yes"):
        lineage.write(tmp_path, LINEAGE.but(parent=parent), 5, 10, 1.0)
        assert front_matter(tmp_path / "README.md") == {
            "base_model": parent, "library_name": "transformers", "tags": ["olmes-suite", "rlvr"],
        }  # fmt: skip


def test_front_matter_that_others_added_stays(tmp_path: Path) -> None:
    lineage.write(tmp_path, LINEAGE, 5, 10, 1.0)
    card = tmp_path / "README.md"
    text = card.read_text().replace("tags:\n", "license: apache-2.0\nmine: {a: [1]}\ntags:\n- kept\n")
    card.write_text(text.replace("base_model: p", "base_model: other") + "\nadded\n")
    for _ in range(2):
        lineage.rewrite_card(tmp_path, WRITTEN, [])
        assert front_matter(card) == {
            "base_model": "p", "library_name": "transformers", "tags": ["olmes-suite", "rlvr", "kept"],
            "license": "apache-2.0", "mine": {"a": [1]},
        }  # fmt: skip
        assert card.read_text().endswith(f"{lineage.END}\n\nadded\n")


@pytest.mark.parametrize(
    "broken", ["---\na: [\n---\n", "---\n- a\n---\n", "---\n1: a\n---\n", "", "---\nmodel-index: {a: 1}\n---\n"]
)
def test_front_matter_that_cannot_be_read_is_written_anew(tmp_path: Path, broken: str | None) -> None:
    top = "" if broken is None else f"---\n{broken}\n---\n"
    (tmp_path / "README.md").write_text(f"{top}\n# mine\n{lineage.END}\nadded\n")
    lineage.rewrite_card(tmp_path, WRITTEN, [])
    assert front_matter(tmp_path / "README.md")["base_model"] == "p"
    assert (tmp_path / "README.md").read_text().endswith(f"{lineage.END}\nadded\n")
