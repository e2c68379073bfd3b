"""Agreement of the verifiers `math` and `gsm8k` with math-verify, on answers of MATH and GSM8K in several spellings.

    python benchmarks/agreement.py --data-dir D [--documents 400] [--show 5]

Each document is answered in the ways of `WAYS`: with its own solution, with the solution of its neighbour (whose answer
is almost always wrong), and with its own answer spelt in another way. Prints a table of verdicts, and `--show`
differences of each kind.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from train_plugins.verifiers import Call, Verifiers
from train_plugins.verifiers.mathematics import gold_of

WAYS: Mapping[str, Callable[[str], str]] = {
    "boxed": lambda gold: f"So we get $\\boxed{{{gold}}}$.",
    "in a sentence": lambda gold: f"The answer is ${gold}$.",
    "dfrac, spaces": lambda gold: f"$\\boxed{{{gold.replace('frac', 'dfrac').replace(',', ', ')}}}$",
    "with a name": lambda gold: f"$\\boxed{{x = {gold}}}$",
    "with a unit": lambda gold: f"$\\boxed{{{gold}\\text{{ cm}}}}$",
    "plus one": lambda gold: f"$\\boxed{{{gold} + 1}}$",
    "negated": lambda gold: f"$\\boxed{{-({gold})}}$",
}
"""How an answer is spelt. The last two are wrong, but for golds of several parts."""
_MATH_VERIFY = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from math_verify import parse, verify
golds = {}
verdicts = []
for response, gold in json.load(sys.stdin):
    if gold not in golds:
        golds[gold] = parse("\\\\boxed{" + gold + "}")
    verdicts.append(float(verify(golds[gold], parse(response))))
print(json.dumps(verdicts))
"""


def answers(data_dir: Path, task: str, number: int) -> list[tuple[str, str, str]]:
    """Return (way, response, gold) of documents spread evenly over a task's leaves."""
    found = []
    leaves = catalog.find(task).leaves
    for leaf in leaves:
        docs = list(load_task(index.task_file(catalog.find(leaf)), DataSource((data_dir,))).task_docs)
        for place in range(-(-number // len(leaves))):
            doc, neighbour = docs[place % len(docs)], docs[(place + 1) % len(docs)]
            solution, other, gold = _texts(task, doc, neighbour)
            found += [("own solution", solution, gold), ("neighbour's solution", other, gold)]
            found += [(way, spelt(gold), gold) for way, spelt in WAYS.items()]
    return found


def _texts(task: str, doc: Mapping[str, str], neighbour: Mapping[str, str]) -> tuple[str, str, str]:
    if task == "math":
        return doc["solution"], neighbour["solution"], gold_of(doc["solution"])
    plain = [re.sub("<<.*?>>", "", one["answer"]).replace("####", "The answer is") for one in (doc, neighbour)]
    return plain[0], plain[1], doc["answer"].rpartition("####")[2].strip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--show", type=int, default=0)
    given = parser.parse_args()
    for task in ("math", "gsm8k"):
        asked = answers(given.data_dir, task, given.documents)
        with Verifiers([task], 2, 10.0) as verifiers:
            ours = verifiers.verify([Call(task, response, gold, {}) for _, response, gold in asked])
        pairs = json.dumps([[response, gold] for _, response, gold in asked])
        done = subprocess.run([sys.executable, "-c", _MATH_VERIFY], input=pairs, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"math-verify cannot run: {done.stderr.strip().splitlines()[-1]}")
        theirs = json.loads(done.stdout)
        same = sum(mine == other for mine, other in zip(ours, theirs, strict=True))
        print(f"\n{task}: {same} of {len(asked)} verdicts agree ({100 * same / len(asked):.1f} %)\n")
        print("| answer | n | both right | both wrong | only ours right | only math-verify right |")
        print("|---|---|---|---|---|---|")
        for way in dict.fromkeys(way for way, *_ in asked):
            rows = [(one, mine, other) for one, mine, other in zip(asked, ours, theirs, strict=True) if one[0] == way]
            counts = [
                sum((mine, other) == pair for _, mine, other in rows) for pair in ((1, 1), (0, 0), (1, 0), (0, 1))
            ]
            print(f"| {way} | {len(rows)} | {' | '.join(map(str, counts))} |")
        for pair in ((1, 0), (0, 1)):
            kind = [one for one, mine, other in zip(asked, ours, theirs, strict=True) if (mine, other) == pair]
            for way, response, gold in kind[:: max(len(kind) // max(given.show, 1), 1)][: given.show]:
                print(f"ours {pair[0]}, math-verify {pair[1]}, {way}: gold {gold!r}, response {response[-120:]!r}")


if __name__ == "__main__":
    main()
