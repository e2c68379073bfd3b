"""Personas: descriptions of people for whom prompts are written, from a file, the Hub or the shipped sample."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError, UsageError
from olmes_suite.training_rows.reading import Unreadable, rows_of
from olmes_suite.yaml_files import Place
from train_plugins.data.curation.hub import load as load_hub
from train_plugins.data.curation.inputs import content_hash, files_of
from train_plugins.data.curation.output import Input
from train_plugins.data.sets import rows_hash
from train_plugins.data.surrogates import is_unicode

SAMPLE = Path(__file__).parent / "personas.jsonl"
HUB, LICENCE = "nvidia/Nemotron-Personas", "CC-BY-4.0"
"""The default, with a licence that allows commercial use, as the cards of its sister sets on the Hub state it."""
NON_COMMERCIAL = "CC-BY-NC-SA-4.0"
COLUMNS = ("persona", "input persona", "description")
"""Columns in which data sets have their personas."""
_PERSONAHUB = re.compile(r"persona[-_ ]?hub", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Personas:
    """Keys under `personas`."""

    path: str | None = None
    """A file of rows, or a folder of such files."""
    hub: str | None = None
    """Id of a data set on the Hub; nvidia/Nemotron-Personas unless `path` or `sample` is given."""
    sample: bool = False
    """Whether the forty personas that are shipped are used."""
    split: str = "train"
    column: str | None = None
    """Column of the personas; by default persona, input persona or description."""
    limit: int | None = None
    licence: str | None = None
    """Licence of the personas, for the card."""

    @property
    def called(self) -> str:
        """The name in rows and messages."""
        return "olmes-suite sample" if self.sample else str(self.path or self.hub_id)

    @property
    def hub_id(self) -> str | None:
        """Id of the data set on the Hub; None where the personas are in a file."""
        return None if self.sample or self.path is not None else self.hub or HUB


def check(keys: Personas, place: Place) -> None:
    """Raise UsageError where several sources are named, or the limit leaves none of their rows."""
    if sum((keys.path is not None, keys.hub is not None, keys.sample)) > 1:
        raise UsageError(f"{place.at('path')}: give one of `path`, `hub` and `sample`")
    if keys.limit is not None and keys.limit < 1:
        raise UsageError(f"{place.line(('limit',))}: limit: expected a whole number of at least 1, not {keys.limit}")


def source(keys: Personas, place: Place) -> Input:
    """Return the source with the hash of its content. Raises UsageError or MissingData."""
    if file := _file(keys):
        return Input(keys.called, content_hash(files_of(file, keys.split, place.at("path"))))
    return Input(keys.called, rows_hash(islice(load_hub(keys.called, keys.split), keys.limit)))


def read(keys: Personas) -> list[str]:
    """Read the personas. Raises DataError that names the row."""
    personas = []
    for number, row in enumerate(islice(_rows(keys), keys.limit)):
        if isinstance(row, Unreadable):
            raise DataError(f"personas {keys.called}: row {number}: {row.why}")
        column = keys.column or next((name for name in COLUMNS if row.get(name)), None)
        text = row.get(column) if column else None
        if not isinstance(text, str) or not text.strip():
            known = ", ".join(map(str, row)) or "none"
            raise DataError(
                f"personas {keys.called}: row {number} has no text in the column {column or 'persona'!r} "
                f"(columns: {known:.200}); name it with personas.column"
            )
        if not is_unicode(text):
            raise DataError(f"personas {keys.called}: row {number}: text that is not Unicode (half a surrogate pair)")
        personas.append(" ".join(text.split()))
    if not personas:
        raise DataError(f"personas {keys.called}: holds no rows")
    return personas


def licence_of(keys: Personas) -> str | None:
    """Return the licence, also of the known sets; None where it is not known."""
    if keys.licence:
        return keys.licence
    if keys.sample:
        return "Apache-2.0"
    if _is_personahub(keys):
        return NON_COMMERCIAL
    return LICENCE if keys.called.startswith(HUB) and keys.path is None else None


def warnings(keys: Personas) -> list[str]:
    """Return what a user has to know about the licence."""
    if _is_personahub(keys):
        return [
            f"personas {keys.called}: PersonaHub is {NON_COMMERCIAL}: prompts made from it are not for commercial use "
            f"(copies that name another licence err); {HUB} is {LICENCE}"
        ]
    if licence_of(keys) is None:
        return [f"personas {keys.called}: no licence is known; set personas.licence to record it"]
    return []


def _is_personahub(keys: Personas) -> bool:
    if _PERSONAHUB.search(keys.called):
        return True
    row: Any = next(iter(_rows(keys)), None) if keys.path is not None else None
    return isinstance(row, Mapping) and {"input persona", "synthesized text"} <= set(row)


def _file(keys: Personas) -> Path | None:
    if keys.sample:
        return SAMPLE
    return Path(keys.path).expanduser() if keys.path is not None else None


def _rows(keys: Personas) -> Iterator[dict[str, Any] | Unreadable]:
    if file := _file(keys):
        for one in files_of(file, keys.split, f"personas {keys.called}"):
            yield from rows_of(one)
    else:
        yield from load_hub(keys.called, keys.split)
