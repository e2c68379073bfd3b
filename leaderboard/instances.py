"""Documents for the page: one packed chunk for each cell, one for each set of prompts, so that a prompt stands once."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leaderboard import prompts
from leaderboard.page_data import Board, Problem, Run
from leaderboard.prompts import Place, responses_file
from leaderboard.reading import reason
from olmes_suite.errors import OlmesError
from olmes_suite.runs.schema import instances_file, read_rows

Choice = Literal["all", "flips", "none"]
LONGEST = 50_000
"""Characters of one text; what is longer is cut on the page, and says so."""
SAMPLES = 20
"""Responses of one document."""
LEVEL = 4
"""Deflate's: two thirds of the time of level 6, for a page one tenth larger."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of data that the page unpacks when it is asked for."""

    id: str
    data: str
    """Raw deflate, in base64."""


@dataclass(slots=True)
class Document:
    """One scored document of one run."""

    place: Place
    score: float | None
    extracted: str | None
    reference: str | None
    flags: list[str]
    contaminated: bool


def pack(value: Any) -> str:
    """JSON, deflated without header, in base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    data = packer.compress(text.encode("utf-8", "replace")) + packer.flush()
    return base64.b64encode(data).decode("ascii")


def chunks(board: Board, choice: Choice, problems: list[Problem]) -> Iterator[Chunk]:
    """All chunks of documents: `c<row>-<column>` for cells, `p<column>-<number>` for sets of prompts."""
    if choice == "none":
        return
    for number, column in enumerate(board.columns):
        yield from _column(board, number, column.task, choice, problems)


def _column(board: Board, number: int, task: str, choice: Choice, problems: list[Problem]) -> Iterator[Chunk]:
    cells: list[tuple[int, Run, list[Document]]] = []
    for at, row in enumerate(board.rows):
        run = next((run for run in row.runs if task in run.cells and run.cells[task].value is not None), None)
        if run is None:
            continue
        try:
            cells.append((at, run, documents(run, task)))
        except (OlmesError, OSError, ValueError, KeyError, TypeError) as error:
            problems.append(Problem(run.name, f"no documents of {task}: {reason(error)}"))
    if choice == "flips":
        moved = disagreed([own for _, _, own in cells])
        cells = [(at, run, [document for document in own if document.place in moved]) for at, run, own in cells]
    sets: dict[tuple[Any, ...], list[tuple[int, Run, list[Document]]]] = {}
    for at, run, own in cells:
        sets.setdefault(_prompt_set(run, task), []).append((at, run, own))
    for order, members in enumerate(sets.values()):
        name = f"p{number}-{order}"
        yield Chunk(name, pack(_prompts(task, members)))
        for at, run, own in members:
            yield Chunk(f"c{at}-{number}", pack(_cell(run, task, own, name, choice)))


def _prompt_set(run: Run, task: str) -> tuple[Any, ...]:
    """Equal where two runs asked the same; without fingerprints only the run itself."""
    prints = run.cells[task].fingerprint
    if prints is None:
        return ("imported",) if run.kind == "imported" else (run.name,)
    return (*prints[:2], run.manifest.engine.chat)


def documents(run: Run, task: str) -> list[Document]:
    """The scored documents of one task. Raises DataError for a file that cannot be read."""
    return [
        Document(
            (row.task, row.doc_id), row.score, _cut(row.extracted), _cut(row.reference), list(row.flags),
            bool(row.contaminated),
        )
        for row in read_rows(
            instances_file(run.path, task), ("extracted", "reference", "flags", "contaminated")
        )
    ]  # fmt: skip


def disagreed(cells: Sequence[Sequence[Document]]) -> set[Place]:
    """Documents that not all runs score the same."""
    first: dict[Place, float | None] = {}
    moved: set[Place] = set()
    for own in cells:
        for document in own:
            if first.setdefault(document.place, document.score) != document.score:
                moved.add(document.place)
    return moved


def _prompts(task: str, members: Sequence[tuple[int, Run, list[Document]]]) -> dict[str, Any]:
    """{"note", "leaves": [...], "docs": [[leaf, doc_id, prompt, reference], …]} of a set of prompts."""
    references: dict[Place, str | None] = {}
    for _, _, own in members:
        for document in own:
            references.setdefault(document.place, document.reference)
    found, note = prompts.render(members[0][1], task, references) if references else ({}, "")
    leaves = list(dict.fromkeys(leaf for leaf, _ in references))
    at = {leaf: position for position, leaf in enumerate(leaves)}
    docs = [
        [at[place[0]], place[1], _cut_prompt(found.get(place)), reference] for place, reference in references.items()
    ]
    return {"note": note, "leaves": leaves, "docs": docs}


def _cell(run: Run, task: str, own: Sequence[Document], prompt_set: str, choice: Choice) -> dict[str, Any]:
    """{"prompts", "only", "docs": [[leaf, doc_id, score, extracted, flags, contaminated, responses], …]}."""
    said = _responses(run, task, {document.place for document in own})
    leaves = list(dict.fromkeys(document.place[0] for document in own))
    at = {leaf: position for position, leaf in enumerate(leaves)}
    docs = [
        [
            at[d.place[0]], d.place[1], None if d.score is None else round(d.score, 6), d.extracted, d.flags,
            int(d.contaminated), said.get(d.place, []),
        ]
        for d in own
    ]  # fmt: skip
    return {"prompts": prompt_set, "only": choice, "leaves": leaves, "docs": docs}


def _responses(run: Run, task: str, wanted: set[Place]) -> dict[Place, list[Any]]:
    """Each document's responses: texts, or log-likelihoods of its choices. Lines that cannot be read are left out."""
    path = responses_file(run.path, task)
    found: dict[Place, dict[tuple[int, int], Any]] = {}
    if not path.is_file():
        return {}
    with path.open("rb") as handle:
        for raw in handle:
            try:
                line = json.loads(raw)
                place = (line["task"], line["doc_id"])
                if place not in wanted or line["sample"] >= SAMPLES:
                    continue
                said = line.get("loglikelihood")
                found.setdefault(place, {})[line["index"], line["sample"]] = (
                    _cut(line.get("text")) if said is None else said
                )
            except (ValueError, KeyError, TypeError):
                continue
    return {place: [said[order] for order in sorted(said)] for place, said in found.items()}


def _cut(text: Any) -> str | None:
    if text is None:
        return None
    text = str(text)
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]}… [{left} more characters are in the run's files]"


def _cut_prompt(prompt: dict[str, Any] | None) -> dict[str, Any] | None:
    if prompt is None:
        return None
    if "m" in prompt:
        return {**prompt, "m": [[role, _cut(text)] for role, text in prompt["m"]]}
    return {**prompt, "t": _cut(prompt["t"])}
