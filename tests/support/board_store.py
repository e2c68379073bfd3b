"""Run stores made up for tests and benchmarks of the leaderboard: the files of `olmes eval`, with invented scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from olmes_suite import stats
from olmes_suite.files import write_json
from olmes_suite.runs.scores import PARTS

DEV = (
    ("tulu3_mmlu", "knowledge"), ("tulu3_popqa", "knowledge"), ("tulu3_bbh", "reasoning"), ("tulu3_drop", "reasoning"),
    ("tulu3_math", "math"), ("tulu3_gsm8k", "math"), ("tulu3_humaneval", "code"),
    ("tulu3_ifeval", "instruction following"), ("tulu3_safety", "safety"),
)  # fmt: skip
UNSEEN = (
    ("tulu3_mmlu_pro", "knowledge"), ("tulu3_agieval", "reasoning"), ("tulu3_deepmind_math", "math"),
    ("tulu3_bigcodebench_hard", "code"), ("tulu3_ifeval_ood", "instruction following"),
)  # fmt: skip
WORDS = [
    "so",
    "we",
    "add",
    "the",
    "two",
    "numbers",
    "and",
    "find",
    "that",
    "there",
    "are",
    "seven",
    "apples",
    "left",
    "which",
    "gives",
    "an",
    "answer",
    "of",
    "about",
    "four",
]


@dataclass(frozen=True)
class Made:
    """One run to make up."""

    name: str
    model: str
    tasks: Sequence[tuple[str, str]]
    skill: float = 0.5
    """Share of documents that are right."""
    started: float = 1_760_000_000.0
    lineage: dict = field(default_factory=dict)
    suites: dict = field(default_factory=dict)
    """Suite to its tasks."""
    n: int = 60
    of: int | None = None
    limit: int | None = None
    responses: int = 0
    """Characters of each response; 0 for no file of responses."""
    flags: dict = field(default_factory=dict)
    """Flag to the share of documents that carry it."""
    dirty: float = 0.0
    """Share of documents in the training data."""
    prints: dict = field(default_factory=dict)
    """Parts of the fingerprint that are not as usual."""
    judge: dict | None = None
    mirrors: tuple = ()
    gains: dict = field(default_factory=dict)
    """Task to what is added to `skill`."""
    text: str | None = None
    """A response that stands for all."""
    files: bool = True
    """Write the scored documents."""
    thinks: int = 0
    """Mean tokens of a thought; 0 for a run that counts no tokens."""
    samples: int = 1
    """Responses of each document, with `thinks`."""


def make(runs: Path, made: Made, seed: int = 0) -> Path:
    """Write the folder of one run."""
    folder = runs / made.name
    entries = {task: _task(folder, made, task, seed) for task, _ in made.tasks}
    results = {"schema": "1.0", "run": made.name, "model": made.model.rstrip("/").rsplit("/", 1)[-1], "tasks": entries}
    results["suites"] = {suite: _suite(tasks, entries) for suite, tasks in made.suites.items()}
    write_json(folder / "results.json", results)
    write_json(folder / "manifest.json", _manifest(made, entries))
    return folder


def _manifest(made: Made, entries: dict) -> dict:
    return {
        "schema": "1.0", "run": made.name, "command": ["olmes", "eval", "--model", made.model, "--suite", "dev"],
        "folder": "/home/user", "model": {"path": made.model, "revision": None},
        "engine": {"backend": "hf", "chat": True, "fingerprint": f"model of {made.model}"},
        "suites": list(made.suites), "suite_tasks": {suite: list(tasks) for suite, tasks in made.suites.items()},
        "tasks": {task: entry["fingerprint"] for task, entry in entries.items()},
        "plan": [
            {"task": task, "primary": "exact_match", "aggregate": "mean", "skill": skill, "error": None}
            for task, skill in made.tasks
        ],
        "data": {task: {"path": f"owner/{task}", "revision": "0" * 40, "from": "mirror"} for task in entries},
        "limit": made.limit, "seed": 1234, "sample": False, "mirrors": list(made.mirrors),
        "judge": made.judge, "lineage": made.lineage,
        "packages": {"olmes-suite": "0.1.0", "torch": "2.13.0"}, "git": {"commit": "f" * 40, "dirty": False},
        "hardware": {"platform": "Linux", "processors": 2}, "time": {"started": made.started, "seconds": 12.5},
        "tokens": {"prompt": 1000, "completion": 500},
    }  # fmt: skip


def _suite(tasks: Sequence[str], entries: dict) -> dict:
    found = [entries[task]["metrics"]["exact_match"] for task in tasks if task in entries]
    missing = [task for task in tasks if task not in entries]
    if missing:
        return {"value": None, "stderr": None, "ci95": None, "missing": missing}
    return {**stats.combine([stats.Estimate(e["value"], e["stderr"]) for e in found]).as_json(), "missing": []}


def _task(folder: Path, made: Made, task: str, seed: int) -> dict:
    shared = np.random.default_rng(abs(hash_of(task)))  # how hard a document is does not depend on the run
    own = np.random.default_rng([seed, abs(hash_of(task + made.name))])
    hard = shared.random(made.n)
    scores = (0.8 * hard + 0.2 * own.random(made.n) < made.skill + made.gains.get(task, 0.0)).astype(float)
    flags = {flag: own.random(made.n) < share for flag, share in made.flags.items()}
    dirty = shared.random(made.n) < made.dirty
    entry = {
        "n": made.n, "primary": "exact_match", "metrics": {"exact_match": stats.mean(scores.tolist()).as_json()},
        "clean": None, "flags": {flag: int(rows.sum()) for flag, rows in flags.items()},
        "fingerprint": {part: made.prints.get(part, f"{part} of {task}") for part in PARTS},
    }  # fmt: skip
    if made.of:
        entry["of"] = made.of
    if made.dirty:
        kept = scores[~dirty].tolist()
        entry["clean"] = {
            "n": len(kept),
            "flagged": int(dirty.sum()),
            "metrics": {"exact_match": stats.mean(kept).as_json()},
        }
    if made.thinks:
        entry |= _thought(made, scores, flags)
    if made.files:
        _documents(folder, made, task, scores, flags, dirty, own)
    return entry


def _thought(made: Made, scores, flags: dict) -> dict:
    """What the answers took: those that are flagged `length` are cut inside their thought."""
    cut = flags.get("length", np.zeros(made.n, bool))
    n, lost = made.n * made.samples, int(cut.sum()) * made.samples
    extra = {"samples": made.samples, "samples_sd": 0.0123} if made.samples > 1 else {}
    return extra | {
        "answers": {
            "n": n,
            "length": int(cut.sum()) * made.samples,
            "unclosed": int(cut.sum()) * made.samples,
            "empty": 0,
        },
        "tokens": {"thinking": float(made.thinks), "answer": 50.0},
        "completed": {"value": float(scores[~cut].mean()), "n": n - lost},
        "correct_per_million_tokens": 1e6 * float(scores.mean()) / (made.thinks + 50),
    }


def _documents(folder: Path, made: Made, task: str, scores, flags: dict, dirty, own) -> None:
    n = made.n
    table = {
        "task": [task] * n, "doc_id": list(range(n)), "cluster": [f"{task}:{i}" for i in range(n)], "score": scores,
        "exact_match": scores, "extracted": [str(i % 7 if score else 9) for i, score in enumerate(scores)],
        "reference": [str(i % 7) for i in range(n)],
        "flags": [[flag for flag, rows in flags.items() if rows[i]] for i in range(n)],
        "contaminated": dirty if made.dirty else pa.nulls(n, pa.bool_()),
    }  # fmt: skip
    if made.thinks:
        table |= {"thinking_tokens": [float(made.thinks)] * n, "answer_tokens": [50.0] * n}
    if made.samples > 1:
        table["sample_scores"] = [[float(s)] * made.samples for s in scores]
    (folder / "instances").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), folder / "instances" / f"{task}.parquet")
    if not made.responses and made.text is None:
        return
    (folder / "responses").mkdir(exist_ok=True)
    picks = own.integers(0, len(WORDS), (n, max(1, made.responses // 4)))
    with (folder / "responses" / f"{task}.jsonl").open("w", encoding="utf-8") as handle:
        for i in range(n):
            text = made.text if made.text is not None else " ".join([WORDS[k] for k in picks[i]])[: made.responses]
            for sample in range(made.samples):
                line = {
                    "key": "0" * 64,
                    "task": task,
                    "doc_id": i,
                    "index": 0,
                    "sample": sample,
                    "text": text,
                    "finish_reason": "stop",
                }
                if made.thinks:
                    line |= _thinking(made, text, "length" in flags and bool(flags["length"][i]))
                handle.write(json.dumps(line) + "\n")


def _thinking(made: Made, text: str, cut: bool) -> dict:
    """The fields of a response with a thought, which is cut at the limit or closed."""
    thought = f"First I read the question. {text}"
    tokens = {"completion_tokens": made.thinks + 50, "thinking_tokens": made.thinks}
    if cut:
        return {"thinking": thought, "text": "", "finish_reason": "length", "unclosed": True, **tokens}
    return {"thinking": thought, "raw": f"<think>{thought}</think>{text}", **tokens}


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    import zlib

    return zlib.crc32(text.encode())


DAY = 86_400.0
FAMILY = [
    ("llama-base", None, "", None, 0.30, {}),
    ("llama-sft", "llama-base", "sft", 7_300, 0.45, {}),
    ("llama-sft-math", "llama-base", "sft", 7_300, 0.44, {"tulu3_math": 0.15, "tulu3_gsm8k": 0.12}),
    ("llama-dpo", "llama-sft", "dpo", 2_120, 0.52, {"tulu3_ifeval": 0.08, "tulu3_safety": -0.2}),
    ("llama-rlvr-100", "llama-dpo", "rlvr", 100, 0.53, {"tulu3_ifeval": 0.14, "tulu3_gsm8k": 0.06}),
    ("llama-rlvr-200", "llama-dpo", "rlvr", 200, 0.54, {"tulu3_ifeval": 0.22, "tulu3_gsm8k": 0.1}),
    ("llama-rlvr-300", "llama-dpo", "rlvr", 300, 0.55, {"tulu3_ifeval": 0.28, "tulu3_gsm8k": 0.14}),
]
"""Model, parent, stage, step, skill, gains on single tasks."""
UNSEEN_SKIPPED = ("llama-rlvr-100", "llama-rlvr-200")


def family(runs: Path, n: int = 60, responses: int = 200) -> list[str]:
    """A base model, two SFT mixes, DPO, three steps of RLVR; dev for all, unseen for some. Returns the runs' names."""
    names = []
    for number, (model, parent, stage, step, skill, gains) in enumerate(FAMILY):
        lineage = about(parent, stage, step) if parent else {}
        common = {"model": f"ckpt/{model}", "skill": skill, "lineage": lineage, "n": n, "responses": responses}
        extra = {"flags": {"length": 0.1}} if stage == "dpo" else {"dirty": 0.2} if model == "llama-sft-math" else {}
        extra |= {"judge": {"classifier": {"model": "guard"}}, "gains": gains, "started": 1_760_000_000 + number * DAY}
        for suite, tasks in (("dev", DEV), ("unseen", UNSEEN)):
            if suite == "unseen" and model in UNSEEN_SKIPPED:
                continue
            listed = {suite: [task for task, _ in tasks]}
            made = Made(f"{model}-{suite}-{number:08x}", tasks=tasks, suites=listed, **common, **extra)
            names.append(make(runs, made).name)
    look = {"time": "2026-01-01T00:00:00Z", "lineage": "llama-base", "n": 5 * n, "command": "olmes eval"}
    look |= {"tasks": [t for t, _ in UNSEEN]}
    looks = [{**look, "run": name} for name in names if "-unseen-" in name]
    (runs / "unseen-ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in looks), encoding="utf-8")
    return names


def about(parent: str, stage: str, step: int | None) -> dict[str, Any]:
    """A lineage file's content."""
    return {
        "parent": f"ckpt/{parent}", "stage": stage, "step": step, "recipe": f"recipes/{stage}.yaml",
        "data": [{"path": f"data/{stage}.jsonl", "sha256": "ab" * 32}], "decontam": {"verdict": "clean"},
    }  # fmt: skip
