"""The example of curation with a real model: four commands, one of them killed, and counts that add up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, environment
from real_model import real_model

RUN = [sys.executable, str(ROOT / "examples/curation/run.py")]


@pytest.mark.slow
def test_a_small_model_writes_answers_and_rates_and_a_kill_loses_nothing(punkt_tab: None, tmp_path: Path) -> None:
    model, out = real_model(tmp_path), tmp_path / "curation"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*RUN, str(model), "--out", str(out), "--count", "12"]
    done = subprocess.run(
        [*words, "--port", str(port)], capture_output=True, text=True, env=environment(tmp_path), cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.count("== killed on the way") == 1 and "no row is left" not in done.stdout
    assert "position bias" in done.stdout and "agreement with itself" in done.stdout
    for word in ("Traceback", "Warning", "WARNING"):
        assert word not in done.stdout + done.stderr, word
    counts = {}
    for step in ("prompts", "responses", "preferences"):
        counts[step] = json.loads((out / step / "manifest.json").read_text())["counts"]
        rejected = (out / step / "rejected.jsonl").read_text().splitlines()
        assert counts[step]["written"] + len(rejected) == counts[step]["read"] and counts[step]["written"] > 0, counts
    assert counts["prompts"]["read"] == 24 and counts["preferences"]["read"] == counts["prompts"]["written"]
    assert not (out / ".preferences.unfinished").exists()


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*RUN, "model", "--port", str(port)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"port {port} cannot be used (Address already in use): choose another with --port\n"
