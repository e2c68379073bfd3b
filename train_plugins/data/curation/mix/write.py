"""The rows of a mix, written: data and held_out, and the rows that are not in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError
from olmes_suite.yaml_files import Place
from train_plugins.data.curation.mix import pool as pools
from train_plugins.data.curation.mix.decontaminate import Found
from train_plugins.data.curation.mix.keys import Kind, Mix
from train_plugins.data.curation.mix.parts import MALFORMED, Part
from train_plugins.data.curation.mix.pool import Lines, Pool, rejected_rows
from train_plugins.data.curation.mix.select import Chosen
from train_plugins.data.curation.output import Output, Rejected
from train_plugins.data.curation.rows_file import rows_file

if TYPE_CHECKING:
    import pyarrow as pa

HELD_OUT = "held_out"
_COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "sft": ("messages",), "preference": ("chosen", "rejected"), "rlvr": ("messages", "ground_truth", "dataset"),
}  # fmt: skip
_TURN_KEYS = ("role", "content")
_NUMBERS = ("weight",)
"""Fields of a turn that are numbers; the others are text, or JSON text in a table."""
Types = Mapping[str, str]
"""Kept columns and their types: bool, int, float, str or json."""


def kept_columns(mix: Mix, names: Sequence[str], parts: Sequence[Sequence[Part]], place: Place) -> Types:
    """Return the types of the kept columns. Raises UsageError where sources have different ones."""
    types: dict[str, str] = {}
    first: dict[str, str] = {}
    for name, one in zip(names, parts, strict=True):
        before = 0
        for part in one:
            for column, found in part.columns.items():
                for kind, row in sorted(found.items(), key=lambda pair: pair[1]):
                    here = f"source {name!r} has {_WORDS[kind]} in row {before + row}"
                    known = types.setdefault(column, kind)
                    first.setdefault(column, here)
                    if {known, kind} == {"int", "float"}:
                        types[column] = "float"
                    elif known != kind:
                        raise UsageError(
                            f"{place.line(('keep',))}: keep: the column {column!r} has different types: "
                            f"{first[column]}, {here}; leave it out, or bring it to one type"
                        )
            before += part.rows
    return types


_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "json": "a list or mapping",
}


def write(mix: Mix, pool: Pool, chosen: Chosen, types: Types, output: Output, lines: Lines) -> None:
    """Write the chosen rows to data and held_out."""
    keys = sorted({key for part in pool.parts for key in part.turn_keys} - set(_TURN_KEYS))
    schema = None if mix.format == "jsonl" else _schema(mix, (*_TURN_KEYS, *keys), types)
    skills = [source.skill for source in mix.sources]
    texts = schema is not None
    with rows_file(output.work, mix.format, schema) as data:
        if not mix.held_out:
            for entry in zip(chosen.position.tolist(), chosen.copy.tolist(), strict=True):
                data.add(_row(pool, *entry, skills, lines, types, texts))
            return
        with rows_file(output.work, mix.format, schema, HELD_OUT) as held_out:
            for position, copy, apart in zip(
                chosen.position.tolist(), chosen.copy.tolist(), chosen.held_out.tolist(), strict=True
            ):
                (held_out if apart else data).add(_row(pool, position, copy, skills, lines, types, texts))


def _row(
    pool: Pool, position: int, copy: int, skills: Sequence[str | None], lines: Lines, types: Types, texts: bool
) -> dict[str, Any]:
    """Return a row of the output; `texts`: fields without one type are JSON texts, as a table needs them."""
    source = int(pool.source[position])
    row = lines.row(position)
    if texts:
        for column in ("messages", "chosen", "rejected"):
            if column in row:
                row[column] = [_flat(turn) for turn in row[column]]
        for column, kind in types.items():
            if kind == "json" and column in row:
                row[column] = json.dumps(row[column], ensure_ascii=False)
            elif kind == "float" and column in row:
                row[column] = float(row[column])
    name = pool.name(position)
    return {
        "id": f"{name}:{copy + 1}" if copy else name, "source": pool.names[source],
        "row": int(pool.number[position]), "skill": skills[source], **row,
    }  # fmt: skip


def _flat(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value if key in _NUMBERS or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in turn.items()
    }


def _schema(mix: Mix, turn_keys: Sequence[str], types: Types) -> pa.Schema:
    import pyarrow as pa

    turns = pa.list_(pa.struct([(key, pa.int64() if key in _NUMBERS else pa.string()) for key in turn_keys]))
    kinds = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string(), "json": pa.string()}
    columns = [
        (name, turns if name in ("messages", "chosen", "rejected") else pa.string()) for name in _COLUMNS[mix.kind]
    ]
    head = [("id", pa.string()), ("source", pa.string()), ("row", pa.int64()), ("skill", pa.string())]
    return pa.schema([*head, *columns, *((name, kinds[kind]) for name, kind in types.items())])


def write_rejected(pool: Pool, parts: Sequence[Sequence[Part]], found: Found | None, output: Output) -> None:
    """List every row that is not in the output, source by source."""
    why = found.why if found is not None else {}
    with output.rejected() as file:
        for number, (name, one) in enumerate(zip(pool.names, parts, strict=True)):
            for row, reason, detail in rejected_rows(one):
                file.add(Rejected(name, row, reason, detail))
            rows = pool.of_source(number)
            left_out = [p for p in range(rows.start, rows.stop) if pool.state[p] != pools.KEPT]
            for position in left_out:
                state = int(pool.state[position])
                other = int(pool.other[position])
                detail = f"of {pool.name(other)}" if other >= 0 else why.get(position, "")
                detail = "" if state == pools.NOT_SAMPLED else detail
                file.add(Rejected(name, int(pool.number[position]), pools.REASONS[state], detail))


def malformed(name: str, parts: Sequence[Part]) -> list[tuple[int, str]]:
    """List the rows of a source that are not of the mix's kind: (row, what is wrong)."""
    return [(row, detail) for row, reason, detail in rejected_rows(parts) if reason == MALFORMED]
