"""RULER: the score, the documents in a mirror, the command that makes them, and what is said without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers import olmes_here, one_line_error
from task_parity import sample_docs, task

from olmes_suite.cli.data import _names
from olmes_suite.errors import MissingData, UsageError
from olmes_suite.tasks import index, ruler, suites
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task

FILE = index.task_file(index.index()["olmo3_ruler_8k_vt"])


@pytest.mark.parametrize(("response", "recall"), [("9083361", 0.5), ("so 4410273\nand 9083361.", 1.0), ("", 0.0)])
def test_the_share_of_wanted_texts(response: str, recall: float) -> None:
    loaded = task("olmo3_ruler_4k_niah_single_1")
    [doc] = sample_docs("olmo3_ruler_4k_niah_single_1")
    assert loaded.scorer.one(doc, response).scores["recall"] == recall


def test_every_length_is_a_row_with_13_tasks() -> None:
    entries = [entry.task for entry in suites.load("long").tasks]
    assert entries == [f"olmo3_ruler_{length}" for length in ruler.LENGTHS]
    for length in ruler.LENGTHS:
        members = index.index()[f"olmo3_ruler_{length}"].members
        assert members == tuple(f"olmo3_ruler_{length}_{name}" for name in ruler.TASKS)


def test_without_documents_one_line_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"olmes data ruler --tokenizer MODEL --length 8k --out DATA_DIR"):
        len(load_task(FILE, DataSource((tmp_path,))).task_docs)


def test_a_pull_of_everything_leaves_out_what_is_made() -> None:
    assert not any(name.startswith("olmo3_ruler") for name in _names(None, None))
    assert _names(["long"], None)[0] == "olmo3_ruler_4k"


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    called: list[str] = []

    def rows(name: str, tokens: int, tokenizer: str) -> list[dict[str, Any]]:
        called.append(name)
        if name == "qa_squad":
            raise ConnectionError("no network")
        found = datasets.Dataset.from_list(
            [{"input": f"{name} {at}", "outputs": ["a", "b"], "gen_prefix": "Answer:"} for at in range(5)]
        )
        return [dict(row) for row in found]

    monkeypatch.setattr(ruler, "_rows", rows)
    monkeypatch.setattr(ruler, "_check_tokenizer", lambda name: None)
    monkeypatch.setattr(ruler, "NEEDED", ())
    return called


def test_documents_are_made_once_and_read_from_the_mirror(tmp_path: Path, generators: list[str]) -> None:
    verdicts = list(ruler.make("model", ["8k"], tmp_path, 3))
    assert [v.state for v in verdicts].count("pulled") == 12
    [failed] = [v for v in verdicts if v.state == "missing"]
    assert (failed.place, failed.detail) == ("ruler/qa_squad_8k/test.parquet", "the generator failed: no network")
    assert [v.state for v in ruler.make("model", ["8k"], tmp_path, 3)].count("kept") == 12
    assert generators.count("vt") == 1
    loaded = load_task(FILE, DataSource((tmp_path,)))
    [request] = loaded.requests(loaded.task_docs[2], 2, chat=True)
    assert len(loaded.task_docs) == 3
    assert request.messages == (("user", "vt 2"),) and request.prefix == "Answer:" and request.max_tokens == 30


def test_documents_without_an_answer_are_not_kept(
    tmp_path: Path, generators: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ruler, "_rows", lambda *_: [{"input": "x", "outputs": [], "gen_prefix": ""}])
    assert {v.state for v in ruler.make("model", ["4k"], tmp_path, 3)} == {"missing"}
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("lengths", "documents", "message"),
    [(["5k"], 3, "unknown length '5k'"), (["4k"], 0, "must be from 1 to 500"), (["4k"], 501, "must be from 1 to 500")],
)
def test_wrong_options(tmp_path: Path, generators: list[str], lengths: list[str], documents: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(ruler.make("model", lengths, tmp_path, documents))
    assert generators == []


def test_missing_packages_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruler, "NEEDED", ("no_such_module",))
    done = olmes_here("data", "ruler", "--tokenizer", "m", "--out", tmp_path / "mirror", tmp=tmp_path)
    assert "pip install 'lm_eval[ruler]'" in one_line_error(done)
    assert not (tmp_path / "mirror").exists()
