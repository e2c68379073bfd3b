"""The Python interface: what its functions return, what they refuse, and what importing the package costs."""

from __future__ import annotations

import doctest
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, environment
from typer.main import get_command

import olmes_suite
from olmes_suite import api
from olmes_suite.cli.main import COMMANDS
from olmes_suite.errors import DataError, NotComparable, UsageError


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[api.Evaluated, api.Evaluated]:
    """Runs of the oracle and of the mock model."""
    store = tmp_path_factory.mktemp("api") / "runs"
    found = [
        olmes_suite.evaluate(backend=backend, task=["gsm8k", "mmlu_mc"], data="sample", runs=store, limit=2)
        for backend in ("oracle", "mock")
    ]
    return found[0], found[1]


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A run store with two imported runs and one that cannot be read."""
    from olmes_suite.runs.imports import import_scores

    for number, name in enumerate(("a", "b")):
        lines = [{"task": "own", "doc_id": i, "score": float(i > 8 * number)} for i in range(40)]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        import_scores(file, name, tmp_path / "runs", ["olmes"])
    (tmp_path / "runs/broken").mkdir()
    (tmp_path / "runs/broken/results.json").write_text("{}")
    return tmp_path / "runs"


def in_new_process(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(folder), cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_costs_nothing_until_a_name_is_used(tmp_path: Path) -> None:
    program = (
        "import sys; before = set(sys.modules); import olmes_suite as olmes\n"
        "assert {'evaluate', 'gate', 'runs', 'Run'} <= set(dir(olmes))\n"
        "print(sorted(m for m in set(sys.modules) - before if m != 'olmes_suite'))\n"
        "olmes.gate; print([m for m in ('pandas', 'numpy', 'torch', 'lm_eval') if m in sys.modules])"
    )
    assert in_new_process(program, tmp_path) == "[]\n[]"


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        olmes_suite.evalute  # noqa: B018


LATER = [
    pytest.param(line, marks=pytest.mark.long)
    for line in ("import olmes_suite.runs.scores\n", "from olmes_suite.runs import ledger\n")
]


@pytest.mark.parametrize("first", ["", *LATER])
def test_runs_is_a_function_and_a_folder_of_modules(first: str, imported: Path, tmp_path: Path) -> None:
    program = (
        f"import warnings; warnings.simplefilter('ignore')\n{first}import olmes_suite as olmes\n"
        "print(len(olmes.runs('runs')))\n"
        "import olmes_suite.runs.scores as scores; from olmes_suite.runs import ledger\n"
        "print(len(olmes.runs('runs')), scores.__name__, olmes.runs.ledger is ledger)"
    )
    assert in_new_process(program, tmp_path) == "2\n2 olmes_suite.runs.scores True"


@pytest.mark.parametrize("name", ["eval", "compare", "gate", "prompts", "score"])
def test_options_have_the_names_of_the_command(name: str) -> None:
    import importlib

    command = get_command(importlib.import_module(COMMANDS[name][0]).app)
    options = {flag.removeprefix("--").replace("-", "_") for p in command.params for flag in p.opts if flag[:2] == "--"}
    shown = {
        "json",
        "text",
        "help",
        "markdown",
        "flips",
        "junit",
        "summary",
        "report",
        "instances",
        "responses",
        "tasks",
        "dry_run",
    }
    function = {"eval": "evaluate"}.get(name, name)
    parameters = set(inspect.signature(getattr(api, function)).parameters)
    assert options - shown <= parameters


@pytest.mark.long
class TestRuns:
    """Runs that the package has made."""

    def test_scores_documents_and_responses(self, recorded: Any) -> None:
        run, _ = recorded
        assert run.failed == {} and run.manifest.run == run.name
        scores = run.scores.set_index("task")
        assert scores.loc["tulu3_gsm8k", ["metric", "value", "n"]].tolist() == ["exact_match", 1.0, 2]
        having = scores.dropna(subset="lo")
        assert len(having) > 50 and having["lo"].lt(1.0).all() and having["hi"].eq(1.0).all()
        documents = run.documents("gsm8k")
        assert list(documents["score"]) == [1.0, 1.0] and documents["doc_id"].is_unique
        assert run.documents("tulu3_gsm8k").equals(documents)
        answers = run.responses("gsm8k")
        assert list(answers["doc_id"]) == list(documents["doc_id"]) and answers["text"].notna().all()

    def test_questions_join_the_documents(self, recorded: Any) -> None:
        run, _ = recorded
        questions = run.questions("gsm8k")
        assert list(questions["doc_id"]) == list(run.documents("gsm8k")["doc_id"])
        first = questions.iloc[0]
        assert first["question"].startswith("Question: A baker makes 12 rolls") and first["choices"] is None
        assert first["prompt"][-1] == {"role": "user", "content": first["question"]} and len(first["prompt"]) > 9
        choices = run.questions("mmlu_mc_anatomy").iloc[0]
        assert len(choices["choices"]) == 4 and choices["question"] == choices["prompt"][-1]["content"]

    def test_a_sub_task_has_its_part_of_the_group(self, recorded: Any) -> None:
        run, _ = recorded
        whole, part = run.documents("mmlu_mc"), run.documents("mmlu_mc_anatomy")
        assert 0 < len(part) < len(whole) and set(part["task"]) == {"tulu3_mmlu_mc_anatomy"}
        assert set(run.responses("mmlu_mc_anatomy")["task"]) == {"tulu3_mmlu_mc_anatomy"}

    def test_a_task_that_the_run_lacks(self, recorded: Any) -> None:
        run, _ = recorded
        with pytest.raises(UsageError, match=r"has no task 'gsm8', did you mean 'tulu3_gsm8k'\?"):
            run.documents("gsm8")

    def test_the_record_names_the_call_of_the_command(self, recorded: Any, cli: Any) -> None:
        _, run = recorded
        command = list(run.manifest.command)
        assert command[:6] == ["olmes", "eval", "--task", "gsm8k", "--task", "mmlu_mc"]
        status, out, _ = cli(*command[1:], "--json")
        assert status == 0 and Path(json.loads(out)["path"]) == run.path

    def test_the_same_call_finds_the_run(self, recorded: Any) -> None:
        run, _ = recorded
        options = {"backend": "oracle", "task": ["gsm8k", "mmlu_mc"], "data": "sample", "limit": 2}
        again = olmes_suite.evaluate(**options, runs=run.path.parent)
        assert again == run and again.finished.old and olmes_suite.load(run.path) == api.Run(run.path)

    def test_compare_and_gate_take_runs_and_names(self, recorded: Any) -> None:
        good, poor = recorded
        compared = olmes_suite.compare(good, poor.name, runs=good.path.parent, task="gsm8k")
        frame = compared.to_frame()
        assert list(frame["task"]) == ["tulu3_gsm8k"] and frame["delta"].item() == -1.0 and compared.exit == 0
        assert compared.markdown().startswith(f"**{poor.name}** against **{good.name}**")
        assert len(olmes_suite.compare(good, poor, task="mmlu_mc", subtasks=True).to_frame()) > 1
        found = olmes_suite.gate(good, poor, config={"margin": 2}, task=["gsm8k"])
        assert (found.verdict, found.exit) == ("fail", 1) and "## olmes gate: fail" in found.markdown()
        assert list(found.to_frame()["task"]) == ["tulu3_gsm8k", "suite average"]
        assert found.to_frame()["margin"].tolist() == [0.02, 0.02]

    def test_score_and_prompts(self, tmp_path: Path) -> None:
        rows = [{"doc_id": 0, "responses": ["So the answer is 7."]}, {"doc_id": 1, "responses": ["No idea"]}]
        scored = olmes_suite.score("gsm8k", rows, data="sample")
        assert scored.to_frame()["exact_match"].tolist() == [1.0, 0.0] and scored.summary["n"] == 2
        file = tmp_path / "r.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert olmes_suite.score("gsm8k", file, data="sample").summary == scored.summary
        assert [one["doc_id"] for one in olmes_suite.prompts("gsm8k", doc_ids=[2, 0], data="sample")] == [2, 0]
        with pytest.raises(UsageError, match="responses, line 2: doc_id 0 of tulu3_gsm8k is given twice"):
            olmes_suite.score("gsm8k", [rows[0], rows[0]], data="sample")

    def test_the_page_in_the_documentation(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
        text = (ROOT / "docs/python.md").read_text(encoding="utf-8").replace("```\n", "\n")
        test = doctest.DocTestParser().get_doctest(text, {}, "python.md", "docs/python.md", 0)
        assert len(test.examples) >= 10
        said: list[str] = []
        failed, _ = doctest.DocTestRunner(optionflags=flags).run(test, out=said.append)
        assert failed == 0, "".join(said)


class TestImported:
    """Runs that are read."""

    def test_all_runs_of_a_folder(self, imported: Path) -> None:
        with pytest.warns(UserWarning, match="broken is left out"):
            frame = olmes_suite.runs(imported)
        assert frame[["run", "task", "n"]].to_numpy().tolist() == [["a", "own", 40], ["b", "own", 40]]
        assert {"value", "stderr", "lo", "hi", "flags"} <= set(frame.columns)

    def test_an_empty_folder_has_the_columns(self, tmp_path: Path) -> None:
        assert "value" in olmes_suite.runs(tmp_path).columns
        with pytest.raises(UsageError, match="no such folder"):
            olmes_suite.runs(tmp_path / "none")

    def test_a_baseline_file(self, imported: Path, cli: Any, tmp_path: Path) -> None:
        assert cli("baseline", "save", "a", tmp_path / "a.json", "--runs", imported)[0] == 0
        assert olmes_suite.gate(tmp_path / "a.json", olmes_suite.load("b", imported)).exit == 1
        with pytest.raises(UsageError, match="is a baseline file"):
            olmes_suite.load(tmp_path / "a.json")

    def test_responses_of_imported_scores(self, imported: Path) -> None:
        run = olmes_suite.load("a", imported)
        assert len(run.documents("own")) == 40 and run.responses("own").empty

    def test_bad_input(self, imported: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="two runs are needed"):
            olmes_suite.compare("a", runs=imported)
        with pytest.raises(UsageError, match="has no score of 'gsm8k'"):
            olmes_suite.compare("a", "b", runs=imported, task="gsm8k")
        with pytest.raises(UsageError, match="unknown key 'margn'"):
            olmes_suite.gate("a", "b", runs=imported, config={"margn": 1})
        with pytest.raises(UsageError, match="no run 'c'"):
            olmes_suite.load("c", imported)
        with pytest.raises(TypeError, match="suites"):
            olmes_suite.evaluate("model", suites="dev")  # type: ignore[call-arg]
        os.truncate(imported / "b/instances/own.parquet", 10)
        with pytest.raises(DataError, match=r"own\.parquet cannot be read"):
            olmes_suite.load("b", imported).documents("own")

    def test_runs_that_share_no_task(self, imported: Path, tmp_path: Path) -> None:
        from olmes_suite.runs.imports import import_scores

        (tmp_path / "c.jsonl").write_text('{"task":"other","doc_id":1,"score":1}\n')
        import_scores(tmp_path / "c.jsonl", "c", imported, ["olmes"])
        with pytest.raises(NotComparable, match="share no task"):
            olmes_suite.compare("a", "c", runs=imported)
