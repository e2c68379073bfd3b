"""The base of the recorded files: lossless conversion between JSON and frozen dataclasses.

Each field is a key of the file. Unknown keys are stored in `extra` and written back: schemas grow by addition, and an
older version must not lose the keys that a newer version added.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import read_json

SCHEMA = "1.0"
"""Version of the files of a run, of a baseline file and of a lineage."""
OPTIONAL = {"optional": True}
"""Metadata of a field that is left out of a new file if it has its default."""
COLUMN = {"column": True}
"""Metadata of a field with one value per document, whose values are not checked individually."""
Convert = Callable[[Any, str], Any]
"""Function from a value of a file and its key to the value of a field. Raises TypeError."""


def named(key: str) -> dict[str, Any]:
    """Return the metadata of an optional field whose key in the file is not a valid Python name."""
    return {**OPTIONAL, "key": key}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An object of a recorded file."""

    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keys of the file that this version does not know."""
    file_keys: tuple[str, ...] | None = field(default=None, repr=False, compare=False)
    """Keys of the file that was read, in order; None for a new record."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a record from a JSON object. Raises TypeError or KeyError naming the invalid or missing key."""
        if not isinstance(data, Mapping):
            raise TypeError(f"{cls.__name__} is {data!r:.60}")
        fields_by_key = members(cls)
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for key, value in data.items():
            if (member := fields_by_key.get(key)) is None:
                extra[key] = value
            else:
                values[member.attribute] = member.convert(value, key)
        for key, member in fields_by_key.items():
            if member.default is None and member.attribute not in values:
                raise KeyError(key)
        return cls(**values, extra=extra, file_keys=tuple(data))

    def as_json(self) -> dict[str, Any]:
        """Convert to a JSON object: the keys that were read in their order, then the new keys by field."""
        fields_by_key = members(type(self))
        keys_read = self.file_keys or ()
        content: dict[str, Any] = {}
        for key in dict.fromkeys((*keys_read, *fields_by_key, *self.extra)):
            member = fields_by_key.get(key)
            if member is None:
                if key in self.extra:
                    content[key] = self.extra[key]
                continue
            value = getattr(self, member.attribute)
            if key not in keys_read and (member.optional or self.file_keys is not None) and member.is_default(value):
                continue
            content[key] = value if member.column else plain(value)
        return content

    def but(self, **changes: Any) -> Self:
        """Return a copy with changed fields."""
        return replace(self, **changes)


class Member(NamedTuple):
    """A field of a record."""

    attribute: str
    hint: Any
    """The resolved type of the field."""
    convert: Convert
    default: Callable[[], Any] | None
    """None for a required key."""
    optional: bool
    column: bool

    def is_default(self, value: Any) -> bool:
        """Tell whether the value is the default."""
        return self.default is not None and value == self.default()


_MEMBERS: dict[type, Mapping[str, Member]] = {}


def members(cls: type[Record]) -> Mapping[str, Member]:
    """Return the fields of a record type, by key."""
    if cls not in _MEMBERS:
        _MEMBERS[cls] = _members(cls)
    return _MEMBERS[cls]


def _members(cls: type[Record]) -> Mapping[str, Member]:
    hints = typing.get_type_hints(cls)
    by_key = {}
    for member in fields(cls):
        if member.name in ("extra", "file_keys"):
            continue
        default = None if member.default is MISSING else _constant(member.default)
        if member.default_factory is not MISSING:
            default = member.default_factory
        column = bool(member.metadata.get("column"))
        convert = _column if column else _converter(hints[member.name])
        key = member.metadata.get("key", member.name)
        by_key[key] = Member(
            member.name, hints[member.name], convert, default, bool(member.metadata.get("optional")), column
        )
    return by_key


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def plain(value: Any) -> Any:
    """Convert records to objects and tuples to lists, at any depth."""
    if isinstance(value, Record):
        return value.as_json()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def _wrong(value: Any, what: str) -> TypeError:
    return TypeError(f"{what} is {value!r:.60}")


def _column(value: Any, what: str) -> Any:
    if value is not None and not isinstance(value, (list, tuple)):
        raise _wrong(value, what)
    return value


def _converter(hint: Any) -> Convert:
    """Build the function that checks a value's type and converts records."""
    if hint is Any:
        return lambda value, what: value
    if isinstance(hint, type) and issubclass(hint, Record):
        return _record(hint)
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union([inner for inner in inside if inner is not types.NoneType], types.NoneType in inside)
    if origin is tuple:
        return _tuple(
            [_converter(inner) for inner in inside if inner is not ...], None if ... in inside else len(inside)
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(None if inside[1] is Any else _converter(inside[1]))
    return _scalar((hint,))


def _record(cls: type[Record]) -> Convert:
    def convert(value: Any, what: str) -> Any:
        if not isinstance(value, Mapping):
            raise _wrong(value, what)
        return cls.from_json(value)

    return convert


def _union(kinds: list[Any], nullable: bool) -> Convert:
    scalars = all(kind in (str, int, float, bool) for kind in kinds)
    inner = _scalar(tuple(kinds)) if scalars else _converter(kinds[0])

    def convert(value: Any, what: str) -> Any:
        return None if value is None and nullable else inner(value, what)

    return convert


def _scalar(kinds: tuple[type, ...]) -> Convert:
    """Build the check of a scalar. Numbers are not converted, so that they are written back unchanged.

    A boolean is not accepted as a number.
    """
    allowed = (*kinds, int) if float in kinds else kinds

    def convert(value: Any, what: str) -> Any:
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
            raise _wrong(value, what)
        return value

    return convert


def _tuple(inner: list[Convert], length: int | None) -> Convert:
    def convert(value: Any, what: str) -> Any:
        if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
            raise _wrong(value, what)
        if length is None:
            return tuple([inner[0](one, what) for one in value])
        return tuple([check(one, what) for check, one in zip(inner, value, strict=True)])

    return convert


def _mapping(inner: Convert | None) -> Convert:
    def convert(value: Any, what: str) -> Any:
        if not isinstance(value, Mapping):
            raise _wrong(value, what)
        return value if inner is None else {key: inner(one, f"{what}: {key}") for key, one in value.items()}

    return convert


def check_schema(content: Any, path: Path) -> dict[str, Any]:
    """Check the schema of a file's content. Raises DataError for other files, UsageError for a newer version."""
    if not isinstance(content, dict) or "schema" not in content:
        raise DataError(f"{path}: not a file of olmes-suite (it has no `schema`)")
    major = str(content["schema"]).split(".")[0]
    if not major.isdigit() or int(major) > int(SCHEMA.split(".")[0]):
        raise UsageError(
            f"{path}: written by a newer olmes-suite (schema {content['schema']}, this one reads {SCHEMA}): upgrade"
        )
    return content


RecordType = typing.TypeVar("RecordType", bound=Record)


def read_record(kind: type[RecordType], path: Path) -> RecordType:
    """Read a record from a JSON file. Raises DataError for a damaged file, UsageError for a newer major version."""
    content = check_schema(read_json(path), path)
    try:
        return kind.from_json(content)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path.parent}: {path.name} is damaged ({type(error).__name__}: {error})") from error
