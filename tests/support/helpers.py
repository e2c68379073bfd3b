"""What several tests share: a mirror of our own documents, and running the command line in a process of its own."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parents[2]


def need(package: str, reason: str) -> None:
    """Skip a module's tests where a package is absent. Unlike pytest.importorskip, this does not import it."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(reason, allow_module_level=True)


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


def olmes_here(*args: str | Path, tmp: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, as `olmes` does in one of its own, without the seconds of its start."""
    from olmes_suite.cli.main import run
    from olmes_suite.tasks import catalog

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    words = [str(arg) for arg in args]
    with (
        patch.dict(os.environ, environment(tmp, **extra), clear=True),
        patch.object(catalog, "include_paths", []),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        status = run(words)
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(words, status, *texts)


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
