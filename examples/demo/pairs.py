"""Written preference pairs, for the short demo, whose model cannot add yet: the right sum, and a wrong one.

    python examples/demo/pairs.py PROMPTS.jsonl OUT.jsonl [--prompts 300]

The whole demo makes its pairs from the model's own answers instead: `olmes data preferences`, by preferences.yaml.
"""

from __future__ import annotations

import argparse
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any


def right(answer: str, truth: str) -> bool:
    """The last number of the answer is the right one."""
    numbers = re.findall(r"\d+", answer)
    return bool(numbers) and numbers[-1] == truth


def pair(row: dict[str, Any]) -> dict[str, Any]:
    """{"chosen", "rejected"} of a question."""
    sides = {"chosen": 0, "rejected": 1}
    return {
        side: [
            *row["messages"],
            {"role": "assistant", "content": f"So the answer is {int(row['ground_truth']) + wrong}."},
        ]
        for side, wrong in sides.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prompts", dest="count", type=int, default=300)
    chosen = parser.parse_args()
    with chosen.prompts.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, chosen.count)]
    part = chosen.out.with_suffix(".part")
    part.write_text("".join(json.dumps(pair(row)) + "\n" for row in rows), encoding="utf-8")
    part.replace(chosen.out)


if __name__ == "__main__":
    main()
