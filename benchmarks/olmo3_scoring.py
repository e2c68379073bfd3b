"""How long the answers of OLMo 3's development suite take to score, beside the same scorers called one by one.

    python benchmarks/olmo3_scoring.py --data-dir D [--share 0.1] [--task NAME]

The answers are as many as the suite has, 58,000, times `--share`: a thought of 8,000 characters, an answer of 1,500,
and the right or a wrong result in turn. Tasks whose data the mirror may lack are scored on sample documents, repeated.
Alpaca_eval is left out, because a judge scores it. The naive way is one process that reads the same texts, calls the
task's scorer once for each answer, and has no time limit. Prints seconds by task and what the whole suite takes at this
rate.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.evaluation.rescore import score_responses
from olmes_suite.scoring.scorers import SandboxedScorer
from olmes_suite.scoring.tools import Tools
from olmes_suite.tasks import catalog, index, suites
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.task import ROW, SuiteTask

DOCUMENTS = {
    "olmo3_gpqa_boxed": 448,
    "olmo3_zebralogic": 1000,
    "olmo3_omega500": 500,
    "olmo3_livecodebench_no_think": 612,
}
"""Documents of the tasks whose data a mirror may lack."""
TEXT = (
    "we first note that the sum of both terms is larger than it seems so let x = 3 and check whether (a + b)^2 holds "
    "which gives $\\frac{1}{2}$ or perhaps 42. On the other hand the answer could be B, but then option C fails. Hence"
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """Documents of a leaf task with their answers."""

    name: str
    task: SuiteTask
    rows: Sequence[tuple[int, Mapping[str, Any], list[str]]]
    """(doc_id, document, answers)."""


def prose(rng: random.Random, characters: int) -> str:
    """Return text of about that length in lines of 15 words."""
    words = rng.choices(TEXT.split(), k=characters // 5)
    return "\n".join(" ".join(words[at : at + 15]) for at in range(0, len(words), 15))


def answers(task: SuiteTask, doc: Mapping[str, Any], number: int, rng: random.Random) -> list[str]:
    """Return answers of which every other one is right; no two are equal."""
    found = []
    for at in range(number):
        make: Callable[[Any], Any] | None = task.keys.gold if at % 2 == 0 else task.keys.corrupt
        result = str(make(doc) if make else "")
        found.append(f"<think>{prose(rng, 8000)}</think>\n\n{prose(rng, 1500)}\n\n{result}")
    return found


def leaves(name: str, source: DataSource, share: float) -> list[Leaf]:
    """Make the answers of a task: a share of its documents, with all samples of each."""
    rng, made = random.Random(name), []
    for leaf in catalog.find(name).leaves:
        task = load_task(index.task_file(index.index()[leaf]), source)
        docs, samples = list(task.task_docs), int(task.config.repeats or 1)
        wanted = max(1, round(share * (DOCUMENTS[name] if source.sample else len(docs))))
        if wanted <= len(docs):
            counts = dict.fromkeys(rng.sample(range(len(docs)), wanted), samples)
        else:
            counts = {at: samples * (wanted // len(docs)) for at in range(len(docs))}
        rows = [
            (int(docs[at].get(ROW, at)), docs[at], answers(task, docs[at], number, rng))
            for at, number in sorted(counts.items())
        ]
        made.append(Leaf(leaf, task, rows))
    return made


def ours(name: str, made: Sequence[Leaf], source: DataSource) -> float:
    """Score as `olmes score` does. Returns seconds."""
    group = catalog.find(name).members
    rows = [
        {**({"task": leaf.name} if group else {}), "doc_id": at, "responses": texts}
        for leaf in made
        for at, _, texts in leaf.rows
    ]
    start = time.monotonic()
    score_responses(name, rows, source)
    return time.monotonic() - start


def naive(made: Sequence[Leaf]) -> float:
    """Score one answer after the other in this process. Returns seconds."""
    start = time.monotonic()
    for leaf in made:
        scorer = leaf.task.scorer
        for _, doc, texts in leaf.rows:
            for text in texts:
                answer = text.split("</think>")[-1]
                if isinstance(scorer, SandboxedScorer):
                    scorer.document(doc, [answer], Tools().get("sandbox"))
                else:
                    scorer.one(doc, answer)
    return time.monotonic() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("OLMES_DATA_DIR"))
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--task", action="append")
    options = parser.parse_args()
    if options.data_dir is None:
        raise SystemExit("give --data-dir MIRROR, or set OLMES_DATA_DIR")
    total, seconds = 0, [0.0, 0.0]
    print(f"{'task':<32}{'answers':>9}{'ours, s':>10}{'naive, s':>10}")
    for name in [entry.task for entry in suites.load("olmo3_dev").tasks if "alpaca" not in entry.task]:
        if options.task and name not in options.task:
            continue
        source = DataSource(sample=True) if name in DOCUMENTS else DataSource((Path(options.data_dir),))
        source.show_to_nltk()
        made = leaves(name, source, options.share)
        number = sum(len(texts) for leaf in made for _, _, texts in leaf.rows)
        taken = ours(name, made, source), naive(made)
        total, seconds = total + number, [seconds[0] + taken[0], seconds[1] + taken[1]]
        print(f"{name:<32}{number:>9}{taken[0]:>10.1f}{taken[1]:>10.1f}", flush=True)
    print(f"{'all':<32}{total:>9}{seconds[0]:>10.1f}{seconds[1]:>10.1f}   ratio {seconds[1] / seconds[0]:.1f}")
    full = [60_000 / total * one for one in seconds]
    print(f"60,000 answers at this rate: {full[0]:.0f} s, naive {full[1]:.0f} s")


if __name__ == "__main__":
    main()
