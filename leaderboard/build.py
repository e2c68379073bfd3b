"""Building the page of a run store: read, arrange, compare, embed and write."""

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
"""The largest number of cells for which documents are embedded without --instances."""


@dataclass(frozen=True, slots=True)
class Built:
    """The page that was written, and its contents in numbers."""

    path: Path
    rows: int
    tasks: int
    bytes: int
    instances: Choice
    problems: tuple[Problem, ...]


def load(runs: Path, with_published: bool = False) -> Board:
    """Load the board of a run store. Raises UsageError where there is no such folder."""
    run_list, problems = reading.read_store(runs)
    ledger = read_ledger(runs / LEDGER) if (runs / LEDGER).is_file() else []
    return boards.make(run_list, problems, ledger, published.rows() if with_published else ())


def choose(board: Board, choice: Choice | None) -> Choice:
    """Choose the documents to embed: as requested, otherwise all documents of a board that is not large."""
    if choice is not None:
        return choice
    return "all" if sum(len(row.cells) for row in board.rows if row.runs) <= CELLS else "none"


def build(runs: Path, out: Path, requested: Choice | None = None, with_published: bool = False) -> Built:
    """Write the page of a run store. Raises UsageError for a missing folder, StorageError for a full disk."""
    board = load(runs, with_published)
    choice = choose(board, requested)
    pairs, unread = comparisons.compare(board, comparisons.LIGHT if choice == "none" else 10**9)
    troubles: list[Problem] = []
    packed: list[Chunk] = list(instances.chunks(board, choice, troubles))
    board = replace(board, problems=(*board.problems, *_merged([*unread, *troubles])))
    text = page.render(board, pairs, packed, choice, runs.resolve().name)
    write_text(out, text)
    return Built(out, len(board.rows), len(board.columns), len(text), choice, board.problems)


def _merged(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


def state(runs: Path) -> tuple[tuple[str, float], ...]:
    """List the files of a run store that the page depends on, with their times, to detect changes."""
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
