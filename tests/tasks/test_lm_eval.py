"""The task folder under lm-eval itself: the same requests, answers and scores as `olmes eval`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, as_json, environment, olmes
from models_fixture import make_tiny_model

from olmes_suite.tasks import index as registry

TASKS = ["tulu3_gsm8k", "tulu3_truthfulqa", "tulu3_popqa"]


@pytest.fixture(scope="module", params=[True, False], ids=["chat", "plain"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    folder = tmp_path_factory.mktemp("model")
    return make_tiny_model(folder, chat_template=request.param, seed=5, max_length=4096), request.param


def by_lm_eval(model: Path, chat: bool) -> dict[str, Any]:
    """lm-eval's own evaluator over our task folder.

    A rendered chat gets no BOS beside the template's own, as in the reference and in training; lm-eval is told so.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(ROOT / "tasks"), include_defaults=False)
    engine = HFLM(
        pretrained=str(model),
        dtype="float32",
        batch_size=2,
        device="cpu",
        max_length=4096,
        add_bos_token=False if chat else None,
    )
    found = simple_evaluate(
        engine, tasks=TASKS, task_manager=manager, bootstrap_iters=0, log_samples=True, apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )  # fmt: skip
    assert found is not None
    return found


@pytest.mark.long
def test_the_same_answers_and_scores(
    checkpoint: tuple[Path, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, chat = checkpoint
    monkeypatch.setenv("OLMES_DATA", "sample")
    theirs = by_lm_eval(model, chat)
    names = [argument for task in TASKS for argument in ("--task", task)]
    done = olmes(
        "eval",
        "--model",
        model,
        *names,
        "--data",
        "sample",
        "--runs",
        tmp_path / "runs",
        "--json",
        "--batch-size",
        "2",
        tmp=tmp_path,
    )
    ours = as_json(done)
    for task in TASKS:
        entry = ours["tasks"][task]
        score = entry["metrics"][entry["primary"]]["value"]
        assert score == pytest.approx(theirs["results"][task][f"{entry['primary']},none"], abs=1e-5), task
        lines = [json.loads(line) for line in (Path(ours["path"]) / f"responses/{task}.jsonl").open()]
        answers = {(line["doc_id"], line["index"]): line.get("text", line.get("loglikelihood")) for line in lines}
        for sample in theirs["samples"][task]:
            for index, got in enumerate(sample["resps"]):
                mine, other = answers[sample["doc_id"], index], got[0]
                if isinstance(mine, str):
                    assert mine == other, (task, sample["doc_id"])
                else:
                    assert mine == pytest.approx(float(other[0]), abs=1e-4), (task, sample["doc_id"], index)


@pytest.mark.slow
def test_the_lm_eval_command_finds_the_task_folder(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", seed=5, max_length=4096)
    command = [
        sys.executable, "-m", "lm_eval", "run", "--include_path", str(ROOT / "tasks"), "--tasks", "tulu3_gsm8k",
        "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--apply_chat_template",
        "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(tmp_path, OLMES_DATA="sample"), timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(results.read_text())["results"]["tulu3_gsm8k"]["exact_match,none"]
    ours = as_json(
        olmes(
            "eval",
            "--model",
            model,
            "--task",
            "gsm8k",
            "--data",
            "sample",
            "--runs",
            tmp_path / "runs",
            "--json",
            tmp=tmp_path,
        )
    )
    assert ours["tasks"]["tulu3_gsm8k"]["metrics"]["exact_match"]["value"] == theirs


def test_the_index_is_fresh() -> None:
    """`python -m olmes_suite.tasks.index` has been run since a task file changed."""
    written = json.loads((registry.tasks_folder() / registry.INDEX).read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(registry.build(registry.tasks_folder())))


def test_every_sub_task_exists_and_has_the_metric_of_its_group() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    for name, entry in registry.index().items():
        assert registry.task_file(entry).is_file()
        for member in entry.members:
            if registry.index()[member].primary != entry.primary:  # safety: each set has a primary of its own
                config = load_yaml(registry.task_file(registry.index()[member]), resolve_func=False)
                assert entry.primary in [metric["metric"] for metric in config["metric_list"]], name
