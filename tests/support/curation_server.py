"""A served model for tests of `olmes data`: it writes prompts, answers sums, and rates answers, each by fixed rules."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from judge_server import Body, Reply, asked, chat

NOUNS = (
    "river", "bridge", "baker", "loaf", "garden", "ladder", "teacher", "village", "lamp", "orchard", "ferry", "market",
    "violin", "beehive", "stove",
)  # fmt: skip
Run = Callable[..., "CompletedProcess[str]"]
"""Runs a command of `olmes data`: its name, the recipe, options; the folder is `out`."""
SUM = re.compile(r"(\d+) and (\d+)")


def random_of(body: Body) -> random.Random:
    """Random numbers that depend on the request and its seed alone."""
    return random.Random(json.dumps(body, sort_keys=True))


def written_prompt(body: Body) -> Reply:
    """A prompt after its label; one in twelve is a refusal, one in twelve lacks the label, some come twice."""
    label = re.findall(r"Begin your answer with '(.*?)'", asked(body))[-1]
    rng = random_of(body)
    kind = rng.randrange(12)
    if kind == 0:
        return Reply(chat("I'm sorry, but I can't help with that."))
    things = " and the ".join(rng.sample(NOUNS, 8))
    text = f"What would a {rng.choice(NOUNS)} say about the {things} near the old town hall?"
    if kind == 1:
        return Reply(chat(text))
    if kind == 2:
        text = "Which of the two old clocks in the hall is slow, and by how many minutes does it differ from the other?"
    return Reply(chat(f"**{label}** {text}\n\nAnswer: nobody knows"))


def sum_answer(wrong: int = 2) -> Callable[[Body, int], Reply]:
    """The sum of the last two numbers of the question; one in `wrong` answers is one too high."""

    def reply(body: Body, before: int) -> Reply:
        a, b = map(int, SUM.findall(asked(body))[-1])
        rng = random_of(body)
        return Reply(chat(f"{'So ' * rng.randrange(5)}the answer is {a + b + (rng.randrange(wrong) == 0)}."))

    return reply


def rating(text: str) -> int:
    """What the judge thinks of a text, from 1 to 5."""
    return 1 + hashlib.sha256(text.encode()).digest()[0] % 5


def rated(body: Body) -> Reply:
    """A rating for each answer of a judge's request, by its text alone."""
    texts = re.findall(r"<answer \d+>\n(.*?)\n</answer \d+>", body["messages"][1]["content"], re.DOTALL)
    blocks = [f"Answer {n}\nRating: {rating(text)}\nRationale: as it is." for n, text in enumerate(texts, 1)]
    return Reply(chat("\n\n".join(blocks)))


def everything(body: Body, before: int) -> Reply:
    """A model that rates, writes prompts and answers sums, as it is asked."""
    text = body["messages"][-1]["content"]
    if "<answer 1>" in body["messages"][-1]["content"] or len(body["messages"]) > 2:
        return rated(body)
    if "Begin your answer with" in text:
        return written_prompt(body)
    return sum_answer()(body, before)


def sums(file: Path, count: int = 20) -> Path:
    """Prompts with a verifier."""
    rows: list[dict[str, Any]] = [
        {
            "id": f"sum-{n}",
            "messages": [{"role": "user", "content": f"What is the sum of {n} and {3 * n + 1}?"}],
            "dataset": "gsm8k",
            "ground_truth": str(4 * n + 1),
        }
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a finished data set."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(folder / "data.parquet").to_pylist()
    return rows


def rejected_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of rejected.jsonl."""
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]


def adds_up(folder: Path) -> dict[str, Any]:
    """Check that every row is in the output or rejected; returns the manifest."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    counts = manifest["counts"]
    assert counts["written"] == len(rows_of(folder))
    assert sum(counts["rejected"].values()) == len(rejected_of(folder))
    assert counts["read"] + counts.get("added", 0) == counts["written"] + sum(counts["rejected"].values())
    return manifest
