"""The share picture: which browser makes it, and what happens where none does."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from board_store import Made, make
from board_text import ONE

from leaderboard import picture
from olmes_suite.cli.main import run as olmes
from olmes_suite.errors import BrowserFailed, UsageError

GOOD = r"""#!/bin/sh
for word in "$@"; do
  case "$word" in
    --screenshot=*) printf '\211PNG\r\n\032\nrest' > "${word#--screenshot=}" ;;
    --dump-dom) echo '<html data-size="300x200">' ;;
  esac
done
"""
BAD = {
    "no picture": ("#!/bin/sh\necho '<html data-size=\"3x2\">'\n", "made no picture"),
    "no size": ("#!/bin/sh\n", "did not show the page"),
    "failure": ("#!/bin/sh\necho 'no display' >&2; exit 9\n", "exit status 9: no display"),
}


@pytest.fixture
def runs(tmp_path):
    make(tmp_path / "runs", Made("a", "m", ONE))
    return tmp_path / "runs"


def browser(folder: Path, script: str) -> str:
    program = folder / "browser"
    program.write_text(script)
    program.chmod(0o755)
    return str(program)


def pictured(runs: Path, out: Path) -> int:
    return olmes(["leaderboard", "--runs", str(runs), "--out", str(runs.parent / "b.html"), "--png", str(out)])


def test_the_named_browser_makes_the_picture(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OLMES_BROWSER", browser(tmp_path, GOOD))
    out = tmp_path / "pictures" / "board.png"
    assert pictured(runs, out) == 0
    assert out.read_bytes().startswith(b"\x89PNG") and [*out.parent.iterdir()] == [out]
    assert f"{out}: {out.stat().st_size} bytes" in capsys.readouterr().out


@pytest.mark.parametrize("fault", BAD)
def test_a_browser_that_fails_is_one_line_and_keeps_the_old_picture(runs, tmp_path, monkeypatch, capsys, fault):
    script, words = BAD[fault]
    monkeypatch.setenv("OLMES_BROWSER", browser(tmp_path, script))
    out = tmp_path / "board.png"
    out.write_text("old")
    assert pictured(runs, out) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said
    assert out.read_text() == "old"


def test_no_browser_is_said_before_the_page_is_built(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OLMES_BROWSER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pictured(runs, tmp_path / "board.png") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "install chromium" in said and "$OLMES_BROWSER" in said
    assert not (tmp_path / "b.html").exists()


def test_a_wrong_name_is_refused(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OLMES_BROWSER", "no-such-browser")
    with pytest.raises(UsageError, match="names no program: no-such-browser"):
        picture.find_browser()
    assert pictured(runs, tmp_path / "board.jpg") == 2
    assert "ends in .png" in capsys.readouterr().err


def test_a_browser_that_cannot_be_started(tmp_path):
    page = tmp_path / "b.html"
    page.write_text("")
    with pytest.raises(BrowserFailed, match="cannot be started"):
        picture.picture(page, tmp_path / "b.png", str(page), (300, 200))


@pytest.mark.slow
def test_a_real_browser_fits_the_picture_to_the_table(runs, tmp_path, monkeypatch):
    monkeypatch.delenv("OLMES_BROWSER", raising=False)
    if not any(map(shutil.which, picture.BROWSERS)):
        pytest.skip("no browser on this machine (Debian: apt-get install chromium)")
    out = tmp_path / "board.png"
    assert pictured(runs, out) == 0
    wide, high = struct.unpack(">II", out.read_bytes()[16:24])
    assert 400 < wide < 2000 and 150 < high < 1000  # one row, one task, at twice the size
