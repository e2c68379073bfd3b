"""An evaluation of two items, and decontam commands against it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from olmes_suite.cli.main import run

SECRET = "One question that nobody else would ever put in quite these words before lunch"
SHORT = "What is Paris?"


@dataclass(frozen=True)
class Decontam:
    """Runs commands in a folder of its own; the report lies in `out`."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    @property
    def out(self) -> Path:
        """The report's folder."""
        return self.folder / "out"

    def __call__(self, command: str, *trains: str | Path, options: Any = (), out: Path | None = None) -> Any:
        """(exit status, standard output, standard error) of a command on these sets."""
        own = self.folder / "eval.jsonl"
        items = [{"task": "own", "doc_id": 7, "text": SECRET}, {"task": "own", "doc_id": 9, "text": SHORT}]
        own.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
        given = [word for train in trains for word in ("--train", str(train))]
        if "--task" not in options and "--eval" not in options:
            given += ["--eval", str(own)]
        self.capture.readouterr()
        code = run(["decontam", command, *given, "--workers", "1", "--out", str(out or self.out), *map(str, options)])
        said = self.capture.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    def hits(self) -> list[int]:
        """The training rows of the last scan's pairs."""
        return sorted(pq.read_table(self.out / "pairs.parquet")["train_row"].to_pylist())

    def report(self) -> Any:
        """The last report."""
        return json.loads((self.out / "report.json").read_text())


def lines(*rows: Any) -> bytes:
    """Rows as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
