"""How long the answers of OLMo 3's development suite take to score, beside the same scorers called one by one.

    python benchmarks/olmo3_scoring.py --data-dir D [--share 0.1] [--programs 0.02] [--task NAME]

The answers are as many as the suite has, 58,000, times `--share`: a thought of 8,000 characters, an answer of 1,500,
and the right or a wrong result in turn. Tasks whose data the mirror may lack are scored on sample documents, repeated.
Alpaca_eval is left out, because a judge scores it. The naive way is one process that reads the same texts, calls the
task's scorer once for each answer, and has no time limit. It has no start-up either, while ours starts processes and
loads each task again. Prints seconds by task, and what the whole task takes at this rate; ours is measured at a tenth
of the share too, so that start-up is not multiplied.
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


def measured(name: str, source: DataSource, share: float) -> tuple[int, float, float]:
    """Return the number of answers at this share, and the seconds of both ways."""
    made = leaves(name, source, share)
    number = sum(len(texts) for leaf in made for _, _, texts in leaf.rows)
    return number, ours(name, made, source), naive(made)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("OLMES_DATA_DIR"))
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--programs", type=float, default=0.02, help="the share of tasks whose answers are programs")
    parser.add_argument("--task", action="append")
    options = parser.parse_args()
    if options.data_dir is None:
        raise SystemExit("give --data-dir MIRROR, or set OLMES_DATA_DIR")
    text, programs = [0.0] * 4, [0.0] * 4
    print(f"{'task':<30}{'answers':>9}{'ours, s':>9}{'naive, s':>9}{'of the suite':>14}{'ours, s':>9}{'naive, s':>9}")
    for name in [entry.task for entry in suites.load("olmo3_dev").tasks if "alpaca" not in entry.task]:
        if options.task and name not in options.task:
            continue
        source = DataSource(sample=True) if name in DOCUMENTS else DataSource((Path(options.data_dir),))
        source.show_to_nltk()
        code = any(word in name for word in ("humaneval", "mbpp", "livecodebench"))
        share = options.programs if code else options.share
        few, start, _ = measured(name, source, share / 10)
        number, taken, alone = measured(name, source, share)
        each = max(0.0, taken - start) / max(1, number - few)  # beyond the start of processes and the loading of tasks
        whole = number / share
        row = [number, taken, alone, whole, taken + each * (whole - number), alone / share]
        total = programs if code else text
        for at, value in enumerate((row[0], *row[3:])):
            total[at] += value
        print(f"{name:<30}{number:>9}{taken:>9.1f}{alone:>9.1f}{whole:>14.0f}{row[4]:>9.1f}{row[5]:>9.1f}", flush=True)
    for label, total in (("text", text), ("programs", programs)):
        print(f"{label:<30}{total[0]:>9.0f}{'':>18}{total[1]:>14.0f}{total[2]:>9.1f}{total[3]:>9.1f}")


if __name__ == "__main__":
    main()
