"""What every kind of recorded file has in common: JSON to a frozen dataclass and back, without loss.

A field is a key of the file. Keys that no field has are kept in `extra` and written back: a file's schema grows by
addition, and an older version must not lose what a newer one has added.
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
"""Metadata of a field that is left out of a new file as long as it has its default."""
COLUMN = {"column": True}
"""Metadata of a field with one value per document: its values are not looked at one by one."""
Convert = Callable[[Any, str], Any]
"""A value of a file and its key to the value of a field. Raises TypeError."""


def named(key: str) -> dict[str, Any]:
    """Metadata of an optional field whose key in the file is no name in Python."""
    return {**OPTIONAL, "key": key}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An object of a recorded file."""

    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keys of the file that this version does not know."""
    file_keys: tuple[str, ...] | None = field(default=None, repr=False, compare=False)
    """The keys that were read, in their order; None for a new record."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The record in an object of a file. Raises TypeError or KeyError naming the key that is wrong."""
        if not isinstance(data, Mapping):
            raise TypeError(f"{cls.__name__} is {data!r:.60}")
        known = members(cls)
        given: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for key, value in data.items():
            if (member := known.get(key)) is None:
                extra[key] = value
            else:
                given[member.attribute] = member.convert(value, key)
        for key, member in known.items():
            if member.default is None and member.attribute not in given:
                raise KeyError(key)
        return cls(**given, extra=extra, file_keys=tuple(data))

    def as_json(self) -> dict[str, Any]:
        """The object for a file: what was read as it was, what is new in the order of the fields."""
        known = members(type(self))
        read = self.file_keys or ()
        out: dict[str, Any] = {}
        for key in dict.fromkeys((*read, *known, *self.extra)):
            member = known.get(key)
            if member is None:
                if key in self.extra:
                    out[key] = self.extra[key]
                continue
            value = getattr(self, member.attribute)
            if key not in read and (member.optional or self.file_keys is not None) and member.is_default(value):
                continue
            out[key] = value if member.column else plain(value)
        return out

    def but(self, **changes: Any) -> Self:
        """A copy with other values."""
        return replace(self, **changes)


class Member(NamedTuple):
    """One field of a record."""

    attribute: str
    hint: Any
    """Its type, resolved."""
    convert: Convert
    default: Callable[[], Any] | None
    """None for a key that every file has."""
    optional: bool
    column: bool

    def is_default(self, value: Any) -> bool:
        """The value says nothing."""
        return self.default is not None and value == self.default()


_MEMBERS: dict[type, Mapping[str, Member]] = {}


def members(cls: type[Record]) -> Mapping[str, Member]:
    """Key to field of a kind of record."""
    if cls not in _MEMBERS:
        _MEMBERS[cls] = _members(cls)
    return _MEMBERS[cls]


def _members(cls: type[Record]) -> Mapping[str, Member]:
    hints = typing.get_type_hints(cls)
    found = {}
    for one in fields(cls):
        if one.name in ("extra", "file_keys"):
            continue
        default = None if one.default is MISSING else _constant(one.default)
        if one.default_factory is not MISSING:
            default = one.default_factory
        column = bool(one.metadata.get("column"))
        convert = _column if column else _converter(hints[one.name])
        key = one.metadata.get("key", one.name)
        found[key] = Member(one.name, hints[one.name], convert, default, bool(one.metadata.get("optional")), column)
    return found


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def plain(value: Any) -> Any:
    """Records as objects and tuples as lists, at any depth."""
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
    """The check of a type, and the conversion of its records."""
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
    """A number stays as the file has it, so that it is written back in the same digits; `true` is no number."""
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


def check_schema(found: Any, path: Path) -> dict[str, Any]:
    """The file's content. Raises DataError for what is no object of ours, UsageError for a newer major version."""
    if not isinstance(found, dict) or "schema" not in found:
        raise DataError(f"{path}: not a file of olmes-suite (it has no `schema`)")
    major = str(found["schema"]).split(".")[0]
    if not major.isdigit() or int(major) > int(SCHEMA.split(".")[0]):
        raise UsageError(
            f"{path}: written by a newer olmes-suite (schema {found['schema']}, this one reads {SCHEMA}): upgrade"
        )
    return found


RecordType = typing.TypeVar("RecordType", bound=Record)


def read_record(kind: type[RecordType], path: Path) -> RecordType:
    """The record in a JSON file. Raises DataError for a damaged file, UsageError for one of a newer major version."""
    content = check_schema(read_json(path), path)
    try:
        return kind.from_json(content)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path.parent}: {path.name} is damaged ({type(error).__name__}: {error})") from error
