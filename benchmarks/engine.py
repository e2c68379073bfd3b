"""The hf backend beside lm-eval's own, on the same prompts, in one run: processor time, memory, and the answers.

    OLMES_DATA_DIR=MIRROR python benchmarks/engine.py [--repeat N] [--case gsm8k --case …] [--documents N] [--batch 8]

A Llama of 6 million parameters with random weights and its tokenizer are made on the spot; one thread, float32. Every
measurement is a process of its own; its processor seconds are those of answering, without start-up and loading.
Printed are medians, the ratio lm-eval / ours, peak memory (ours, ours with lm-eval's batch size in one more run, and
lm-eval's), and how many answers differ (log-likelihoods: by more than 1e-4). All cases take about 12 minutes on an idle
core with 3 pairs of `gsm8k`, most of whose time is lm-eval's, and 5 of the others; `--repeat` sets all.

Cases: `gsm8k` 8 fixed shots, 64 new tokens; `long` prompts of about 600 tokens without a common start, 64 new tokens;
`mmlu` 5 shots, 4 choices of one token; `endings` 5 shots, 4 choices of about 30 tokens (as in HellaSwag);
`samples` 10 samples of each prompt, ours alone, beside itself without reuse.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {"gsm8k": 256, "long": 32, "mmlu": 64, "endings": 64, "samples": 16}
"""Documents of each case. `gsm8k` needs many: ours pays for the shots once, so that with fewer the ratio is smaller."""
PAIRS = {"gsm8k": 3}
"""Pairs of measurements of the case that takes minutes; 5 of the others."""
NEW_TOKENS = 64
SUBJECT = "professional_accounting"
HEAD = (
    f"{'case':<10}{'documents':>10}{'ours cpu-s':>12}{'peer cpu-s':>12}{'ratio':>8}"
    f"{'MB':>7}{'equal':>7}{'peer':>7}  differ"
)


def rows(mirror: Path, place: str) -> list[dict]:
    """Documents of the mirror."""
    import pyarrow.parquet as pq

    return pq.read_table(mirror / place).to_pylist()


def make_model(folder: Path, texts: list[str]) -> None:
    """A Llama with random weights, wide enough that greedy answers do not hang on rounding."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>", clean_up_tokenization_spaces=False
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8000, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, initializer_range=0.1, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def shots(found: list[dict], number: int) -> str:
    """Solved problems, as a prompt starts with."""
    return "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in found[:number])


def questions(case: str, mirror: Path, number: int) -> list[dict]:
    """Return the requests as plain text: {"text"} or {"text", "continuation"}."""
    train, test = (rows(mirror, f"openai/gsm8k/main/{split}.parquet") for split in ("train", "test"))
    if case in ("gsm8k", "samples"):
        return [{"text": f"{shots(train, 8)}Question: {row['question']}\nAnswer:"} for row in test[:number]]
    if case == "long":
        return [{"text": shots(train[5 * i : 5 * i + 5], 5)[20 + i :][:2400]} for i in range(number)]
    if case == "mmlu":
        dev, asked = (rows(mirror, f"cais/mmlu/{SUBJECT}/{split}.parquet") for split in ("dev", "test"))
        start = "".join(f"{mc(row)} {'ABCD'[row['answer']]}\n\n" for row in dev[:5])
        return [{"text": start + mc(row), "continuation": f" {letter}"} for row in asked[:number] for letter in "ABCD"]
    start = "".join(f"{row['question']} {row['answer']}\n\n" for row in train[:5])[:1900]
    halves = [(row["question"][:90], row["question"][90:220]) for row in test]
    return [
        {"text": f"{start}\n\n{halves[i][0]}", "continuation": halves[i + place][1]}
        for i in range(number)
        for place in range(4)
    ]


def mc(row: dict) -> str:
    """A question with four choices."""
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True))
    return f"{row['question']}{listed}\nAnswer:"


def ours(folder: str, asked: list[dict], batch: int | None, samples: int, reuse: bool) -> list:
    """Answers of the hf backend; its own batch size without one."""
    from olmes_suite.models.hf.backend import HFBackend
    from olmes_suite.records import Request

    backend = HFBackend(folder, device="cpu", reuse=reuse, batch_size=batch)
    kinds = ["loglikelihood" if "continuation" in one else "generate" for one in asked]
    settings = {"max_tokens": NEW_TOKENS, "temperature": 0.8 if samples > 1 else 0.0, "stop": ("\n\nQuestion:",)}
    requests = [
        Request("bench", i, 0, kind, **one, **(settings if kind == "generate" else {}))
        for i, (one, kind) in enumerate(zip(asked, kinds, strict=True))
    ]
    start = time.process_time()
    found = sorted(backend.run(requests, [list(range(samples))] * len(requests)), key=lambda item: item[:2])
    print("cpu", time.process_time() - start)
    return [r.text if r.text is not None else r.loglikelihood for _, _, r in found]


def theirs(folder: str, asked: list[dict], batch: int) -> list:
    """Answers of lm-eval's hf model."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=batch)
    start = time.process_time()
    if "continuation" in asked[0]:
        made = [Instance("loglikelihood", {}, (o["text"], o["continuation"]), i) for i, o in enumerate(asked)]
        found = [value for value, _ in model.loglikelihood(made, disable_tqdm=True)]
    else:
        settings = {"until": ["\n\nQuestion:"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
        made = [Instance("generate_until", {}, (o["text"], dict(settings)), i) for i, o in enumerate(asked)]
        found = model.generate_until(made, disable_tqdm=True)
    print("cpu", time.process_time() - start)
    return found


def worker(kind: str, case: str, work: Path, batch: int) -> None:
    """One measurement: prints processor seconds, peak memory in MB, and the answers as JSON on the last line."""
    import torch

    torch.set_num_threads(1)
    asked = json.loads((work / f"{case}.json").read_text())
    samples = 10 if case == "samples" else 1
    folder = str(work / "model")
    if kind == "lm-eval":
        found = theirs(folder, asked, batch)
    else:
        found = ours(folder, asked, None if kind == "ours" else batch, samples, kind != "plain")
    print("mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(found))


def measure(kind: str, case: str, work: Path, batch: int) -> tuple[float, float, list]:
    """Processor seconds, peak memory in MB and answers of one process."""
    command = [sys.executable, __file__, "--worker", kind, "--case", case, "--work", str(work), "--batch", str(batch)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind}, {case}: {done.stderr[-2000:]}")
    lines = done.stdout.strip().splitlines()
    told = dict(line.split() for line in lines[:-1] if line.startswith(("cpu ", "mb ")))
    return float(told["cpu"]), float(told["mb"]), json.loads(lines[-1])


def differing(one: list, other: list) -> int:
    """Answers that are not the same."""
    if not one or isinstance(one[0], str):
        return sum(a != b for a, b in zip(one, other, strict=True))
    return sum(abs(a - b) > 1e-4 for a, b in zip(one, other, strict=True))


def compare(case: str, number: int, repeat: int, batch: int, work: Path, mirror: Path) -> dict:
    """Both engines in turn over one case."""
    (work / f"{case}.json").write_text(json.dumps(questions(case, mirror, number)))
    peer = "plain" if case == "samples" else "lm-eval"
    got: dict[str, list] = {"ours": [], peer: []}
    for _ in range(repeat):
        for kind in got:
            got[kind].append(measure(kind, case, work, batch))
    cpu = {kind: statistics.median(m[0] for m in found) for kind, found in got.items()}
    mb = {kind: statistics.median(m[1] for m in found) for kind, found in got.items()}
    _, equal, _ = measure("equal", case, work, batch)
    answers = {kind: found[0][2] for kind, found in got.items()}
    return {
        "case": case, "documents": number, "peer": peer, "ours": cpu["ours"], "theirs": cpu[peer],
        "ratio": cpu[peer] / cpu["ours"], "mb": mb["ours"], "equal": equal, "their_mb": mb[peer],
        "differ": differing(answers["ours"], answers[peer]), "answers": len(answers["ours"]),
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, help="pairs of each case")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--documents", type=int)
    parser.add_argument("--batch", type=int, default=8, help="lm-eval's; 8 was its best on two machines")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        worker(chosen.worker, chosen.case[0], chosen.work, chosen.batch)
        return
    mirror = Path(os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep)[0])
    if not (mirror / "openai/gsm8k/main/train.parquet").is_file():
        print("no openai/gsm8k in $OLMES_DATA_DIR: nothing is measured")
        return
    work = Path(tempfile.mkdtemp(prefix="olmes-engine-"))
    try:
        texts = [row["question"] + row["answer"] for row in rows(mirror, "openai/gsm8k/main/train.parquet")]
        make_model(work / "model", texts)
        print(HEAD)
        for case in chosen.case or CASES:
            pairs = chosen.repeat or PAIRS.get(case, 5)
            found = compare(case, chosen.documents or CASES[case], pairs, chosen.batch, work, mirror)
            figures = f"{found['ours']:>12.2f}{found['theirs']:>12.2f}{found['ratio']:>7.1f}x"
            memory = f"{found['mb']:>7.0f}{found['equal']:>7.0f}{found['their_mb']:>7.0f}"
            differ = f"{found['differ']} of {found['answers']} ({found['peer']})"
            print(f"{case:<10}{found['documents']:>10}{figures}{memory}  {differ}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
