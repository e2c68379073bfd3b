"""`--name`: the run's folder, the same command again, and names that are taken or cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from olmes_suite.errors import UsageError
from olmes_suite.evaluation.evaluate import Finished, evaluate
from olmes_suite.evaluation.plan import Options
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.runs.locate import locate
from olmes_suite.tasks.documents import DataSource


class Quiet:
    def note(self, text: str) -> None: ...
    def start(self, plans) -> None: ...
    def advance(self, task, documents, tokens) -> None: ...
    def stop(self) -> None: ...


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options("", "mock", task_names=("gsm8k",), source=DataSource(sample=True), runs=tmp_path, name="mine")


def run(options: Options) -> Finished:
    return evaluate(options, lambda *_: MockBackend(), Quiet())


def test_a_named_run_is_found_again_by_the_same_command(options: Options) -> None:
    first = run(options)
    assert (first.path.name, first.results.run, first.manifest.name) == ("mine", "mine", "mine")
    assert locate("mine", options.runs) == first.path
    again = run(options)
    assert again.old and again.path == first.path
    assert run(replace(options, again=True)).path.name == "mine-2"
    assert run(replace(options, name=None)).manifest.identity is None


@pytest.mark.parametrize(
    ("other", "said"),
    [({"task_names": ("drop",)}, "has other tasks"), ({"limit": 1}, "has another model, limit or seed")],
)
def test_a_taken_name_is_refused_before_the_model_is_loaded(options: Options, other: dict, said: str) -> None:
    run(options)
    with pytest.raises(UsageError, match=said):
        evaluate(replace(options, **other), lambda *_: pytest.fail("the model was loaded"), Quiet())


def test_another_model_behind_the_same_path_is_refused(options: Options) -> None:
    run(options)

    class Changed(MockBackend):
        fingerprint = "changed"  # type: ignore[assignment]

    with pytest.raises(UsageError, match="has other settings or data"):
        evaluate(options, lambda *_: Changed(), Quiet())
    assert not list((options.runs / ".unfinished").glob("mine*/responses"))


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "-x", "x.json", "tail ", "a\nb", "x" * 101, "é"])
def test_names_that_no_folder_may_have(options: Options, name: str) -> None:
    with pytest.raises(UsageError, match="a name starts with"):
        run(replace(options, name=name))
