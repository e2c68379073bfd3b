"""Users' YAML files: typed strictly, every mistake one line with the file, the key, the nearest key and the line."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError
from olmes_suite.yaml_files import Between, typed


@dataclass(frozen=True, slots=True)
class Entry:
    path: str
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    name: str
    entries: tuple[str | Entry, ...] = ()
    rate: float = 1.0
    kind: Literal["sum", "mean"] = "sum"
    shares: Mapping[Literal["empty", "cut"], Annotated[float, Between(0, 1)]] | None = None
    margins: Mapping[str, Annotated[float, Between(0, 100, per=100)]] | None = None
    rows: tuple[Entry, ...] = ()
    texts: tuple[str, ...] = ()


class Colour(Enum):
    red = "red"


def refusal(kind: Any, data: Any, where: Any = "f") -> str:
    with pytest.raises(UsageError) as caught:
        typed(kind, data, where)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "given", "read"),
    [
        (float, 5, 5), (float, "5e-6", 5e-6), (float, "5", 5.0), (int, 5, 5), (bool, True, True), (str, "5", "5"),
        (tuple[str, ...], "a", ("a",)), (tuple[str, ...], ["a", "b"], ("a", "b")), (int | None, None, None),
        (str | tuple[str, ...], "a", "a"), (str | tuple[str, ...], ["a"], ("a",)), (Literal["a"] | int | None, 3, 3),
        (Mapping[str, Any], {1: 2}, {"1": 2}), (Any, [1, "x"], [1, "x"]), (Colour | str, "red", "red"),
        (Literal["auto", "off"], False, "off"), (Literal["no", "epoch"], False, "no"), (Literal["on", "a"], True, "on"),
        (Annotated[float, Between(0, 100, per=100)], 5, 0.05), (list[str] | None, ["a"], ["a"]), (dict, {1: 2}, {1: 2}),
    ],
)  # fmt: skip
def test_values_are_read_as_they_stand(kind: Any, given: Any, read: Any) -> None:
    found = typed(kind, given, "f")
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (int, "1", "expected a whole number, not '1'"), (int, True, "expected a whole number, not True"),
        (int, 1.0, "expected a whole number, not 1.0"), (float, True, "expected a number, not True"),
        (float, "fast", "expected a number, not 'fast'"), (bool, 1, "expected true or false, not 1"),
        (bool, "yes", "expected true or false, not 'yes'"), (str, 5, "expected text, not 5"), (str, b"a", "not b'a'"),
        (str, datetime.date(2024, 1, 2), "expected text, not datetime.date"), (int, None, "expected a whole number"),
        (Literal[4, 8], True, "True is none of 4, 8"), (Literal["auto", "off"], True, "True is none of auto, off"),
        (Mapping[str, Any], [1], "expected a mapping, not [1]"),
        (list[str], "a", "expected a list, not 'a'"), (Annotated[float, Between(0, 1)], "0.5", "to 1, not '0.5'"),
        (Annotated[float, Between(0, 1)], float("nan"), "from 0 to 1, not nan"),
    ],
)  # fmt: skip
def test_nothing_is_coerced(kind: Any, given: Any, said: str) -> None:
    assert said in refusal(kind, given)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"nmae": "a"}, "f: unknown key 'nmae', did you mean 'name'?; known: name, entries, rate, kind"),
        ({"rate": "x"}, "f: the key 'name' is missing"),
        ({"name": "a", "entries": [{"path": "a"}, {"pth": "b"}]}, "f: entries[1]: unknown key 'pth', did you"),
        ({"name": "a", "entries": [{"limit": 1}]}, "f: entries[0]: the key 'path' is missing"),
        ({"name": "a", "entries": [{"path": "b", "limit": "1"}]}, "f: entries[0]: limit: expected a whole number"),
        ({"name": "a", "entries": [5]}, "f: entries[0]: expected text, not 5"),
        ({"name": "a", "rows": 5}, "f: rows: expected a list of mappings, not 5"),
        ({"name": "a", "kind": "median"}, "f: kind: 'median' is none of sum, mean"),
        ({"name": "a", "shares": {"emtpy": 0.1}}, "f: shares: unknown key 'emtpy', did you mean 'empty'"),
        ({"name": "a", "margins": {"b": 101}}, "f: margins: b: expected a number from 0 to 100, not 101"),
        ([1], "f: expected a mapping, not [1]"),
        (None, "f: expected a mapping, not None"),
        ({"name": None}, "f: name: has no value; expected text"),
        ({"name": "a", "rows": None}, "f: rows: has no value; expected a list of mappings"),
        ({"name": "a", "rows": [None]}, "f: rows[0]: has no value; expected a mapping"),
        ({"name": "a", "texts": None}, "f: texts: has no value; expected text, or a list of texts"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_way(data: Any, said: str) -> None:
    assert said in refusal(Keys, data)


def write(folder: Path, text: str) -> yaml_files.YamlFile:
    (folder / "f.yaml").write_text(text, encoding="utf-8")
    return yaml_files.read(folder / "f.yaml", "recipe")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nkind: median\n", "f.yaml, line 2: kind: 'median'"),
        ("name: a\n\nnmae: b\n", "f.yaml, line 3: unknown key 'nmae'"),
        ("name: a\nentries:\n  - b\n  - path: c\n    limit: x\n", "f.yaml, line 5: entries[1]: limit"),
        ("name: a\nentries:\n  - b\n  - limit: 1\n", "f.yaml, line 4: entries[1]: the key 'path' is missing"),
        ("rate: 1\n", "f.yaml: the key 'name' is missing"),
        ("name: a\nbase: &b {rate: x}\n<<: *b\n", "f.yaml, line 2: unknown key 'base'"),
        ("name: a\n<<: {rate: x}\n", "f.yaml, line 2: rate: expected a number"),
    ],
)
def test_the_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    found = write(tmp_path, text)
    assert said in refusal(Keys, found.data, found.place)


def test_values_of_the_command_line_and_of_other_files_have_no_line_of_this_one(tmp_path: Path) -> None:
    found = write(tmp_path, "name: a\nrate: 1\nkind: sum\n")
    found.data["rate"] = "fast"
    found.replace(["rate"])
    assert "f.yaml: rate: expected a number" in refusal(Keys, found.data, found.place)
    other = yaml_files.YamlFile("pipeline.yaml", {"stages": [found.data]}, included={("stages", 0): found})
    found.data |= {"rate": 1, "kind": "median"}
    where = yaml_files.Place("pipeline.yaml", "stage 'a'", other, ("stages", 0))
    assert refusal(Keys, found.data, where).endswith("f.yaml, line 3: stage 'a': kind: 'median' is none of sum, mean")
    other.replace(["stages", "0", "kind"])
    assert refusal(Keys, found.data, where).startswith("pipeline.yaml: stage 'a': kind")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer:\n  a: 1\nseed: 1\ntrainer:\n  b: 2\n", "the key 'trainer' stands twice, on lines 1 and 4"),
        ("a: [{b: 1, c: 2, b: 1}]", "the key 'b' stands twice, on lines 1 and 1"),
        ("a: [", "cannot be read: line 2, column 1: "),
        ("a: 2024-99-99", "cannot be read: month must be"),
        ("a: 1\n---\nb: 1\n", "cannot be read: line 2, column 1: but found another document"),
        ("a: !!python/object/apply:os.system ['true']", "line 1, column 4: could not determine a constructor"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        write(tmp_path, text)
    assert str(caught.value).startswith(f"recipe {tmp_path / 'f.yaml'}") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_anchors_and_merges_are_no_repeated_keys(tmp_path: Path) -> None:
    found = write(tmp_path, "a: &x {b: 1}\nc: {<<: *x, b: 2}\nd: *x\n1: a\n'1': b\n")
    assert found.data == {"a": {"b": 1}, "c": {"b": 2}, "d": {"b": 1}, 1: "a", "1": "b"}
    assert write(tmp_path, "").data is None


def test_a_tab_in_the_indentation_is_named(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text("tasks:\n\t- gsm8k\n")
    with pytest.raises(UsageError, match=r"line 2, column 1: .*; indent with spaces, not with tabs"):
        yaml_files.read(file, "suite file")
    file.write_text("tasks: [\n")
    with pytest.raises(UsageError) as caught:
        yaml_files.read(file, "suite file")
    assert "tabs" not in str(caught.value)
