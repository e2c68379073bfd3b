"""The scan against a brute-force implementation, on random and on planted cases."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decontam_cases import brute_force, cases, index_of, ours
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decontam.matching import exact, kernel
from decontam.matching.filter import Filter
from decontam.matching.index import load
from decontam.matching.rule import Rule
from decontam.matching.verify import Verifier
from decontam.text import tokens
from decontam.training_data.batches import Batch
from olmes_suite.errors import StorageError


@settings(max_examples=150, deadline=None)
@given(cases())
@example(([["a b c a b c a b c"]], [["a b c a b c"]], Rule(3, 0.5)))  # repeated n-grams
@example(([[""], ["…"]], [["", "a"]], Rule(2, 0.0)))
@example(([["a b", "c"]], [["c a b"], ["a b"]], Rule(4, 0.5)))  # a short item of two fields
@example(([["a", "b c"]], [["a b c"]], Rule(4, 0.5)))
def test_the_scan_finds_what_brute_force_finds(case: tuple[list[list[str]], list[list[str]], Rule]) -> None:
    items, rows, rule = case
    found, _ = ours(items, rows, rule)
    assert found == brute_force(items, rows, rule)


def test_thousands_of_pairs_in_one_index() -> None:
    random = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]

    def text(low: int, high: int) -> str:
        return " ".join(random.choice(words, random.integers(low, high)))

    items = [[text(0, 30)] for _ in range(300)]
    rows = []
    for _ in range(300):
        source = tokens.tokenize(items[random.integers(300)][0])
        start = random.integers(0, max(1, len(source)))
        rows.append([text(0, 10) + " " + " ".join(source[start : start + random.integers(0, 30)]) + " " + text(0, 10)])
    rule = Rule(variant="paper")
    found, _ = ours(items, rows, rule)
    expected = brute_force(items, rows, rule)
    assert found == expected
    assert len(expected) > 100 and {kind for kind, _ in expected.values()} == {"ngram", "short"}


def test_spans_hold_the_matching_tokens_of_the_original_texts() -> None:
    items = [["The ﬁrst cafe\u0301 in Zürich opened — so they say — in 1881, near the lake."]]
    rows = [["no", "They told us: the first café in ZÜRICH opened, so they say, in 1881! Not near the sea."]]
    _, pairs = ours(items, rows, Rule())
    (pair,) = pairs.values()
    (start, end), (a, b) = pair.eval.spans[0], pair.train.spans[0]
    assert (
        items[0][0][start:end]
        == "The ﬁrst cafe\u0301 in Zürich opened — so they say — in 1881, near the"[: end - start]
    )
    assert rows[0][1][a:b] == "the first café in ZÜRICH opened, so they say, in 1881"
    assert tokens.tokenize(items[0][0][start:end]) == tokens.tokenize(rows[0][1][a:b])
    assert pair.eval.parts == ("f0",) and pair.train.parts == ("p1",)


def test_a_document_of_a_megabyte() -> None:
    secret = "one question that nobody else would ever put in quite these words before lunch"
    filler = "the cat sat on the mat, and 猫 sat too. " * 30_000
    found, _ = ours([[secret]], [[filler], [filler[:500_000] + ". " + secret + ". " + filler[:500_000]]], Rule())
    assert found == {(1, 0): ("ngram", 1.0)}


def test_matches_of_a_row_add_up_and_grams_stop_at_a_border() -> None:
    item = [["a b c d e f g h i j k l m n o p"]]
    assert ours(item, [["a b c d e f g h", "i j k l m n o p"]], Rule())[0] == {(0, 0): ("ngram", 1.0)}
    assert ours(item, [["a b c d e f g", "h i j k l m n o"]], Rule(threshold=0.4))[0] == {(0, 0): ("ngram", 0.5)}
    assert ours(item, [["a b c d e f g h"]], Rule())[0] == {}  # half is not more than half


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_spans_and_tokens_agree(text: str) -> None:
    found = tokens.tokenize(text)
    spans = tokens.spans(text)
    assert len(spans) == len(found)
    assert all(0 <= start < end <= len(text) for start, end in spans)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_the_kernel_and_python_see_the_same_tokens(text: str) -> None:
    """Every token of a text, as an item of its own under n = 1, is found in the text, and nothing else is."""
    own = sorted(set(tokens.tokenize(text)))
    others = ["zzzq", "0xq", "漢字"]
    items = [[word] for word in [*own, *others]]
    found, _ = ours(items, [[text]], Rule(n=1, threshold=0.5))
    assert {own[i] for _, i in found if i < len(own)} == {
        word for word in own if tokens.tokenize(word) == [word]
    } or not own


def test_tokens_are_what_the_documentation_says() -> None:
    def plain(text: str) -> list[str]:
        return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())

    for text in ("It's 3.5 m² — naïve, STRASSE/Straße", "한국어 문장", "Ünïcödé_name x²"):
        assert tokens.tokenize(text) == plain(text)
    assert tokens.tokenize("漢字かな混じり文ABC") == [*"漢字かな混じり文", "abc"]
    assert tokens.tokenize("สวัสดี") == [c for c in "สวัสดี" if c.isalnum()]


def test_every_character_has_the_entry_that_python_gives() -> None:
    table, expansions = tokens.character_table(normalized=False)
    for code in [*range(0x3000), *range(0xF900, 0x10000), 0x1D400, 0x20000]:
        if 0xD800 <= code < 0xE000:
            continue
        kind, value = int(table[code]) >> 24, int(table[code]) & 0xFFFFFF
        entries = [(kind, value)]
        if kind == tokens.SEVERAL:
            entries = [(int(e) >> 24, int(e) & 0xFFFFFF) for e in expansions[value + 1 : value + 1 + expansions[value]]]
        if kind == tokens.JOINS:
            continue
        rebuilt = "".join(chr(v) if k else " " for k, v in entries)
        assert tokens.tokenize(f"{rebuilt}") == tokens.tokenize(chr(code)), hex(code)


@pytest.mark.long
@pytest.mark.parametrize("broken", [b"\xff", b"ab\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80", b"a\x80b"])
def test_broken_utf8_is_seen(broken: bytes) -> None:
    index = index_of([["a b c"]], Rule())
    batch = Batch.of_texts([b"fine", broken], [0, 1], 2, ["t", "t"])
    assert Filter(index, 0.5)(batch).broken == [1]


def test_kernels_are_compiled_for_one_kind_of_arrays(tmp_path: Path) -> None:
    """An index that was just built or that was loaded, text that a reader may write to or not: seconds for each."""
    built = index_of([["a b c"]], Rule(3))
    built.save(tmp_path / "index")
    loaded = load(tmp_path / "index")
    assert loaded is not None
    batch = Batch.of_texts([b"so a b c"], [0], 1, ["t"])
    seen = set()
    for index in (built, loaded):
        for data in (batch.data, batch.data.copy()):
            one = replace(batch, data=data)
            assert Filter(index, 0.5)(one).candidates == [0]
            assert len(Verifier(index, 0.5)(one, [0], frozenset())) == 1
            seen.add((len(kernel.scan_rows.signatures), len(exact.compare_rows.signatures)))
    assert seen == {(1, 1)}


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x93NUMPY\x01\x00v\x00{'descr': '|b1', ("])
@pytest.mark.parametrize("name", ["keys.npy", "short.npy", "index.json"])
def test_a_damaged_index_counts_as_none_and_is_replaced(tmp_path: Path, name: str, damage: bytes) -> None:
    index = index_of([["a b c d e f g h i"]], Rule(3, 0.5))
    folder = tmp_path / "index"
    index.save(folder)
    (folder / name).write_bytes(damage)
    assert load(folder) is None
    index.save(folder)
    assert load(folder) is not None
    before = (folder / name).stat().st_ino
    index.save(folder)
    assert (folder / name).stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(file: Path, array: np.ndarray) -> None:
        raise OSError("1114112 requested and 51168 written")  # as NumPy says it, without a number of the error

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        index_of([["a b c d"]], Rule(3, 0.5)).save(tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_had_begun_to_write_is_removed_after_a_day(tmp_path: Path) -> None:
    for name in (".old.1.part", ".new.2.part"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".old.1.part", (1, 1))
    index_of([["a b c d"]], Rule(3, 0.5)).save(tmp_path / "index")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.2.part", "index"]
