"""`eval: {engine: live}` with a real engine on the processor: answers, weights, the record, and the fallback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import olmes, write_gsm8k
from rlvr_fixture import make_models, make_rlvr, prompt_rows
from train_fixture import weights

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm makes an environment that has it")
pytestmark = pytest.mark.vllm

TASK = """
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import scorer


@scorer()
def score(doc, response):
    return Scored({"exact_match": float(doc["a"] in response)})


@scorer()
def rank(doc, values):
    return Scored({"exact_match": float(max(values) == values[0])})


def best(doc):
    return [0.0, -1.0, -1.0, -1.0]


def gold(doc):
    return doc["a"]


def corrupt(doc):
    return "no"
"""
YAML = """\
task: sums
class: !function olmes_suite.tasks.task.SuiteTask
dataset_path: mine/sums
hub: false
columns: {q: string, a: string}
test_split: test
output_type: generate_until
doc_to_text: '{{q}}='
doc_to_target: ''
generation_kwargs: {until: [], max_gen_toks: 8, temperature: 0.8, do_sample: true}
process_results: !function task.score
gold: !function task.gold
corrupt: !function task.corrupt
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0, primary: exact_match, shots: 0, texts: [q]}
"""


def write_task(folder: Path) -> Path:
    """Two tasks with short requests: sampled texts, and log-likelihoods."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    (folder / "task.py").write_text(TASK)
    (folder / "sums.yaml").write_text(YAML)
    ranked = YAML.replace("task: sums", "task: ranked").replace("generate_until", "multiple_choice")
    ranked = ranked.replace("doc_to_target: ''", "doc_to_target: 0\ndoc_to_choice: [hen, eggs, colour, the old clock]")
    kept = [line for line in ranked.splitlines() if not line.startswith("generation_kwargs")]
    (folder / "ranked.yaml").write_text(
        "\n".join(kept).replace("task.score", "task.rank").replace("task.gold", "task.best")
    )
    rows = [{"q": f"{n}+{n}", "a": str(2 * n)} for n in range(6)]
    (folder / "sample.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder.parent / "mirror/mine/sums/default/test.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return folder


def likelihoods(run: Path) -> dict[tuple[int, int], float]:
    """The log-likelihood of each choice of each document."""
    return {(one["doc_id"], one["index"]): one["loglikelihood"] for one in responses(run, "ranked")}


def responses(run: Path, task: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / f"responses/{task}.jsonl").read_text().splitlines()]
    return sorted(lines, key=lambda line: line["doc_id"])


def test_the_training_engine_answers_with_the_weights_of_the_step(tmp_path: Path) -> None:
    make_models(tmp_path, head_dim=32, max_length=1024)
    mirror = write_gsm8k(tmp_path / "mirror", 2)
    own = write_task(tmp_path / "mine")
    common = {
        "rlvr": {"rollouts": "vllm_colocate", "max_prompt_length": 100},
        "trainer": {"learning_rate": 5e-3, "lr_scheduler_type": "constant", "vllm_gpu_memory_utilization": 0.1,
                    "max_steps": 4, "save_steps": 2},
    }  # fmt: skip
    evaluation = {"tasks": ["sums", "ranked", "gsm8k"], "limit": 4, "every": 2, "engine": "live",
                  "data_dir": [str(mirror)], "include_path": [str(own)], "runs": str(tmp_path / "runs")}  # fmt: skip
    make_rlvr(tmp_path, "grpo", prompt_rows(24), **common)
    plain = olmes("train", "rlvr", tmp_path / "rlvr.yaml", "--output", tmp_path / "plain", tmp=tmp_path)
    assert plain.returncode == 0, plain.stderr
    make_rlvr(tmp_path, "grpo", prompt_rows(24), eval=evaluation, **common)
    done = olmes("train", "rlvr", tmp_path / "rlvr.yaml", tmp=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    one, other = weights(out), weights(tmp_path / "plain")
    assert all((one[name] == other[name]).all() for name in one), "an evaluation changes no training"

    results = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert [result["step"] for result in results] == [2, 4]
    assert [result["error"] for result in results] == [None, None]
    for result in results:
        manifest = json.loads((Path(result["run"]) / "manifest.json").read_text())
        engine = manifest["engine"]
        assert engine["backend"] == "live"
        assert engine["step"] == result["step"]
        assert engine["arguments"]["max_model_len"] == 112
        assert engine["from_folder"]["tasks"] == ["tulu3_gsm8k"], "8 shots exceed the engine's context"
        assert engine["from_folder"]["backend"] == "hf"

    alone = olmes(
        "eval", "--model", out / "checkpoint-2", "--backend", "hf", "--task", "ranked", "--limit", "4", "--data-dir",
        mirror, "--include-path", own, "--runs", tmp_path / "alone", "--json", tmp=tmp_path,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    first, last = (likelihoods(Path(result["run"])) for result in results)
    assert len(first) == 16
    wanted = likelihoods(Path(json.loads(alone.stdout)["path"]))
    assert first == pytest.approx(wanted, abs=1e-3), "as from the saved checkpoint"
    assert max(abs(last[key] - first[key]) for key in first) > 1e-2, "of other weights"
    assert any(line["text"] for line in responses(Path(results[0]["run"]), "sums"))


def test_weights_are_copied_once_a_step(tmp_path: Path) -> None:
    """Counted in a process of its own, by a launcher that wraps TRL's copy."""
    import subprocess

    from helpers import environment

    make_models(tmp_path, head_dim=32, max_length=1024)
    own = write_task(tmp_path / "mine")
    evaluation = {"tasks": ["sums"], "limit": 2, "every": 1, "engine": "live", "data_dir": [str(tmp_path / "mirror")],
                  "include_path": [str(own)], "runs": str(tmp_path / "runs")}  # fmt: skip
    make_rlvr(
        tmp_path, "grpo", prompt_rows(24), rlvr={"rollouts": "vllm_colocate", "max_prompt_length": 100},
        eval=evaluation, trainer={"vllm_gpu_memory_utilization": 0.1, "max_steps": 3, "save_steps": 1},
    )  # fmt: skip
    counting = tmp_path / "counting.py"
    counting.write_text(  # the command line, with copies counted
        "import sys\nfrom trl.generation.vllm_generation import VLLMGeneration\n"
        "copy, count = VLLMGeneration.sync_weights, [0]\n"
        "def counted(self):\n    count[0] += 1\n    print('copies', count[0], file=sys.stderr)\n    return copy(self)\n"
        "VLLMGeneration.sync_weights = counted\n"
        "from olmes_suite.cli.main import run\nsys.exit(run(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, str(counting), "train", "rlvr", str(tmp_path / "rlvr.yaml")],
        env=environment(tmp_path), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # before the rollouts of steps 1 to 3, of which 2 and 3 use the evaluations' copies, and for the last evaluation
    assert done.stderr.count("copies ") == 4, done.stderr
    results = [json.loads(line) for line in (tmp_path / "out/evaluations.jsonl").read_text().splitlines()]
    assert [result["error"] for result in results] == [None] * 3
