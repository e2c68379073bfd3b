"""Building the page of a run store: read, arrange, compare, embed, write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from leaderboard import board as boards
from leaderboard import comparisons, instances, page, published, reading
from leaderboard.instances import Choice, Chunk
from leaderboard.page_data import Board, Problem
from olmes_suite.files import write_text
from olmes_suite.runs.ledger import LEDGER, read_ledger
from olmes_suite.runs.schema import RESULTS

CELLS = 400
"""Without --instances, documents are embedded up to so many cells."""


@dataclass(frozen=True, slots=True)
class Built:
    """What was written."""

    path: Path
    rows: int
    tasks: int
    bytes: int
    instances: Choice
    problems: tuple[Problem, ...]


def load(runs: Path, with_published: bool = False) -> Board:
    """The board of a run store. Raises UsageError where there is no such folder."""
    found, problems = reading.read_store(runs)
    ledger = read_ledger(runs / LEDGER) if (runs / LEDGER).is_file() else []
    return boards.make(found, problems, ledger, published.rows() if with_published else ())


def choose(board: Board, wanted: Choice | None) -> Choice:
    """What to embed: as wanted, else all documents of a board that is not large."""
    if wanted is not None:
        return wanted
    return "all" if sum(len(row.cells) for row in board.rows if row.runs) <= CELLS else "none"


def build(runs: Path, out: Path, wanted: Choice | None = None, with_published: bool = False) -> Built:
    """Write the page of a run store. Raises UsageError for a folder that is not there, StorageError for a full disk."""
    board = load(runs, with_published)
    choice = choose(board, wanted)
    found, unread = comparisons.compare(board, comparisons.LIGHT if choice == "none" else 10**9)
    troubles: list[Problem] = []
    packed: list[Chunk] = list(instances.chunks(board, choice, troubles))
    board = replace(board, problems=(*board.problems, *_merged([*unread, *troubles])))
    text = page.render(board, found, packed, choice, runs.resolve().name)
    write_text(out, text)
    return Built(out, len(board.rows), len(board.columns), len(text), choice, board.problems)


def _merged(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


def state(runs: Path) -> tuple[tuple[str, float], ...]:
    """What of a run store the page depends on, to see when it has changed."""
    if not runs.is_dir():
        return ()
    files = [runs / LEDGER, runs / "floors.json", *sorted(runs.glob(f"*/{RESULTS}"))]
    seen = []
    for file in files:
        try:
            seen.append((str(file), file.stat().st_mtime))
        except OSError:
            continue
    unfinished = runs / ".unfinished"
    return (
        (*seen, *((str(path), 0.0) for path in sorted(unfinished.glob("*/")))) if unfinished.is_dir() else tuple(seen)
    )
