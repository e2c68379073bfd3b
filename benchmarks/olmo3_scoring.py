"""How long the answers of OLMo 3's development suite take to score, beside the same scorers called one by one.

    python benchmarks/olmo3_scoring.py --data-dir D [--share 0.1] [--naive 0.02] [--distinct] [--task NAME]

The answers are as many as the suite has, times a share: a thought of 8,000 characters, an answer of 1,500, and the
right or a wrong result in turn. 80 in 100 are texts, 20 programs, as in the suite. Programs are always scored all,
because few documents take most of the time; the programs of one document are equal if both are right, and scored once,
unless `--distinct` makes them differ by a comment. Tasks whose data the mirror may lack are scored on sample documents,
repeated. Alpaca_eval is left out, because a judge scores it. The naive way is one process that reads the same texts,
calls the task's scorer once for each answer, and has no time limit; of programs it scores the share `--naive`, and none
with 0. It has no start-up, while ours starts processes and loads each task again. Prints seconds by task, wall time and
processor time with that of the processes below, and what the whole task takes at this rate; texts are measured at a
tenth of the share too, so that start-up is not multiplied.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
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


def answers(task: SuiteTask, doc: Mapping[str, Any], number: int, rng: random.Random, distinct: bool) -> list[str]:
    """Return answers of which every other one is right; with `distinct` no two programs in them are equal."""
    found = []
    for at in range(number):
        make: Callable[[Any], Any] | None = task.keys.gold if at % 2 == 0 else task.keys.corrupt
        result = str(make(doc) if make else "")
        if distinct and result.endswith("\n```"):
            result = f"{result.removesuffix('```')}# {at}\n```"
        found.append(f"<think>{prose(rng, 8000)}</think>\n\n{prose(rng, 1500)}\n\n{result}")
    return found


def leaves(name: str, source: DataSource, share: float, distinct: bool = False) -> list[Leaf]:
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
            (int(docs[at].get(ROW, at)), docs[at], answers(task, docs[at], number, rng, distinct))
            for at, number in sorted(counts.items())
        ]
        made.append(Leaf(leaf, task, rows))
    return made


def processor() -> float:
    """Return the processor seconds of this process and of the ended processes below it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def ours(name: str, made: Sequence[Leaf], source: DataSource) -> tuple[float, float]:
    """Score as `olmes score` does. Returns wall and processor seconds."""
    group = catalog.find(name).members
    rows = [
        {**({"task": leaf.name} if group else {}), "doc_id": at, "responses": texts}
        for leaf in made
        for at, _, texts in leaf.rows
    ]
    start, used = time.monotonic(), processor()
    score_responses(name, rows, source)
    return time.monotonic() - start, processor() - used


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


@dataclass(slots=True)
class Measured:
    """Seconds of a task, or of several."""

    answers: float = 0.0
    """Answers scored."""
    wall: float = 0.0
    used: float = 0.0
    """Processor seconds."""
    whole: float = 0.0
    """Answers of the whole task. The seconds below are for all of them."""
    ours: float = 0.0
    ours_used: float = 0.0
    naive: float = 0.0

    def add(self, other: Measured) -> None:
        """Add another task's answers and seconds."""
        for field in Measured.__slots__:
            setattr(self, field, getattr(self, field) + getattr(other, field))

    def line(self, label: str) -> str:
        """Return the table's line."""
        seconds = (self.wall, self.used, self.ours, self.ours_used, self.naive)
        first, second, *others = (f"{value:>9.1f}" for value in seconds)
        return f"{label:<30}{self.answers:>9.0f}{first}{second}{self.whole:>12.0f}{''.join(others)}"


def number_of(made: Sequence[Leaf]) -> int:
    """Return the number of answers."""
    return sum(len(texts) for leaf in made for _, _, texts in leaf.rows)


def texts(name: str, source: DataSource, share: float) -> Measured:
    """Measure a share of a task and a tenth of it: the difference is free of the start of processes and of loading."""
    few, many = leaves(name, source, share / 10), leaves(name, source, share)
    started, begun = ours(name, few, source)
    taken, used = ours(name, many, source)
    number, alone = number_of(many), naive(many)
    whole = number / share
    more = (whole - number) / max(1, number - number_of(few))
    return Measured(
        number, taken, used, whole, taken + more * max(0.0, taken - started), used + more * max(0.0, used - begun),
        alone / share,
    )  # fmt: skip


def programs(name: str, source: DataSource, share: float, distinct: bool) -> Measured:
    """Measure all answers of a task, and a share of them in the naive way."""
    made = leaves(name, source, 1.0, distinct)
    taken, used = ours(name, made, source)
    number = number_of(made)
    few = leaves(name, source, share, distinct) if share else []
    alone = naive(few) * number / number_of(few) if few else 0.0
    return Measured(number, taken, used, number, taken, used, alone)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("OLMES_DATA_DIR"))
    parser.add_argument("--share", type=float, default=0.1, help="the share of texts to score")
    parser.add_argument("--naive", type=float, default=0.02, help="the share of programs to score in the naive way")
    parser.add_argument("--distinct", action="store_true", help="no two programs are equal")
    parser.add_argument("--task", action="append")
    options = parser.parse_args()
    if options.data_dir is None:
        raise SystemExit("give --data-dir MIRROR, or set OLMES_DATA_DIR")
    totals = {"texts": Measured(), "programs": Measured()}
    heads = ("wall, s", "cpu, s", "all answers", "wall, s", "cpu, s", "naive, s")
    widths = (9, 9, 12, 9, 9, 9)
    print(f"{'measured':>39}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for name in [entry.task for entry in suites.load("olmo3_dev").tasks if "alpaca" not in entry.task]:
        if options.task and name not in options.task:
            continue
        source = DataSource(sample=True) if name in DOCUMENTS else DataSource((Path(options.data_dir),))
        source.show_to_nltk()
        code = any(word in name for word in ("humaneval", "mbpp", "livecodebench"))
        found = programs(name, source, options.naive, options.distinct) if code else texts(name, source, options.share)
        totals["programs" if code else "texts"].add(found)
        print(found.line(name), flush=True)
    for label, total in totals.items():
        print(total.line(label))


if __name__ == "__main__":
    main()
