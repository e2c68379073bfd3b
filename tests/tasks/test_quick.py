"""The suite `quick` has an average on any machine, and a suite's limit holds unless another one is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import write_gsm8k

from olmes_suite.errors import UsageError
from olmes_suite.evaluation import arguments
from olmes_suite.tasks import index, suites
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task

Cli = Callable[..., tuple[int, str, str]]


def test_no_task_needs_more_than_a_bare_machine_has() -> None:
    for entry in suites.load("quick").tasks:
        task = load_task(index.task_file(index.index()[entry.task]), DataSource(sample=True))
        assert not task.keys.needs and task.keys.preflight is None and task.keys.resources is None, entry.task
        assert not suites.asks_unseen(entry.task)


def average(cli: Cli, *given: str | Path, documents: int | None) -> None:
    status, out, err = cli("eval", "--backend", "oracle", "--suite", "quick", *given, "--json")
    found = json.loads(out)
    assert status == 0, err
    assert found["suites"]["quick"]["value"] == 1.0 and found["suites"]["quick"]["missing"] == []
    if documents is not None:
        assert {task["n"] for task in found["tasks"].values()} == {documents}
    assert (json.loads((Path(found["path"]) / "manifest.json").read_text())["limit"]) == documents


def test_it_has_an_average_on_sample_documents(cli: Cli) -> None:
    average(cli, "--data", "sample", documents=None)


@pytest.mark.long
def test_it_has_an_average_on_a_mirror(cli: Cli, data_dir: Path) -> None:
    average(cli, "--data-dir", data_dir, documents=100)


def test_the_sample_documents_show_a_regression() -> None:
    """A hundred short answers: a model that loses a quarter of them is told from one that does not."""
    task = load_task(index.task_file(index.index()["tulu3_popqa"]), DataSource(sample=True))
    questions = [doc["question"] for doc in task.task_docs]
    assert len(questions) == len(set(questions)) == 100


def test_the_limit_of_a_suite(cli: Cli, tmp_path: Path) -> None:
    mirror = write_gsm8k(tmp_path / "mirror", 12)
    (tmp_path / "few.yaml").write_text("suite: few\nlimit: 5\ntasks: [gsm8k]\n")
    (tmp_path / "over.yaml").write_text("suite: over\ntasks: [few.yaml]\n")
    for words, expected in ((("few.yaml",), 5), (("few.yaml", "--limit", "7"), 7), (("over.yaml",), 12)):
        status, out, err = cli("eval", "--backend", "oracle", "--data-dir", mirror, "--json", "--suite", *words)
        assert status == 0 and json.loads(out)["tasks"]["tulu3_gsm8k"]["n"] == expected, err
    for words in (("--task", "popqa"), ("--suite", "over.yaml")):
        status, _, err = cli("eval", "--backend", "oracle", "--data-dir", mirror, "--suite", "few.yaml", *words)
        assert status == 2 and len(err.splitlines()) == 1
        assert "suite few.yaml asks 5 documents of each task" in err and "give --limit 5 for all" in err


def test_two_suites_of_one_limit_agree(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("limit: 5\ntasks: [gsm8k]\n")
    (tmp_path / "b.yaml").write_text("limit: 5\ntasks: [popqa]\n")
    both = (str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert arguments.limit(None, both, ()) == 5 and arguments.limit(9, both, ["drop"]) == 9
    assert arguments.limit(None, ("dev",), ()) is None


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5", "[]", "true"])
def test_a_limit_that_is_no_number_of_documents_is_one_line(value: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(f"suite: bad\nlimit: {value}\ntasks: [gsm8k]\n")
    with pytest.raises(UsageError, match=r"bad\.yaml.*limit") as caught:
        suites.load(str(tmp_path / "bad.yaml"))
    assert "\n" not in str(caught.value) and ", line 2" in str(caught.value)
