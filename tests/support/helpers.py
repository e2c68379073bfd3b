"""What several tests share: a mirror of our own documents, and running the command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def write_gsm8k(folder: Path, rows: int = 40) -> Path:
    """A mirror with `rows` self-made GSM8K documents."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "openai" / "gsm8k" / "main" / "test.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    documents = [
        {
            "question": f"A shelf holds {n} books and {n + 3} more arrive. How many books are there?",
            "answer": f"{n} + {n + 3} = {2 * n + 3}\n#### {2 * n + 3}",
        }
        for n in range(rows)
    ]
    pq.write_table(pa.Table.from_pylist(documents), path)
    return folder


def environment(tmp: Path, **extra: str) -> dict[str, str]:
    """An environment without mirrors and with caches of its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OLMES_", "PYTEST_"))}
    return env | {
        "OLMES_CACHE": str(tmp / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **extra,
    }


def olmes(*args: str | Path, tmp: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "olmes_suite.cli.main", *map(str, args)],
        capture_output=True,
        text=True,
        env=environment(tmp, **extra),
        timeout=600,
    )


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON that a command printed."""
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def one_line_error(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The single line of an error that a user caused."""
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("olmes: ")]
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]
