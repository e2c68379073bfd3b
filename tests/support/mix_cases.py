"""Rows of our own for `olmes data mix`, and running it in this process."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml
from helpers import olmes_here

WORDS = [f"word{number}" for number in range(3000)]


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [chat(" ".join(rng.choices(WORDS, k=12)), " ".join(rng.choices(WORDS, k=30))) for _ in range(count)]


def write(path: Path, lines: list[Any]) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def mix(tmp: Path, recipe: dict[str, Any], *options: str, out: str = "out") -> Any:
    file = tmp / "mix.yaml"
    file.write_text(yaml.safe_dump({"format": "jsonl", **recipe}))
    return olmes_here("data", "mix", file, "--out", tmp / out, "--workers", "1", *options, tmp=tmp)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
