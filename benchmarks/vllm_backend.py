"""The vllm backend beside lm-eval's own, on the same prompts, turn by turn in one run: seconds and the answers.

    OLMES_DATA_DIR=MIRROR .venv-vllm/bin/python benchmarks/vllm_backend.py [--repeat 5] [--case tasks --case letters]

Needs vLLM: on a machine without GPU, the environment that `make test-vllm` makes. A Llama of 6 million parameters with
random weights is made on the spot (float32, eager, one thread). Each engine lives in a process of its own and is asked
in turn, its prefix cache emptied before; start-up and loading are not counted. Printed are medians of processor seconds
and of wall time, the ratio lm-eval / ours, and how many answers differ (log-likelihoods: by more than 1e-4).

Cases: `tasks` 10 generative tasks of 12 documents, each with its own shots, stop strings and token limit, given to
either backend in one call; `few` the same with 4 documents each; `letters` 5 shots, 4 choices of one token; `endings`
5 shots, 4 choices of about 30 tokens.

lm-eval leaves special tokens in its texts and drops a character of which the last bytes are missing; we do as `hf`.
(The file is not called vllm.py: Python would take it for the package.)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from engine import differing, make_model, questions, rows, shots

CASES = ("tasks", "few", "letters", "endings")
DOCUMENTS = {"tasks": 12, "few": 4, "letters": 64, "endings": 16}
STOPS = ("\n\n", "Question:", ".", "!", "answer", "####", "</s>", "\n\n\n", ";", "therefore")
ENGINE = {"enforce_eager": True, "gpu_memory_utilization": 0.2}
HEAD = f"{'case':<9}{'ours cpu-s':>12}{'peer cpu-s':>12}{'ratio':>8}{'ours s':>9}{'peer s':>9}{'ratio':>8}  differ"


def asked_in(case: str, mirror: Path) -> list[dict]:
    """Return the requests: {"text", "stop", "tokens"} or {"text", "continuation"}."""
    number = DOCUMENTS[case]
    if case not in ("tasks", "few"):
        return questions({"letters": "mmlu"}.get(case, case), mirror, number)
    train, test = (rows(mirror, f"openai/gsm8k/main/{split}.parquet") for split in ("train", "test"))
    found = []
    for task, stop in enumerate(STOPS):
        start = shots(train[10 * task :], task % 5)
        for row in test[number * task : number * (task + 1)]:
            text = f"{start}Question: {row['question']}\nAnswer:"
            found.append({"text": text, "stop": stop, "tokens": 24 + 8 * task})
    return found


def ours(folder: str) -> tuple:
    """What asks our backend, and what empties its cache."""
    from olmes_suite.models.vllm.backend import VLLMBackend
    from olmes_suite.records import Request

    backend = VLLMBackend(folder, model_args=ENGINE)

    def answer(asked: list[dict]) -> list:
        requests = [
            Request("bench", i, 0, "loglikelihood", text=one["text"], continuation=one["continuation"])
            if "continuation" in one
            else Request(
                "bench",
                i,
                0,
                "generate",
                text=one["text"],
                max_tokens=one["tokens"],
                temperature=0.0,
                stop=(one["stop"],),
            )
            for i, one in enumerate(asked)
        ]
        found = sorted(backend.run(requests, [[0]] * len(requests)), key=lambda item: item[:2])
        return [r.text if r.text is not None else r.loglikelihood for _, _, r in found]

    return answer, lambda: backend._started()._engine.reset_prefix_cache()


def theirs(folder: str) -> tuple:
    """What asks lm-eval's, and what empties its cache."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.vllm_causallms import VLLM

    model = VLLM(pretrained=folder, dtype="float32", max_model_len=4096, **ENGINE)

    def answer(asked: list[dict]) -> list:
        if "continuation" in asked[0]:
            made = [Instance("loglikelihood", {}, (o["text"], o["continuation"]), i) for i, o in enumerate(asked)]
            return [value for value, _ in model.loglikelihood(made, disable_tqdm=True)]
        made = [
            Instance(
                "generate_until",
                {},
                (o["text"], {"until": [o["stop"]], "max_gen_toks": o["tokens"], "do_sample": False}),
                i,
            )
            for i, o in enumerate(asked)
        ]
        return model.generate_until(made, disable_tqdm=True)

    return answer, model.model.reset_prefix_cache


def serve(kind: str, work: Path) -> None:
    """One engine: for each case that is named on standard input, a line of JSON on what it took."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM prints to standard output
    answer, forget = (ours if kind == "ours" else theirs)(str(work / "model"))
    answer([{"text": "Question:", "stop": "\n", "tokens": 8}])
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads((work / f"{line.strip()}.json").read_text())
        forget()
        wall, cpu = time.perf_counter(), time.process_time()
        found = answer(asked)
        took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "answers": found}
        print(json.dumps(took), file=out, flush=True)


def start(kind: str, work: Path) -> subprocess.Popen:
    """An engine's process, ready to be asked."""
    env = {
        **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    log = (work / f"{kind}.log").open("w")
    command = [sys.executable, __file__, "--serve", kind, "--work", str(work)]
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    if process.stdout.readline().strip() != "ready":
        raise SystemExit(f"{kind}: {(work / f'{kind}.log').read_text()[-2000:]}")
    return process


def ask(process: subprocess.Popen, case: str) -> dict:
    """One measurement."""
    process.stdin.write(f"{case}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{case}: an engine ended")
    return json.loads(line)


def compare(case: str, repeat: int, processes: dict[str, subprocess.Popen]) -> None:
    """Both engines in turn over one case; prints a line."""
    got: dict[str, list[dict]] = {kind: [] for kind in processes}
    for turn in range(repeat):
        for kind in list(processes)[:: 1 if turn % 2 else -1]:
            got[kind].append(ask(processes[kind], case))
    figures = ""
    for what in ("cpu", "wall"):
        mine, peer = (statistics.median(one[what] for one in got[kind]) for kind in ("ours", "lm-eval"))
        width = 12 if what == "cpu" else 9
        figures += f"{mine:>{width}.2f}{peer:>{width}.2f}{peer / mine:>7.2f}x"
    answers = [got[kind][0]["answers"] for kind in ("ours", "lm-eval")]
    print(f"{case:<9}{figures}  {differing(*answers)} of {len(answers[0])}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.work)
        return
    mirror = Path(os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep)[0])
    if find_spec("vllm") is None or not (mirror / "openai/gsm8k/main/train.parquet").is_file():
        print("no vLLM, or no openai/gsm8k in $OLMES_DATA_DIR: nothing is measured")
        return
    work = Path(tempfile.mkdtemp(prefix="olmes-vllm-"))
    processes: dict[str, subprocess.Popen] = {}
    try:
        texts = [row["question"] + row["answer"] for row in rows(mirror, "openai/gsm8k/main/train.parquet")]
        make_model(work / "model", texts)
        cases = chosen.case or CASES
        for case in cases:
            (work / f"{case}.json").write_text(json.dumps(asked_in(case, mirror)))
        for kind in ("ours", "lm-eval"):
            processes[kind] = start(kind, work)
        print(HEAD)
        for case in cases:
            compare(case, chosen.repeat, processes)
    finally:
        for process in processes.values():
            process.kill()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
