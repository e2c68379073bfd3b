"""Documents for the page: one packed chunk for each cell and one for each set of prompts, which cells share."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leaderboard.page_data import Board, Problem, Run
from leaderboard.reading import reason
from olmes_suite.errors import OlmesError
from olmes_suite.evaluation import run_prompts
from olmes_suite.evaluation.run_prompts import Place, responses_file
from olmes_suite.records import Generated, Response
from olmes_suite.runs.schema import instances_file, read_rows
from olmes_suite.runs.store import readable_lines

Choice = Literal["all", "flips", "none"]
LONGEST = 50_000
"""The largest number of characters of one text; longer texts are cut on the page, with a note."""
SAMPLES = 20
"""The largest number of responses of one document."""
THOUGHT = 12_000
"""The largest number of characters of one thought; of a longer one the page has the start and the end."""
LEVEL = 4
"""Deflate's level: two thirds of the time of level 6, for a page one tenth larger."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of data that the page unpacks on demand."""

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
    sample_scores: tuple[float | None, ...] = ()


def pack(value: object) -> str:
    """Encode a value as JSON, deflate it without a header, and encode it in base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    data = packer.compress(text.encode("utf-8", "replace")) + packer.flush()
    return base64.b64encode(data).decode("ascii")


def chunks(board: Board, choice: Choice, problems: list[Problem]) -> Iterator[Chunk]:
    """Make all chunks of documents: `c<row>-<column>` for cells, `p<column>-<number>` for sets of prompts."""
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
        moved = disagreed([run_documents for _, _, run_documents in cells])
        cells = [
            (at, run, [document for document in run_documents if document.place in moved])
            for at, run, run_documents in cells
        ]
    sets: dict[tuple[Any, ...], list[tuple[int, Run, list[Document]]]] = {}
    for at, run, run_documents in cells:
        sets.setdefault(_prompt_set(run, task), []).append((at, run, run_documents))
    for order, members in enumerate(sets.values()):
        name = f"p{number}-{order}"
        yield Chunk(name, pack(_prompts(task, members)))
        for at, run, run_documents in members:
            yield Chunk(f"c{at}-{number}", pack(_cell(run, task, run_documents, name, choice)))


def _prompt_set(run: Run, task: str) -> tuple[Any, ...]:
    """Return a key that is equal for runs with the same prompts; a run without fingerprints shares no key."""
    prints = run.cells[task].fingerprint
    if prints is None:
        return ("imported",) if run.kind == "imported" else (run.name,)
    return (*prints[:2], run.manifest.engine.chat)


def documents(run: Run, task: str) -> list[Document]:
    """Read the scored documents of one task. Raises DataError for a file that cannot be read."""
    return [
        Document(
            (row.task, row.doc_id), row.score, _cut(row.extracted), _cut(row.reference), list(row.flags),
            bool(row.contaminated), row.sample_scores or (),
        )
        for row in read_rows(
            instances_file(run.path, task), ("extracted", "reference", "flags", "contaminated", "sample_scores")
        )
    ]  # fmt: skip


def disagreed(cells: Sequence[Sequence[Document]]) -> set[Place]:
    """Collect the documents that have different scores in different runs."""
    first: dict[Place, float | None] = {}
    moved: set[Place] = set()
    for cell in cells:
        for document in cell:
            if first.setdefault(document.place, document.score) != document.score:
                moved.add(document.place)
    return moved


def _prompts(task: str, members: Sequence[tuple[int, Run, list[Document]]]) -> dict[str, Any]:
    """Return {"note", "leaves": [...], "docs": [[leaf, doc_id, prompt, reference], …]} for a set of prompts."""
    references: dict[Place, str | None] = {}
    for _, _, cell in members:
        for document in cell:
            references.setdefault(document.place, document.reference)
    run = next((run for _, run, _ in members if run.kind != "floor"), members[0][1])
    rendered, note = run_prompts.render(run.path, run.manifest, task, references) if references else ({}, "")
    leaves = list(dict.fromkeys(leaf for leaf, _ in references))
    at = {leaf: position for position, leaf in enumerate(leaves)}
    docs = [
        [at[place[0]], place[1], _cut_prompt(rendered.get(place)), reference] for place, reference in references.items()
    ]
    return {"note": note, "leaves": leaves, "docs": docs}


def _cell(run: Run, task: str, cell_documents: Sequence[Document], prompt_set: str, choice: Choice) -> dict[str, Any]:
    """Return {"prompts", "only", "docs": [[leaf, doc_id, score, extracted, flags, contaminated, responses, …], …], …}.

    Where responses tell their tokens, end or thought, an eighth field has for each [thought, tokens of the thought,
    other tokens, end, score]; end is "length", "unclosed", both or "". `sent` has the first prompt of each leaf task as
    the model received it.
    """
    responses = _responses(run, task, {document.place for document in cell_documents})
    leaves = list(dict.fromkeys(document.place[0] for document in cell_documents))
    at = {leaf: position for position, leaf in enumerate(leaves)}
    docs = [
        [
            at[d.place[0]], d.place[1], None if d.score is None else round(d.score, 6), d.extracted, d.flags,
            int(d.contaminated), *_answers(d, responses.get(d.place, [])),
        ]
        for d in cell_documents
    ]  # fmt: skip
    first = {leaf: [doc_id, _cut(text), n] for leaf, (doc_id, text, n) in run_prompts.first_sent(run.path).items()}
    sent = {leaf: first[leaf] for leaf in leaves if leaf in first}
    return {"prompts": prompt_set, "only": choice, "leaves": leaves, "docs": docs, "sent": sent}


def _answers(document: Document, responses: Sequence[Response]) -> Iterator[list[Any]]:
    """Yield the responses, texts or log-likelihoods, and what is known about each, if anything is."""
    yield [_cut(one.text) if one.loglikelihood is None else one.loglikelihood for one in responses]
    told = [_told(one) for one in responses]
    if any(told) or document.sample_scores:
        scores = [*document.sample_scores, *([None] * len(told))]
        empty = [None, 0, 0, ""]
        yield [[*(one or empty), score] for one, score in zip(told, scores, strict=False)]


def _told(response: Response) -> list[Any] | None:
    if response.loglikelihood is not None:
        return None
    used = Generated.of(response)
    ends = [name for name, there in (("length", used.finish_reason == "length"), ("unclosed", used.unclosed)) if there]
    if not (response.thinking or used.tokens or ends):
        return None
    return [_middle_cut(response.thinking), used.thinking_tokens, used.answer_tokens, " ".join(ends)]


def _middle_cut(thought: str | None) -> str | None:
    excess = len(thought or "") - THOUGHT
    if thought is None or excess <= 0:
        return thought
    half = THOUGHT // 2
    return f"{thought[:half]}\n… [{excess} more characters are in the run's files] …\n{thought[-half:]}"


def _responses(run: Run, task: str, places: set[Place]) -> dict[Place, list[Response]]:
    """Read each document's responses. Unreadable lines are left out."""
    by_place: dict[Place, dict[tuple[int, int], Response]] = {}
    for line in readable_lines(responses_file(run.path, task)):
        place = (line.task, line.doc_id)
        if place not in places or line.sample >= SAMPLES:
            continue
        by_place.setdefault(place, {})[line.index, line.sample] = line.response
    return {place: [responses[order] for order in sorted(responses)] for place, responses in by_place.items()}


def _cut(text: object) -> str | None:
    if text is None:
        return None
    text = str(text)
    excess = len(text) - LONGEST
    return text if excess <= 0 else f"{text[:LONGEST]}… [{excess} more characters are in the run's files]"


def _cut_prompt(prompt: dict[str, Any] | None) -> dict[str, Any] | None:
    if prompt is None:
        return None
    if "m" in prompt:
        return {**prompt, "m": [[role, _cut(text)] for role, text in prompt["m"]]}
    return {**prompt, "t": _cut(prompt["t"])}
