"""The vocabulary of the evaluation side, and what keeps compiled code in step with its sources."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numba
import pytest

from decontam.text import hashing, tokens
from decontam.text import vocabulary as words

TEXTS = [
    "The cat; the CAT", "", "naïve Straße ﬃ ½", "e\u0301te\u0301 \u1100\u1161\u11a8 x", "人間 likes ไทย", "\ud800 lone",
    "the cat", "\ufdfa" * 40, " … ", "e\u0301",
]  # fmt: skip


def test_words_are_the_tokens_and_their_places() -> None:
    found = words.read(TEXTS, tokens.character_table(normalized=False))
    codes = found.codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    ends = [0, *found.code_ends.tolist()]
    vocabulary = [codes[start:end] for start, end in itertools.pairwise(ends)]
    assert len(vocabulary) == len(set(vocabulary))
    for text, (first, end) in zip(TEXTS, found.borders.tolist(), strict=True):
        assert [vocabulary[number] for number in found.numbers[first:end]] == tokens.tokenize(text)
        assert [tuple(place) for place in found.places[first:end].tolist()] == tokens.spans(text)


@pytest.mark.parametrize("texts", [[], [""], [" ", "e\u0301"]])
def test_words_of_almost_nothing(texts: list[str]) -> None:
    found = words.read(texts, tokens.character_table(normalized=False))
    assert len(found.borders) == len(texts)
    assert len(found.numbers) == len(found.places) == sum(len(tokens.tokenize(text)) for text in texts)


def test_the_character_table_says_of_each_character_what_tokenize_says() -> None:
    table, expansions = tokens.character_table(normalized=False)
    for code in [*range(0x3000), *range(0xAC00, 0xAC80), *range(0xF900, 0x10000), *range(0x1D400, 0x1D500)]:
        kind, value = int(table[code]) >> 24, int(table[code]) & 0xFFFFFF
        if kind == tokens.JOINS:
            assert chr(code) in tokens.joining()
            continue
        entries = (
            expansions[value + 1 : value + 1 + expansions[value]].tolist() if kind == tokens.SEVERAL else [table[code]]
        )
        made = "".join(chr(int(e) & 0xFFFFFF) if int(e) >> 24 else " " for e in entries)
        assert tokens.tokenize(made) == tokens.tokenize(chr(code)), hex(code)


def test_processes_that_compile_at_the_same_time_keep_both_signatures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one saves while the first has read the index and not yet written it: it has to wait."""
    (tmp_path / "twice.py").write_text("def twice(n):\n    return n + n\n")
    spec = importlib.util.spec_from_file_location("twice", tmp_path / "twice.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(hashing, "_cache", lambda: str(tmp_path / "compiled"))
    one, two = (hashing.compiled(module.twice)._cache for _ in range(2))
    signatures = [(numba.int64,), (numba.float64,)]
    codes = list(map(numba.njit(signatures)(module.twice).overloads.get, signatures))
    saving = threading.Thread(target=two.save_overload, args=(signatures[1], codes[1]))
    write = one._cache_file._save_index

    def late(overloads: Any) -> None:
        saving.start()
        saving.join(0.5)
        write(overloads)

    one._cache_file._save_index = late
    one.save_overload(signatures[0], codes[0])
    saving.join()
    names = one._cache_file._load_index()
    assert len(names) == len(set(names.values())) == 2


def test_every_module_with_compiled_code_is_in_the_stamp_of_its_cache(tmp_path: Path) -> None:
    package = Path(hashing.__file__).parent.parent
    compiled = {
        p.relative_to(package).with_suffix("").as_posix()
        for p in package.rglob("*.py")
        if re.search(r"^@(compiled|inlined|intrinsic)", p.read_text(), re.M)
    }
    assert compiled and compiled <= set(hashing.SOURCES)
    for name in hashing.SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(package / f"{name}.py", tmp_path / f"{name}.py")
    assert hashing.stamp(tmp_path) == hashing.stamp(package)
    for name in hashing.SOURCES:
        before, file = hashing.stamp(tmp_path), tmp_path / f"{name}.py"
        file.write_text(file.read_text() + "\n")
        assert hashing.stamp(tmp_path) != before
    assert hashing.stamp(package) in str(words._numbered.stats.cache_path)  # type: ignore[attr-defined]
