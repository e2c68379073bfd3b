"""The page: one HTML text from the board, the pairs, and the files under `static/`."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from leaderboard import comparisons
from leaderboard.comparisons import Pair
from leaderboard.embedded import data
from leaderboard.instances import Chunk, pack
from leaderboard.page_data import Board, Row
from leaderboard.table import groups, row_of, visible
from olmes_suite.comparison.reports import short
from olmes_suite.runs import differences
from olmes_suite.runs.schema import Manifest

STATIC = Path(__file__).parent / "static"
SCRIPTS = (
    "core", "numbers", "state", "charts", "table", "rows", "compare", "documents", "diff", "lineage", "views", "export",
    "main",
)  # fmt: skip
"""Scripts in the order in which they are joined; they share one scope."""
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that are not valid in HTML or in UTF-8."""
_LEFT_OUT = frozenset({"plan", "tasks", "data", "schema"})
"""Long parts of a manifest that the page shows in another form."""


def render(board: Board, pairs: Sequence[Pair], documents: Iterable[Chunk], instances: str, title: str) -> str:
    """Render the whole file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STATIC), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (STATIC / "page.css").read_text(encoding="utf-8"), _script()
    head = environment.get_template("page.html").render(
        title=visible(title),
        policy=_policy(style, script),
        style=_Raw(style),
        script=_Raw(script),
        board=board,
        groups=groups(board),
        rows=[row_of(board, at, row) for at, row in enumerate(board.rows)],
        problems=[(visible(p.run), visible(p.reason, 600)) for p in board.problems],
        data=_Raw(_embedded(data(board, instances, title))),
        parts=any(cell.part for row in board.rows for cell in row.cells.values()),
        short=short,
        breakable=_breakable,
        wide=min(4, (len(board.columns) + len(board.suites) + 2 * board.costs) // 12),
        watched=any(row.watch for row in board.rows),
    )
    parts = [_UNFIT.sub("\ufffd", head)]
    details = [
        Chunk("details", pack([_details(row) for row in board.rows])),
        Chunk("pairs", pack(comparisons.as_json(pairs, board))),
    ]
    for chunk in (*details, *documents):
        parts.append(f'<script type="application/octet-stream" id="chunk-{chunk.id}">{chunk.data}</script>\n')
    parts.append("</body>\n</html>\n")
    return "".join(parts)


class _Raw(str):
    """Text that is put into the page without escaping: the files under `static/`, and JSON without `<`."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _breakable(name: str) -> _Raw:
    """Return a name as HTML that may break after its underscores and colons."""
    return _Raw(re.sub(r"(?<=[_:/|-])(?=[^_:/|-])", "<wbr>", html.escape(name)))


def _script() -> str:
    """Join the scripts, without indentation and lines of comments, which every page would carry."""
    lines = "\n".join((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS).split("\n")
    kept = [line for line in map(str.strip, lines) if line and not line.startswith(("//", "/** "))]
    return '(() => {\n"use strict";\n' + "\n".join(kept) + "\n})();\n"


def _policy(style: str, script: str) -> str:
    """Write the content security policy: only the page's script and style, by their hashes, and no requests."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src 'none'; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _embedded(value: object) -> str:
    """Encode a value as ASCII JSON that cannot end its script element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _details(row: Row) -> dict[str, Any]:
    """Build the details of a row, which a click shows: its settings, and the manifests without their longest parts."""
    return {
        "facts": dict(row.facts),
        "checkpoint": differences.checkpoint(row.runs[0].manifest) if row.facts else "",
        "runs": [
            {key: value for key, value in run.manifest.as_json().items() if key not in _LEFT_OUT}
            | _sources(run.manifest)
            for run in row.runs
        ],
    }


def _sources(manifest: Manifest) -> dict[str, Any]:
    """List the data sets with their revisions, each once, and the lineage with counts instead of documents."""
    named = {f"{used.path}@{used.revision} ({used.origin})" for used in manifest.data.values()}
    return {"data": sorted(named), "lineage": manifest.lineage.summary()}
