"""The verifiers' processes: another package's verifiers, those that raise, hang or die, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import ROOT
from worker_runs import alive, wait_for

from olmes_suite.errors import UsageError
from train_plugins.verifiers import Call, VerifierFailed, Verifiers, names, registry

MINE = """
import os, sys, time

def length(response, truth, row):
    return len(response) == truth

def half(response, truth, row):
    return 0.5

def skips(response, truth, row):
    return None

def raises(response, truth, row):
    return 1 / 0

def two(response, truth, row):
    return 2.0

def prints(response, truth, row):
    print("noise", flush=True)
    os.system("echo more noise")
    return True

def hangs(response, truth, row):
    if "mark" in row:
        open(row["mark"], "w").close()
    while response == "hang":
        pass
    while response == "sleep":
        time.sleep(1)
    return True

def dies(response, truth, row):
    if response == "die":
        os._exit(3)
    if response == "eat":
        return bytearray(64 * 2**30) is None
    return True

def torchless(response, truth, row):
    return "torch" not in sys.modules

def column(response, truth, row):
    return row["wanted"] == response and row["array"] == [1, 2]
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifiers of another package, installed for this process and its children."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("raise ImportError('no such library')")
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    functions = [line[4 : line.index("(")] for line in MINE.splitlines() if line.startswith("def ")]
    lines = [f"{name} = mine:{name}" for name in functions] + ["broken = broken:f", "gpqa_mine = mine:half"]
    (info / "entry_points.txt").write_text("[olmes.verifiers]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    registry._check.cache_clear()
    yield
    registry._check.cache_clear()


def one(verifiers: Verifiers, name: str, response: str, truth: object, **row: object) -> float | None:
    return verifiers.verify([Call(name, response, truth, row)])[0]


# A package of one's own ---------------------------------------------------------------------------------------------


def test_verifiers_of_another_package(mine):
    import numpy as np

    with Verifiers(["length", "half", "skips", "prints", "torchless", "column"], 1, 10) as made:
        assert "length" in names()
        assert one(made, "length", "four", 4) == 1 and one(made, "LENGTH", "four", 5) == 0
        assert (one(made, "half", "", None), one(made, "skips", "", None)) == (0.5, None)
        assert one(made, "prints", "", None) == 1 and one(made, "torchless", "", None) == 1
        assert one(made, "column", "é\ud800", None, wanted="é\ud800", array=np.array([1, 2])) == 1


def test_a_verifier_that_raises_stops_with_its_name_and_row(mine):
    with Verifiers(None, 2, 10) as made:
        with pytest.raises(
            VerifierFailed, match=r"verifier raises, row 17 \(ground truth 'x'\): it raised ZeroDivision"
        ):
            one(made, "raises", "", "x", row=17)
        with pytest.raises(VerifierFailed, match=r"it returned 2\.0, which is neither a number from 0 to 1"):
            one(made, "two", "", "x", row=17)
        assert one(made, "half", "", None) == 0.5  # the next call is not met by what was left of the last


def test_a_verifier_that_cannot_be_loaded_stops_at_the_start(mine):
    with pytest.raises(VerifierFailed, match=r"broken cannot be loaded: .*imported: ImportError: no such library"):
        Verifiers(["broken"], 1, 10).__enter__()
    with pytest.raises(UsageError, match="unseen suite"):
        Verifiers(["gpqa_mine"], 1, 10)


@pytest.mark.long
def test_a_hanging_verdict_is_zero_and_counted(mine):
    calls = [Call("hangs", text, None, {}) for text in ("a", "hang", "b", "sleep", "c", "hang", "d")]
    with Verifiers(["hangs"], 2, 0.4) as made:
        started = time.monotonic()
        assert made.verify(calls) == [1, 0, 1, 0, 1, 0, 1]
        assert made.timeouts == 3 and made.crashes == 0
        assert time.monotonic() - started < 60
        assert made.verify(calls[:1]) == [1]


def test_a_crash_is_tried_again_then_zero_and_counted(mine):
    calls = [Call("dies", text, None, {}) for text in ("a", "die", "b", "eat", "c")]
    with Verifiers(["dies"], 2, 20) as made:
        assert made.verify(calls) == [1, 0, 1, 0, 1]
        assert made.crashes == 2 and made.timeouts == 0


# Processes ----------------------------------------------------------------------------------------------------------


def test_processes_start_once_and_end_with_it():
    with Verifiers(["gsm8k"], workers=2, timeout=10) as made:
        children = [process.child for process in made._processes]
        for _ in range(3):
            made.verify([Call("gsm8k", "3", "3", {})] * 5)
        assert [process.child for process in made._processes] == children
    assert all(child.poll() is not None for child in children)
    with pytest.raises(RuntimeError, match="context manager"):
        made.verify([])


def test_closing_does_not_wait_for_a_verdict_that_hangs(mine, tmp_path):
    made = Verifiers(["hangs"], 1, 600).__enter__()
    child = made._processes[0].child
    seen = []

    def ask() -> None:
        with pytest.raises(RuntimeError, match="closed while they verified"):
            made.verify([Call("hangs", "hang", None, {"mark": str(tmp_path / "mark")})])
        seen.append("an error, no verdict")

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for((tmp_path / "mark").exists)
    made.close()
    asking.join(60)
    assert seen and child.poll() is not None and made._processes[0].child is None


@pytest.mark.skipif(sys.platform != "linux", reason="processes end with their parent on Linux")
def test_workers_end_with_a_parent_that_is_killed(mine, tmp_path):
    script = (
        "import threading\n"
        "from train_plugins.verifiers import Call, Verifiers\n"
        "v = Verifiers(['hangs'], 1, 600).__enter__()\n"
        "print(v._processes[0].child.pid, flush=True)\n"
        f"v.verify([Call('hangs', 'hang', None, {{'mark': {str(tmp_path / 'mark')!r}}})])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    wait_for((tmp_path / "mark").exists)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not alive(worker), 60)
