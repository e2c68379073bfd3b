"""A built page of the leaderboard, read back."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path

from olmes_suite.cli.main import run as olmes


class Page(HTMLParser):
    """The table and the scripts of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.rows: dict[str, dict[str, dict[str, str]]] = {}
        self.scripts: dict[str, str] = {}
        self._row = self._script = None
        self.tags: list[tuple[str, dict]] = []
        self.feed(self.text)
        self.data = json.loads(self.scripts["olmes-data"])

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "tr" and "data-run" in found:
            self._row = self.rows.setdefault(found["data-run"], {})
        if tag == "td" and "data-task" in found:
            self._row[found["data-task"]] = found
        self._script = found.get("id") if tag == "script" else None

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def chunk(self, name):
        return json.loads(zlib.decompress(base64.b64decode(self.scripts[f"chunk-{name}"]), -15))


def built(runs: Path, *more: str) -> Page:
    out = runs.parent / "board.html"
    assert olmes(["leaderboard", "--runs", str(runs), "--out", str(out), *more]) == 0
    return Page(out)
