"""Plugins by name: the table, entry points, and what goes wrong with either."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from olmes_suite.errors import UsageError, nearest
from olmes_suite.plugins import Plugins, install, require

GROUP = "olmes.things"
THINGS = Plugins("thing", GROUP, {"square": "math:sqrt", "dec": "decimal:Decimal"}, reserved=("auto",))


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_thing.py").write_text("raise ZeroDivisionError('one\\ntwo')")
    (tmp_path / "refusing_thing.py").write_text(
        "from olmes_suite.errors import UsageError\nraise UsageError('in its own words')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    places = {
        "theirs": "json:dumps", "square": "json:loads", "absent": "no_such_module:X", "nothing": "json:no_such_name",
        "broken": "broken_thing:X", "refusing": "refusing_thing:X",
    }  # fmt: skip
    made = [EntryPoint(name, place, GROUP) for name, place in places.items()]
    made.append(EntryPoint("theirs", "json:loads", GROUP))
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: made if group == GROUP else [])


@pytest.mark.usefixtures("points")
def test_the_table_comes_first_then_the_first_entry_point() -> None:
    import json
    import math

    assert THINGS.load("square") is math.sqrt
    assert THINGS.load("theirs") is json.dumps
    assert THINGS.names() == ["auto", "square", "dec", "absent", "broken", "nothing", "refusing", "theirs"]
    assert "theirs" in THINGS and "auto" not in THINGS and "other" not in THINGS


@pytest.mark.usefixtures("points")
def test_a_name_imports_nothing() -> None:
    THINGS.check("broken")
    assert THINGS.names() and "broken_thing" not in sys.modules


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("squre", "unknown thing 'squre', did you mean 'square'?; known: auto, square, dec, absent"),
        ("zzz", "unknown thing 'zzz'; known: auto, square"),
        ("absent", "thing 'absent' (no_such_module:X) cannot be imported: ModuleNotFoundError: No module named"),
        ("nothing", "thing 'nothing' (json:no_such_name) cannot be imported: AttributeError: "),
        ("broken", "thing 'broken' (broken_thing:X) cannot be imported: ZeroDivisionError: one"),
        ("refusing", "in its own words"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(name: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        THINGS.load(name)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_defect_of_our_own_plugin_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError):
        Plugins("thing", GROUP, {"own": "no_such_module:X"}).load("own")


def test_the_extra_of_a_missing_package() -> None:
    require("json", "ray", "never said")
    with pytest.raises(UsageError, match=r"^--ray needs Ray: pip install 'olmes-suite\[ray\]'$"):
        require("no_such_module", "ray", "--ray needs Ray")
    assert install("train") == "pip install 'olmes-suite[train]'"


def test_the_nearest_name() -> None:
    assert nearest("evaluate", ["eval", "tasks"]) == ", did you mean 'eval'?"
    assert nearest("zzz", ["eval"]) == ""
