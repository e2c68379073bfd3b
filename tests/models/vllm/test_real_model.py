"""A real model gives the same greedy answers through hf, vLLM on the processor and lm_eval's command, in 32 bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, as_json, environment, olmes
from real_model import answers_of, gap_at, mirror_of_samples, real_model

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm makes an environment that has it")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

TASKS = ("tulu3_truthfulqa", "tulu3_popqa", "tulu3_gsm8k")
DOCUMENTS = int(os.environ.get("OLMES_TEST_DOCUMENTS", "17"))
TIE = 1e-3
"""Two tokens closer than this in log-probability are a tie: 32-bit sums in another order may turn it."""
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
VLLM = ["--model-args", "enforce_eager=true,gpu_memory_utilization=0.2"]
Answers = dict[str, dict[tuple[int, int], str | float]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_model(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_of_samples(tmp_path_factory.mktemp("mirror"), DOCUMENTS)


def by_olmes(backend: str, model: Path, mirror: Path, tmp: Path) -> tuple[dict[str, float], Answers]:
    names = [argument for task in TASKS for argument in ("--task", task)]
    more = VLLM if backend == "vllm" else ["--device", "cpu"]
    done = olmes(
        "eval", "--model", model, "--backend", backend, "--dtype", "float32", *names, *more, "--data-dir", mirror,
        "--runs", tmp / backend, "--json", tmp=tmp, **ON_CPU,
    )  # fmt: skip
    found = as_json(done)
    scores = {task: found["tasks"][task]["metrics"][found["tasks"][task]["primary"]]["value"] for task in TASKS}
    files = {task: (Path(found["path"]) / f"responses/{task}.jsonl").read_text().splitlines() for task in TASKS}
    return scores, {task: answers_of([json.loads(line) for line in lines]) for task, lines in files.items()}


def by_lm_eval(model: Path, mirror: Path, tmp: Path) -> tuple[dict[str, float], Answers]:
    command = [
        sys.executable, "-m", "lm_eval", "run", "--include_path", str(ROOT / "tasks"), "--tasks", ",".join(TASKS),
        "--model", "hf", "--model_args", f"pretrained={model},dtype=float32,add_bos_token=False", "--device", "cpu",
        "--batch_size", "8", "--apply_chat_template", "--fewshot_as_multiturn", "--log_samples",
        "--output_path", str(tmp / "lm_eval"),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(tmp, OLMES_DATA_DIR=str(mirror)), timeout=3600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = (tmp / "lm_eval").rglob("results_*.json")
    scores, answers = {}, {}
    for task in TASKS:
        (file,) = (tmp / "lm_eval").rglob(f"samples_{task}_*.jsonl")
        answers[task] = {}
        for sample in (json.loads(line) for line in file.open(encoding="utf-8")):
            for index, (got, *_) in enumerate(sample["resps"]):
                answers[task][sample["doc_id"], index] = got if isinstance(got, str) else float(got[0])
        found = json.loads(results.read_text())["results"][task]
        scores[task] = next(found[f"{name},none"] for name in ("mc2", "exact_match") if f"{name},none" in found)
    return scores, answers


def rendered(task: str, model: Path, mirror: Path, tmp: Path) -> dict[int, str]:
    done = olmes("prompts", "--task", task, "--model", model, "--data-dir", mirror, tmp=tmp)
    return {line["doc_id"]: line["rendered"] for line in map(json.loads, done.stdout.splitlines())}


def test_three_engines_give_the_same_greedy_answers(model: Path, mirror: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scores, base = by_olmes("hf", model, mirror, tmp_path)
    ties: list[str] = []
    network: Any = None
    for name, (other_scores, other) in {
        "vllm": by_olmes("vllm", model, mirror, tmp_path), "lm_eval": by_lm_eval(model, mirror, tmp_path),
    }.items():  # fmt: skip
        differing: set[str] = set()
        for task in TASKS:
            assert other[task].keys() == base[task].keys() and len({doc for doc, _ in base[task]}) == DOCUMENTS
            for place, mine in base[task].items():
                theirs = other[task][place]
                if not isinstance(mine, str):
                    assert theirs == pytest.approx(mine, abs=2e-3), (name, task, place)
                elif mine != theirs:
                    network = network or AutoModelForCausalLM.from_pretrained(model, dtype="float32")
                    prompt = rendered(task, model, mirror, tmp_path)[place[0]]
                    gap = gap_at(network, AutoTokenizer.from_pretrained(model), prompt, (mine, str(theirs)))
                    assert gap < TIE, (name, task, place, gap, mine, theirs)
                    ties.append(f"{name} {task} {place}: {gap:.1e}")
                    differing.add(task)
            if task not in differing:
                assert other_scores[task] == pytest.approx(scores[task], abs=1e-4), (name, task)
    print(f"answers that differ at a tie: {ties or 'none'}")
    assert len(ties) <= DOCUMENTS // 10, ties
