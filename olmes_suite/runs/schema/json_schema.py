"""JSON Schemas (draft 2020-12) of the recorded files, generated from the records' fields and docstrings."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.files import write_text
from olmes_suite.runs.schema.baseline import Baseline
from olmes_suite.runs.schema.instances import InstanceRow
from olmes_suite.runs.schema.lineage import Lineage
from olmes_suite.runs.schema.manifest import Manifest
from olmes_suite.runs.schema.prompts import Prompts
from olmes_suite.runs.schema.record import Member, Record, members
from olmes_suite.runs.schema.results import Results

FILES: Mapping[str, type[Record]] = {
    "results": Results,
    "manifest": Manifest,
    "prompts": Prompts,
    "baseline": Baseline,
    "lineage": Lineage,
    "instance": InstanceRow,
}
"""Name of a schema to the record that it describes; an instance is one row of a parquet file."""
_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


def json_schema(kind: type[Record]) -> dict[str, Any]:
    """Build the schema of a kind of file. Unknown keys are allowed, because schemas grow by addition."""
    parts: dict[str, Any] = {}
    whole = _object(kind, parts)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.__name__,
        **whole,
        "$defs": dict(sorted(parts.items())),
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write the schema of every file into a folder; returns the files."""
    written = []
    for name, kind in FILES.items():
        path = folder / f"{name}.json"
        write_text(path, json.dumps(json_schema(kind), indent=1, ensure_ascii=False) + "\n")
        written.append(path)
    return written


def _object(kind: type[Record], parts: dict[str, Any]) -> dict[str, Any]:
    known, words = members(kind), descriptions(kind)
    required = [key for key, member in known.items() if member.default is None]
    if "schema" in known and kind is not Lineage:  # a lineage that a user writes may lack it
        required.insert(0, "schema")
    return {
        "description": inspect.getdoc(kind),
        "type": "object",
        "properties": {key: _property(member, words, parts) for key, member in known.items()},
        **({"required": required} if required else {}),
    }


def _property(member: Member, words: Mapping[str, str], parts: dict[str, Any]) -> dict[str, Any]:
    property_schema = _type(member.hint, parts)
    if description := words.get(member.attribute):
        property_schema = {"description": description, **property_schema}
    return property_schema


def _type(hint: Any, parts: dict[str, Any]) -> dict[str, Any]:
    if hint is Any:
        return {}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if isinstance(hint, type) and issubclass(hint, Record):
        if hint.__name__ not in parts:
            parts[hint.__name__] = {}  # a record may contain records of its type
            parts[hint.__name__] = _object(hint, parts)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if all(inner in _SCALARS for inner in inside):
            return {"type": [_SCALARS[inner] for inner in inside]}
        return {"anyOf": [_type(inner, parts) for inner in inside]}
    if issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _type(inside[1], parts)}
    if origin is tuple and ... not in inside:
        size = len(inside)
        ends = [_type(inner, parts) for inner in inside]
        return {"type": "array", "prefixItems": ends, "minItems": size, "maxItems": size}
    assert issubclass(origin, Sequence), hint
    return {"type": "array", "items": _type(inside[0], parts)}


def descriptions(kind: type) -> dict[str, str]:
    """Return the docstrings of the attributes of a class and its base classes."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        name = None
        for line in body.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                name = line.target.id
            elif name and isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
                found[name] = inspect.cleandoc(str(line.value.value))
            else:
                name = None
    return found
