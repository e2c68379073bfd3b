"""Time to split a response at its thought, beside the regular expressions; time and memory to score long responses.

    python benchmarks/thinking.py [--documents 2000] [--kilobytes 100]

The regular expressions are those of OLMES's `extract_think_answer`. They take quadratic time where no closing mark
follows, so that they get a tenth of the text. The last lines score responses with `olmes score`, in a process of its
own; all but a sentence of a response is a thought.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import timeit
from functools import partial
from pathlib import Path

from olmes_suite.thinking import built_in

LINE = "Okay, let me see: if 3 < 4 then <b>x</b> must be 12, so wait, maybe I should check that again.\n"
PEAK = """
import resource, sys
from olmes_suite.cli.main import run
status = run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
sys.exit(status)
"""


def patterns(text: str) -> tuple[str | None, str]:
    """Split by the regular expressions of the reference."""
    found = re.findall(r"(?ms)^(?:\s*<think>\s*)?(.*)\s*</think>", text)
    answer = re.sub(r"(?ms).*</think>", "", text)
    answer = re.sub(r"(?ms)^\s*<answer>\s*", "", answer)
    answer = re.sub(r"(?ms)</answer>\s*$", "", answer)
    return (found[0] if found else None), answer


def texts_of(kilobytes: int, blank: int) -> dict[str, str]:
    """Return responses of about this size, the last one with this number of blank lines."""
    thought = (LINE * (kilobytes * 1000 // len(LINE) + 1))[: kilobytes * 1000]
    return {
        "a thought and an answer": f"<think>\n{thought}</think>\n\nThe answer is 12.",
        "the same, not in Latin script": f"<think>\n{thought.replace('x', '数')}</think>\n\nThe answer is 12.",
        "an answer of the same length": f"<think>\n</think>\n\n{thought}",
        "a thought without an end": f"<think>\n{thought}",
        "no marks": thought,
        "blank lines after the thought": "<think>\n</think>" + "\n" * blank,
    }


def split(kilobytes: int) -> None:
    """Print microseconds per kilobyte, the best of five."""
    think, small = built_in("think"), texts_of(kilobytes // 10, 200)
    print(f"{'':<32}{f'split, {kilobytes} kB':>16}{f'patterns, {kilobytes // 10} kB':>20}   (µs/kB)")
    for name, text in texts_of(kilobytes, kilobytes * 1000).items():
        assert think.split(small[name]).answer == patterns(small[name])[1]
        ours = min(timeit.repeat(partial(think.split, text), number=20, repeat=5)) / 20
        theirs = timeit.timeit(partial(patterns, small[name]), number=1)
        sizes = len(text.encode()) / 1000, len(small[name].encode()) / 1000
        print(f"{name:<32}{ours / sizes[0] * 1e6:>16.2f}{theirs / sizes[1] * 1e6:>20.2f}")


def score(documents: int, kilobytes: int) -> None:
    """Print seconds and the peak of resident memory of `olmes score`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    thought = (LINE * (kilobytes * 1000 // len(LINE) + 1))[: kilobytes * 1000]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "mirror/openai/gsm8k/main/test.parquet")
        table.parent.mkdir(parents=True)
        rows = [{"question": f"{n} + 3?", "answer": f"#### {n + 3}"} for n in range(documents)]
        pq.write_table(pa.Table.from_pylist(rows), table)
        file = Path(folder, "responses.jsonl")
        with file.open("w", encoding="utf-8") as out:
            for n in range(documents):
                text = f"<think>\n{thought}</think>\n\nThe answer is {n + 3}."
                out.write(json.dumps({"doc_id": n, "responses": [text]}) + "\n")
        words = [
            "score",
            "--task",
            "gsm8k",
            "--responses",
            str(file),
            "--data-dir",
            str(Path(folder, "mirror")),
            "--json",
        ]
        environment = os.environ | {"OLMES_CACHE": str(Path(folder, "cache"))}
        seconds = timeit.default_timer()
        done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, env=environment)
        seconds = timeit.default_timer() - seconds
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["metrics"]["exact_match"]["value"] == 1.0
        size, peak = file.stat().st_size / 1e6, int(done.stderr.split()[-1])
        print(f"olmes score: {documents} responses, {size:.0f} MB: {seconds:.1f} s, peak {peak} MiB")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--kilobytes", type=int, default=100)
    options = parser.parse_args()
    split(options.kilobytes)
    score(1, 1)
    score(options.documents, options.kilobytes)


if __name__ == "__main__":
    main()
