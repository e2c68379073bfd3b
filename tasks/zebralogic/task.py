"""ZebraLogic in the OLMo 3 regime (allenai/olmes `zebralogic::olmo3:adapt`), and a variant with repaired reading.

The prompt and the rules are those of ZeroEval's grid mode. The reference finds the last complete `{…}` by counting
braces, those inside strings and LaTeX too, so that one unmatched `{` before the answer makes it unreadable.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import scorer

_PROMPT = Path(__file__).with_name("prompt.txt").read_text(encoding="utf-8")
_EASY = ("2*2", "2*3", "2*4", "2*5", "2*6", "3*2", "3*3")
_DEEPEST = 500
"""Nested objects and lists up to which an answer is read; Python's parser fails for a few hundred more."""


def _table(doc: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the columns without the house's number, and the rows of values in the order of the houses."""
    solution = doc["solution"]
    table = ast.literal_eval(solution) if isinstance(solution, str) else solution
    header, rows = list(table["header"]), [list(row) for row in table["rows"]]
    return header[1:], [row[1:] for row in rows]


def doc_to_target(doc: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the solution: house to column to value."""
    columns, rows = _table(doc)
    return {f"House {number}": dict(zip(columns, row, strict=True)) for number, row in enumerate(rows, 1)}


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn."""
    columns, rows = _table(doc)
    houses = {f"House {number}": dict.fromkeys(columns, "___") for number in range(1, len(rows) + 1)}
    template = json.dumps({"reasoning": "___", "solution": houses}, indent=4)
    return _PROMPT.replace("{puzzle}", doc["puzzle"]).replace("{json_template}", template)


def last_object(text: str) -> str | None:
    """Return the last complete object by counting braces; None without one, as after an unmatched `{`."""
    depth, start, found = 0, -1, None
    for place, character in enumerate(text):
        if character == "{":
            if depth == 0 and start < 0:
                start = place
            depth += 1
        elif character == "}" and depth:
            depth -= 1
            if depth == 0:
                found, start = (start, place + 1), -1
    return text[slice(*found)] if found else None


def _parsed(text: str | None) -> Any:
    """Parse an object as the reference does, without its line breaks; None where it is no JSON."""
    if text is None or _too_deep(text):
        return None
    try:
        return json.loads(text.replace("\n", ""))
    except (ValueError, RecursionError):
        return None


def _too_deep(text: str) -> bool:
    depth = deepest = 0
    for character in text:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(character, 0)
        deepest = max(deepest, depth)
    return deepest > _DEEPEST


def _cell(value: Any) -> str | None:
    """Return the text of a cell, of the first value of an object or list; None for a cell that is skipped.

    Raises TypeError or AttributeError for other values, which make the whole grid wrong.
    """
    if value is None or len(value) == 0:
        return None
    if isinstance(value, list):
        return str(value[0].lower().strip())
    while isinstance(value, dict):
        value = next(iter(value.values()))
    return value.lower().strip() if isinstance(value, str) else None


def _right(solution: Mapping[str, Any], target: Mapping[str, Mapping[str, str]]) -> int:
    """Count the cells that are right. Raises TypeError or AttributeError as `_cell`, StopIteration for `{{}: …}`."""
    right = 0
    for house, columns in target.items():
        for column, truth in columns.items():
            if house in solution and column in solution[house]:
                cell = _cell(solution[house][column])
                right += cell == truth.lower().strip()
    return right


def _scored(doc: Mapping[str, Any], answer: Any, easy: bool) -> Scored:
    target = doc_to_target(doc)
    cells = sum(map(len, target.values()))
    parsed, right = isinstance(answer, dict), 0
    if parsed:
        try:
            right = _right(answer.get("solution", {}) or {}, target)
        except Exception:  # the reference: any failure leaves the whole grid wrong
            parsed = False
    solved = float(parsed and right == cells)
    return Scored(
        {
            "puzzle_accuracy": solved,
            "cell_accuracy": right / cells if parsed else 0.0,
            "parsed": float(parsed),
            "puzzle_accuracy_easy": solved if easy else None,
            "puzzle_accuracy_hard": None if easy else solved,
        },
        json.dumps(answer.get("solution"), ensure_ascii=False) if isinstance(answer, dict) else None,
        failed=not parsed,
    )


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the whole grid and its cells from the last object of the response."""
    return _scored(doc, _parsed(last_object(response)), doc["size"] in _EASY)


def _objects(text: str) -> Iterator[Any]:
    """Yield the outermost JSON objects, whatever surrounds them, from the last one backwards."""
    decoder = json.JSONDecoder(strict=False)
    found, place = [], text.find("{")
    tries = 0
    while place >= 0 and tries < 2000:
        tries += 1
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            found.append(value)
        place = text.find("{", end)
    yield from reversed(found)


@scorer()
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the last JSON object that has a solution. Other braces do not matter; a bad cell is one wrong cell."""
    text = response if not _too_deep(response) else ""
    answer = next((value for value in _objects(text) if isinstance(value, dict) and value.get("solution")), None)
    return _scored(doc, _texts_only(answer), doc["size"] in _EASY)


def _texts_only(answer: Any) -> Any:
    """Make every cell a text, so that a number or a list in one cell does not undo the others."""
    if not isinstance(answer, dict) or not isinstance(answer["solution"], dict):
        return None
    houses = {
        house: {column: _text(cell) for column, cell in columns.items()}
        for house, columns in answer["solution"].items()
        if isinstance(columns, dict)
    }
    return {"solution": houses}


def _text(cell: Any) -> str:
    while isinstance(cell, dict | list) and cell:
        cell = cell[0] if isinstance(cell, list) else next(iter(cell.values()))
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return json.dumps({"reasoning": "Only this fits.", "solution": doc_to_target(doc)}, indent=4)


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    target = doc_to_target(doc)
    wrong = {house: dict.fromkeys(columns, "nobody") for house, columns in target.items()}
    return json.dumps({"reasoning": "Only this fits.", "solution": wrong}, indent=4)
