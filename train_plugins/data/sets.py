"""Training sets, read from a file, a folder or the Hub, checked row by row and identified by a hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from olmes_suite import wording
from olmes_suite.errors import DataError, MissingData, UsageError, one_line
from olmes_suite.files import write_text
from olmes_suite.hooks import BadRow, StageData, TrainingSet
from olmes_suite.records import canonical_json
from olmes_suite.training_rows.files import kind_of, known_kinds, of_split
from olmes_suite.training_rows.reading import Unreadable, rows_of
from train_plugins.config.recipe import DataEntry, Form
from train_plugins.data import forms as forms_of
from train_plugins.data.control_tokens import BREAK, first_token, texts
from train_plugins.data.fields import EXTRA, KWARGS, NEUTRAL, Row
from train_plugins.data.forms import CONTEXT, Reads
from train_plugins.data.messages import check_turns
from train_plugins.data.surrogates import is_unicode
from train_plugins.data.tool_calls import empty

BAD_ROWS = "bad_rows.jsonl"
"""File in a stage's output with the rows that were left out."""
FORMS: Mapping[Reads | None, tuple[Form, ...]] = {
    "conversation": get_args(Form),
    "pair": tuple(form for form in get_args(Form) if form not in ("hermes", "xlam")),
    "prompt": ("messages", "sharegpt", "prompt"),
    None: (),
}
HERMES = (
    "hermes: tool calls, results and tools are read from the text, and the chat template writes them in its own form; "
    "`form: sharegpt` (or messages) trains the text as it is"
)
"""Note about a set in whose rows this form was detected."""

TURNS = ("messages", "prompt", "chosen", "rejected")
"""Columns of a converted row that may hold turns."""
Keys = Callable[[Row], dict[str, Any]]
"""A stage's `form`: the columns that it trains on, from a row. Raises ValueError with what is wrong with the row."""
Check = Callable[[dict[str, Any]], None]
Convert = Callable[[Row], tuple[str, dict[str, Any]]]


def load(
    entries: Sequence[DataEntry], keys: Keys, reads: Reads | None = None, rendered: Set[str] = frozenset(),
    control: re.Pattern[str] | None = None, check: Check | None = None,
) -> StageData:  # fmt: skip
    """Load all sets of a recipe with their rows in the stage's columns. Raises DataError, MissingData or UsageError.

    `reads` says what the stage trains on; with None, rows are handed to `keys` as they are in the file. `rendered` are
    the fields of a turn that the chat template reads; `control` matches the tokenizer's control tokens. `check` raises
    an error for a row that the chat template cannot render; it is called for entries whose bad rows are left out.
    """
    return StageData(
        tuple(_load(entry, _checked(_strict(keys, reads, entry, rendered, control), entry, check), reads)
              for entry in entries)
    )  # fmt: skip


def _checked(convert: Convert, entry: DataEntry, check: Check | None) -> Convert:
    """Return the conversion, followed by the check where rows that fail are left out."""
    if check is None or entry.bad_rows != "skip":
        return convert

    def convert_and_check(row: Row) -> tuple[str, dict[str, Any]]:
        name, found = convert(row)
        try:
            check(found)
        except Exception as error:  # a template may raise anything
            why = one_line(error, 300).removeprefix("row ?: ")
            raise ValueError(f"a conversation that the chat template cannot render: {why}") from None
        return name, found

    return convert_and_check


def _strict(
    keys: Keys, reads: Reads | None, entry: DataEntry, rendered: Set[str], control: re.Pattern[str] | None
) -> Convert:
    """Return a function that brings a row of a file to (its form, the stage's columns)."""

    def convert(row: Row) -> tuple[str, dict[str, Any]]:
        name, converted = ("", dict(row)) if reads is None else forms_of.converted(row, reads, entry.form)
        for column in TURNS if reads else ():
            check_turns(converted.get(column), rendered)
        if entry.chat_template_kwargs and empty(converted.get(KWARGS)):
            converted[KWARGS] = entry.chat_template_kwargs
        found = keys(converted)
        if not is_unicode(found):
            raise ValueError("text that is not Unicode (half a surrogate pair)")
        return name, found if control is None or not reads else _without_control(found, entry, control)

    return convert


def _without_control(row: dict[str, Any], entry: DataEntry, control: re.Pattern[str]) -> dict[str, Any]:
    """Return the row, marked if control tokens in its texts are to be plain text. Raises ValueError if refused."""
    if entry.control_tokens == "keep":
        return row
    more = json.loads(row[EXTRA]) if row.get(EXTRA) else {}
    token = first_token([[row.get(column) for column in TURNS], more], control)
    if token is None:
        return row
    if entry.control_tokens == "refuse":
        raise ValueError(
            f"the control token {token} in its text, which would be encoded as the token that it names; "
            "`control_tokens` in the data entry: keep allows it"
            + ("" if "verifier" in row else ", neutralise encodes it as plain text")
        )
    if any(BREAK in one for column in TURNS for one in texts(row.get(column))):
        raise ValueError("the code point U+FDD0, which is no character, beside a control token")
    return {**row, EXTRA: json.dumps({**more, NEUTRAL: True}, ensure_ascii=False)}


def rows_hash(rows: Iterable[Any]) -> str:
    """Return the SHA-256 of the rows' canonical JSON, in order."""
    total = hashlib.sha256()
    for row in rows:
        total.update(canonical_json(row).encode("utf-8", "surrogatepass") + b"\n")
    return total.hexdigest()


def write_bad_rows(output: Path, sets: Sequence[TrainingSet]) -> None:
    """List the rows that were left out in a stage's output folder, one JSON object per line; nothing without any."""
    lines = [
        json.dumps({"data": one.path, "row": bad.row, "reason": bad.reason, "file": bad.file}, ensure_ascii=False)
        for one in sets
        for bad in one.bad
    ]
    if lines:
        write_text(output / BAD_ROWS, "\n".join(lines) + "\n")


def summary(one: TrainingSet) -> list[str]:
    """Describe a set in one line, and the rows that were left out of it in another."""
    forms = ", ".join(form if len(one.forms) == 1 else f"{form} {count}" for form, count in one.forms.items())
    about = [f"data: {one.path}: {wording.count(len(one.rows), 'row')}", *([f"({forms})"] if forms else [])]
    lines = [f"{' '.join(about)}, sha256 {one.sha256[:16]}…" + (f"; {one.note}" if one.note else "")]
    if one.bad:
        count = "1 bad row is" if len(one.bad) == 1 else f"{len(one.bad)} bad rows are"
        lines.append(f"data: {one.path}: {count} left out, see {BAD_ROWS}; {one.bad[0].reason}")
    return lines


def _load(entry: DataEntry, convert: Convert, reads: Reads | None) -> TrainingSet:
    from datasets import Dataset

    if entry.form is not None and entry.form not in FORMS[reads]:
        known = ", ".join(FORMS[reads]) or "none"
        raise UsageError(f"data: form {entry.form} does not fit this stage; its forms: {known}")
    if reads not in ("conversation", "pair"):
        if entry.control_tokens == "neutralise":
            raise UsageError("data: control_tokens: neutralise does not fit this stage, whose prompts TRL encodes")
        if entry.chat_template_kwargs:
            raise UsageError("data: chat_template_kwargs does not fit this stage; see trainer.chat_template_kwargs")
    if entry.path is not None:
        path = Path(entry.path).expanduser()
        files, others = _files(path, entry.split)
        read = islice(_numbered(files), entry.limit)
        found = _normalised(read, convert, entry, entry.path)
        note = f"split {entry.split}, {others} files of other splits are not read" if others else ""
        notes = "; ".join(filter(None, (note, found.note)))
        return replace(found, sha256=_files_hash(files), rows=Dataset.from_list(found.rows), note=notes)
    name = str(entry.hub)
    rows = ((row, None) for row in islice(_hub(name, entry.split), entry.limit))
    found = _normalised(rows, convert, entry, name)
    hub_rows = Dataset.from_list(found.rows)
    return replace(found, sha256=rows_hash(hub_rows), rows=hub_rows)


def _normalised(
    rows: Iterable[tuple[Row | Unreadable, Path | None]], convert: Convert, entry: DataEntry, where: str
) -> TrainingSet:
    """Bring each row to the stage's columns and add its number from 0 as `row`.

    Raises DataError if no row can be trained on, or any cannot and the entry does not say `bad_rows: skip`.
    """
    good: list[dict[str, Any]] = []
    bad: list[BadRow] = []
    forms: Counter[str] = Counter()
    for number, (row, file) in enumerate(rows):
        try:
            if isinstance(row, Unreadable):
                raise ValueError(row.why)
            form, converted = _told(convert, row, f"{where}: row {number}")
            good.append({**converted, "row": number})
            forms[form] += 1
        except ValueError as error:
            if isinstance(row, Unreadable):
                why = row.why if row.why.startswith("line ") else f"row {number}: {row.why}"
            else:
                why = f"row {number} has {error}"
            bad.append(BadRow(number, why, None if file is None else str(file)))
    if bad and (entry.bad_rows == "error" or not good):
        raise DataError(_refusal(bad, len(good), where))
    if not good:
        raise DataError(f"{where}: holds no rows")
    for column, nothing in ((CONTEXT, 0), (EXTRA, "")):  # a column of a table has a value in every row
        if any(column in row for row in good):
            good = [{column: nothing, **row} for row in good]
    forms.pop("", None)
    neutral = sum(f'"{NEUTRAL}": true' in row.get(EXTRA, "") for row in good)
    count = "1 row has" if neutral == 1 else f"{neutral} rows have"
    notes = [f"{count} control tokens in the text, encoded as plain text"] if neutral else []
    notes += [HERMES] if forms.get("hermes") else []
    return TrainingSet(where, "", good, dict(forms), tuple(bad), "; ".join(notes))


def _told(convert: Convert, row: Row, place: str) -> tuple[str, dict[str, Any]]:
    """Convert a row; an error that no row is left out for, such as an unknown verifier, says where the row stands."""
    try:
        return convert(row)
    except UsageError as error:
        raise UsageError(f"{place} has {error}") from None


def _refusal(bad: Sequence[BadRow], good: int, where: str) -> str:
    first = bad[0]
    reason = first.reason
    if first.file is not None and not reason.startswith("row "):
        reason = f"{first.file}, {reason}"
    elif first.file not in (None, where):  # rows are counted over all files of a folder
        reason = f"{reason} (a row of {first.file})"
    cure = "; `bad_rows: skip` in the recipe's data entry leaves them out" if good else ""
    return f"{where}: {len(bad)} of {wording.count(len(bad) + good, 'row')} cannot be trained on; {reason}{cure}"


def _files(path: Path, split: str) -> tuple[list[Path], int]:
    """Return the files of a path, and the number of files of other splits beside them. Raises DataError."""
    if path.is_file():
        if kind_of(path) is None:
            raise DataError(f"{path}: not a file of type {known_kinds()}")
        return [path], 0
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    files, others = of_split(path, split)
    if not files:
        raise DataError(f"{path}: holds no files of type {known_kinds()}")
    return files, others


def _numbered(files: Sequence[Path]) -> Iterator[tuple[Row | Unreadable, Path]]:
    return ((row, file) for file in files for row in rows_of(file))


def _files_hash(files: list[Path]) -> str:
    """Return the SHA-256 of a single file, or of several files' hashes, one per line, in the order of their names."""
    hashes = []
    for file in files:
        with file.open("rb") as stream:
            hashes.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _hub(name: str, split: str) -> Iterator[Row]:
    from datasets import load_dataset

    try:
        return iter(load_dataset(name, split=split))
    except Exception as error:  # the Hub client raises many types of errors
        raise MissingData(
            f"{name} ({split}): cannot be loaded from the Hub ({one_line(error)}); use a local `path` instead"
        ) from None
