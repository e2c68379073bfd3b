"""A model that is loaded while the requests are planned."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import environment

from olmes_suite.errors import ModelError
from olmes_suite.evaluation.background_load import Ahead
from olmes_suite.models.factory import loads_in_a_thread


def test_it_is_made_beside_other_work():
    begun, go = threading.Event(), threading.Event()

    def make() -> str:
        begun.set()
        go.wait(60)
        return "model"

    made = Ahead(make, early=True)
    assert begun.wait(60)  # before anybody asks
    go.set()
    assert made.get() == "model"


@pytest.mark.parametrize("early", [True, False])
def test_its_error_comes_where_it_is_asked_for(early):
    def make() -> str:
        raise ModelError("no weights")

    made = Ahead(make, early)
    with pytest.raises(ModelError, match="no weights"):
        made.get()


def test_who_may_be_made_in_a_thread(monkeypatch):
    assert loads_in_a_thread("hf") and not loads_in_a_thread("vllm") and not loads_in_a_thread("mock")
    monkeypatch.setitem(__import__("olmes_suite.models.factory", fromlist=["BUILT_IN"]).BUILT_IN, "vllm", "x:Y")
    monkeypatch.setattr("olmes_suite.models.factory.find_spec", lambda name: object())
    assert not loads_in_a_thread("auto")


SEEN = """
import sys
from pathlib import Path
from olmes_suite.tasks.documents import DataSource
from olmes_suite.errors import ModelError
from olmes_suite.evaluation.evaluate import evaluate
from olmes_suite.evaluation.plan import Options

class Quiet:
    def note(self, text):
        pass

def make(options, gold):
    print("transformers" in sys.modules)
    raise ModelError("seen")

options = Options("m", task_names=("gsm8k",), source=DataSource(sample=True), runs=Path(sys.argv[1]))
try:
    evaluate(options, make, Quiet(), early=True)
except ModelError:
    pass
"""


@pytest.mark.long
def test_nobody_finds_transformers_half_imported(tmp_path: Path):
    """`datasets` looks for names of what it finds in sys.modules: the thread may not be the first to import it."""
    command = [sys.executable, "-c", SEEN, str(tmp_path)]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["True"], done.stderr
