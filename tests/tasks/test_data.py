"""Where documents come from: mirrors in order, the Hub at a pinned revision, fixed draws, content hashes."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from olmes_suite.errors import DataError, MissingData
from olmes_suite.tasks import documents
from olmes_suite.tasks.documents import DataSource, DataSpec

SPEC = DataSpec("me/set", "main", "abc123", {"q": "string", "n": "int"}, {"test": ["new", "old"]})


def table(rows: int, first: int = 0) -> pa.Table:
    return pa.table({"q": [f"question {i}" for i in range(first, first + rows)], "n": list(range(first, first + rows))})


def write(mirror: Path, name: str, content: pa.Table) -> None:
    path = mirror / "me/set/main" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)


def test_the_first_mirror_and_the_preferred_name_win(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write(b, "new", table(2))
    write(b, "old", table(3))
    source = DataSource((a, b))
    assert documents.load_split(source, SPEC, "test").num_rows == 2
    write(a, "old", table(4))
    assert documents.load_split(source, SPEC, "test").num_rows == 4


def test_the_hub_is_asked_for_the_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load(path: str, config: str, *, split: str, revision: str) -> datasets.Dataset:
        asked.append((path, config, split, revision))
        if split == "new":
            raise ValueError("Unknown split 'new'")
        return datasets.Dataset(table(5))

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert documents.load_split(DataSource(), SPEC, "test").num_rows == 5
    assert asked == [("me/set", "main", "new", "abc123"), ("me/set", "main", "old", "abc123")]


@pytest.mark.parametrize(("answers", "cached_only"), [(True, [False, True, True]), (False, [True, True, True])])
def test_an_unreachable_hub_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answers: bool, cached_only: list[bool]
) -> None:
    import logging

    import datasets

    modes = []

    def load(*_: Any, **__: Any) -> Any:
        modes.append(datasets.config.HF_HUB_OFFLINE)
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("Couldn't reach 'me/set' on the Hub")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(documents, "_hub_answers", lambda: answers)
    monkeypatch.setattr(documents, "_hub_unreachable", None)
    one_name = DataSpec("me/set", "main")
    for _ in range(3):
        with pytest.raises(MissingData, match=r"me/set \(main, test\).*olmes data pull") as raised:
            documents.load_split(DataSource(), one_name, "test")
        assert "(the Hub cannot be reached)" in raised.value.of("mine")
    assert modes == cached_only and not datasets.config.HF_HUB_OFFLINE  # the cache is looked into each time
    assert "Retry" not in capfd.readouterr().err


def test_what_the_hub_does_not_have_does_not_cut_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("nothing within reach")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(documents, "_hub_unreachable", False)
    with pytest.raises(MissingData, match=r"--task TASK --out DATA_DIR \(nothing within reach\)$") as raised:
        documents.load_split(DataSource(), DataSpec("me/set", "main"), "test")
    assert "--task mine --out" in raised.value.of("mine")
    assert documents._hub_unreachable is False


def test_a_set_that_is_on_no_hub_says_so() -> None:
    with pytest.raises(MissingData, match="local mirror only"):
        documents.load_split(DataSource(), DataSpec("me/set", "main", hub=False), "test")


def test_the_fixed_draw_is_made_from_the_full_split_only(tmp_path: Path) -> None:
    spec = DataSpec("me/set", "main", columns={"n": "int"}, subset={"full": 50, "k": 5, "seed": 1234})
    write(tmp_path, "test", table(50))
    drawn = documents.load_split(DataSource((tmp_path,)), spec, "test")["n"].to_pylist()
    assert drawn == random.Random(1234).sample(range(50), 5)
    write(tmp_path, "test", table(5))
    assert documents.load_split(DataSource((tmp_path,)), spec, "test")["n"].to_pylist() == [0, 1, 2, 3, 4]


def test_every_wrong_column_is_named(tmp_path: Path) -> None:
    write(tmp_path, "new", pa.table({"n": ["one"]}))
    with pytest.raises(DataError, match="column 'q' is missing; column 'n' is string, expected int"):
        documents.load_split(DataSource((tmp_path,)), SPEC, "test")


def test_the_content_hash_is_of_rows_not_of_files() -> None:
    whole, parts = table(6), pa.concat_tables([table(4), table(2, first=4)])
    assert documents.content_hash(whole, ["q", "n"]) == documents.content_hash(parts, ["n", "q"])
    assert documents.content_hash(whole.append_column("more", [[0] * 6]), ["q", "n"]) == documents.content_hash(
        whole, ["q", "n"]
    )
    assert documents.content_hash(whole, ["q"]) != documents.content_hash(whole, ["q", "n"])
    assert documents.content_hash(table(6, first=1), ["q", "n"]) != documents.content_hash(whole, ["q", "n"])


def test_mirrors_of_the_environment_come_after_those_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b/nltk").mkdir(parents=True)
    monkeypatch.setenv("OLMES_DATA_DIR", f"{tmp_path}/b:{tmp_path}/c")
    monkeypatch.setenv("NLTK_DATA", "/own")
    found = DataSource.from_environment([tmp_path / "a"])
    assert found.mirrors == (tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert os.environ["NLTK_DATA"] == "/own"  # making a source changes nothing
    for _ in range(2):
        found.show_to_nltk()
        assert os.environ["NLTK_DATA"] == f"/own:{tmp_path}/b/nltk"
