"""Evaluations from a user's file: JSON lines {"task", "doc_id", "text"}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decontam.items.items import Evaluation, Item, Selection
from olmes_suite.errors import DataError, UsageError


def of_file(path: Path) -> tuple[Selection, list[list[Item]]]:
    """Read the evaluations of a user's file, one for each task name, with their items in the file's order.

    Raises UsageError for a file that does not exist, DataError, naming the line, for anything wrong in it.
    """
    if not path.is_file():
        raise UsageError(f"--eval {path}: no such file")
    items: dict[str, list[Item]] = {}
    seen: set[tuple[str, Any]] = set()
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        item = _own_item(line, f"{path}, line {number}")
        if (item.task, item.doc_id) in seen:
            raise DataError(f"{path}, line {number}: task {item.task!r}, doc_id {item.doc_id!r} appears twice")
        seen.add((item.task, item.doc_id))
        items.setdefault(item.task, []).append(item)
    if not items:
        raise DataError(f'{path} is empty: write lines of the form {{"task": …, "doc_id": …, "text": …}}')
    return Selection(tuple(Evaluation(name) for name in items)), list(items.values())


def _own_item(line: bytes, where: str) -> Item:
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start})") from error
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("text"), str) or not isinstance(data.get("task"), str):
        raise DataError(f'{where}: expected an object of the form {{"task": name, "doc_id": …, "text": …}}')
    doc_id = data.get("doc_id")
    if isinstance(doc_id, bool) or not isinstance(doc_id, (int, str)):
        raise DataError(f"{where}: doc_id must be a whole number or a string")
    if isinstance(doc_id, int) and not -(2**63) <= doc_id < 2**63:
        raise DataError(f"{where}: doc_id has more than 64 bits; write it as a string")
    return Item(data["task"], doc_id, (("text", data["text"]),))
