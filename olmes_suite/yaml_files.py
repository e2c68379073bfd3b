"""Users' YAML files, read with line numbers and checked against annotations by pydantic; errors are one line.

PyYAML and pydantic are imported when a file is read, not before.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache, partial, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from olmes_suite.errors import UsageError, WrongKey, nearest, one_line

T = TypeVar("T")
Keys = tuple[Any, ...]
"""Path of a value: keys of mappings and indices of lists."""
INNER = "inner"
"""Metadata of a field of a dataclass that is not a key of the file."""
_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "dict": "a mapping",
    "model": "a mapping",
    "list": "a list",
}
"""Expected values by the types of pydantic's errors, up to the first underscore."""
_SWITCHES = {False: ("off", "no"), True: ("on", "yes")}
"""Words that YAML 1.1 reads as false and true."""
_LISTS = {"a mapping": "a list of mappings", "text": "text, or a list of texts"}
"""What a list of such values is called."""


@dataclass(slots=True)
class YamlFile:
    """The content of a YAML file, with the line of each key."""

    name: str
    data: Any
    root: Any = None
    """PyYAML's tree of nodes; None for an empty file."""
    replaced: set[tuple[str, ...]] = field(default_factory=set)
    """Paths of values that `--set` wrote into `data`; indices of lists are text."""
    included: dict[Keys, YamlFile] = field(default_factory=dict)
    """Paths of values that come from another file."""

    @property
    def place(self) -> Place:
        """The file, as errors name it."""
        return Place(self.name, file=self)

    def replace(self, names: Sequence[str]) -> None:
        """Record that a value of `data` no longer comes from the file."""
        self.replaced.add(tuple(names))

    def position(self, keys: Keys) -> tuple[str, int | None]:
        """Return the file and the line of a value; the line is None for a value that is not in a file."""
        starts = [keys[:length] for length in range(1, len(keys) + 1)]
        if any(tuple(map(str, start)) in self.replaced for start in starts):
            return self.name, None
        for start in starts:
            if other := self.included.get(start):
                return other.position(keys[len(start) :])
        return self.name, _line(self.root, keys)


@dataclass(frozen=True, slots=True)
class Place:
    """The start of an error: a file or the command line, and the part that is wrong."""

    name: str
    about: str = ""
    file: YamlFile | None = None
    keys: Keys = ()
    """Path of that part in the file."""

    def __str__(self) -> str:
        return f"{self.name}: {self.about}" if self.about else self.name

    def inside(self, *keys: Any, named: str = "") -> Place:
        """Return the place of a value below this one; `named` replaces its keys in errors."""
        about = _joined(([self.about] if self.about else []), (named,) if named else keys)
        return Place(self.name, about, self.file, (*self.keys, *keys))

    def at(self, *keys: Any) -> Place:
        """Return the place of a value below this one, with its line if that is known."""
        return self.inside(*keys).line(())

    def line(self, keys: Keys) -> Place:
        """Return this place with the line of a value below it, if the line is known."""
        name, line = self.file.position((*self.keys, *keys)) if self.file else (self.name, None)
        return self if line is None else Place(f"{name}, line {line}", self.about)


@dataclass(frozen=True, slots=True)
class Between:
    """Annotation of a float that the file gives as a number from `low` to `high`, in units of 1 / `per`."""

    low: float
    high: float
    per: int = 1
    unit: str = ""

    def read(self, value: Any) -> float:
        """Convert the value. Raises ValueError outside the bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            unit = f" ({self.unit})" if self.unit else ""
            raise ValueError(f"expected a number from {self.low:g} to {self.high:g}{unit}, not {value!r}")
        return value / self.per if self.per != 1 else float(value)


def read(path: Path, what: str = "") -> YamlFile:
    """Read a user's YAML file; `what` names its kind in errors. Raises UsageError, also for duplicate keys."""
    import yaml

    name = f"{what} {path}".strip()
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(path.read_text(encoding="utf-8"))
        try:
            root = loader.get_single_node()
            _refuse_repeated(root, name)
            data = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UsageError(
            f"{name} cannot be read: {where}{error.problem or error.context}{tab_advice(path, mark)}"
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{name} cannot be read: {one_line(error, None)}") from error
    return YamlFile(str(path), data, root)


def tab_advice(path: Path, mark: Any) -> str:
    """Return what to do about a tab in the indentation of the line of an error; "" for another error."""
    try:
        line = path.read_text(encoding="utf-8").splitlines()[mark.line] if mark is not None else ""
    except (OSError, ValueError, IndexError):
        return ""
    indentation = line[: len(line) - len(line.lstrip())]
    return "; indent with spaces, not with tabs" if "\t" in indentation else ""


def typed(kind: type[T], data: Any, where: Place | str, also: Sequence[str] = ()) -> T:
    """Convert `data` to the annotation `kind`, a dataclass or another type. Raises WrongKey.

    Types are strict, with three exceptions: a quoted number is accepted as a float, because YAML 1.1 reads 5e-6 (no
    dot) as text; the words off, no, on and yes are read as such where they are options; a single value is accepted as a
    tuple of one. Enumerations and classes of other packages are not
    checked here. `also` names keys that the caller has removed from `data`, as suggestions for an unknown key.
    """
    from pydantic import ValidationError

    try:
        checked: T = _adapter(cast(Any, kind)).validate_python(data)
        return checked
    except ValidationError as error:
        problem = _first([_problem(dict(one), data, also) for one in error.errors(include_url=False)])
    place = where if isinstance(where, Place) else Place(where)
    place = place.line(problem.keys if problem.missing else problem.value)
    raise WrongKey(f"{_joined([str(place)], problem.keys)}: {problem.text}")


# Lines


def _line(root: Any, keys: Keys) -> int | None:
    """Return the line of a key or of a list's entry, counted from 1."""
    node, line = root, None
    for key in keys:
        if node is None:
            return None
        if node.id == "mapping":
            pair = next(((name, value) for name, value in node.value if name.value == str(key)), None)
            name, node = pair or (None, None)
            line = name.start_mark.line if name else None
        elif node.id == "sequence" and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line
        else:
            return None
    return None if line is None else line + 1


def _refuse_repeated(root: Any, name: str) -> None:
    """Raise UsageError for a duplicate key of a mapping, of which PyYAML would keep the second."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop(0)
        if node is None or node.id == "scalar" or id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "sequence":
            pending += node.value
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            pending.append(value)
            if key.id != "scalar" or key.tag == "tag:yaml.org,2002:merge":
                continue
            written, line = (key.tag, key.value), key.start_mark.line + 1
            if written in lines:
                raise UsageError(f"{name}: the key {key.value!r} stands twice, on lines {lines[written]} and {line}")
            lines[written] = line


# Errors


class _Problem(NamedTuple):
    """An error of pydantic in the words of this package."""

    keys: Keys
    """Path that the error names."""
    text: str
    value: Keys
    """Path of the value or key that is wrong or missing."""
    missing: bool = False


def _first(problems: list[_Problem]) -> _Problem:
    """Choose the problem to report: a missing key before wrong values, and the best match of a union's options."""

    def precise(one: _Problem) -> bool:
        return not any(len(other.value) > len(one.value) == _common(one.value, other.value) for other in problems)

    kept = [one for one in problems if precise(one)]
    return next((one for one in kept if one.missing), kept[0])


def _common(one: Keys, other: Keys) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _problem(error: dict[str, Any], data: Any, also: Sequence[str]) -> _Problem:
    kind, loc, value_given, context = error["type"], error["loc"], error["input"], error.get("ctx", {})
    if kind == "missing":
        keys = _way(loc[:-1], data)
        return _Problem(keys, f"the key {loc[-1]!r} is missing", (*keys, loc[-1]), missing=True)
    keys = _way(loc, data)
    if kind == "unknown_key":
        return _unknown(keys, context["key"], [*context["known"], *(() if keys else also)])
    if kind == "literal_error":
        options = context["expected"].replace("'", "").replace(" or ", ", ")
        if loc[-1:] == ("[key]",):
            return _unknown(keys[:-1], value_given, options.split(", "))
        if "," not in options:
            return _Problem(keys, f"expected {options}, not {value_given!r}", keys)
        return _Problem(keys, f"{value_given!r} is none of {options}", keys)
    if kind == "value_error":
        return _Problem(keys, str(context["error"]), keys)
    expected = _EXPECTED.get(kind.partition("_")[0])
    if expected is None:
        return _Problem(keys, f"{error['msg']}: {value_given!r}", keys)
    if keys and isinstance(loc[-1], int) and keys[-1] != loc[-1]:  # a single value stands for a list of one
        expected = _LISTS.get(expected, expected)
    if value_given is None and keys:
        return _Problem(keys, f"has no value; expected {expected}", keys)
    return _Problem(keys, f"expected {expected}, not {value_given!r}", keys)


def _unknown(keys: Keys, key: Any, known: list[str]) -> _Problem:
    text = f"unknown key {key!r}{nearest(str(key), known)}; known: {', '.join(known)}"
    return _Problem(keys, text, (*keys, key))


def _way(loc: Sequence[Any], data: Any) -> Keys:
    """Return the part of pydantic's location that is a path in the data; the other parts name validators."""
    keys: list[Any] = []
    for step in loc:
        if isinstance(data, Mapping):
            key = next((key for key in data if key == step or str(key) == step), None)
            if key is None:
                continue
            step = key
        elif not isinstance(data, list | tuple) or not isinstance(step, int) or step >= len(data):
            continue
        keys.append(step)
        data = data[step]
    return tuple(keys)


def _joined(parts: list[str], keys: Keys) -> str:
    """Join the parts of a path, as in `eval: tasks[0]`."""
    for key in keys:
        if isinstance(key, int) and parts:
            parts[-1] += f"[{key}]"
        else:
            parts.append(str(key))
    return ": ".join(parts)


# Conversion of annotations for pydantic


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_form(kind))


def _form(hint: Any) -> Any:
    """Convert an annotation to its strict form, with the exceptions that `typed` describes."""
    from pydantic import BeforeValidator, Field, PlainValidator, WrapValidator

    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = next((one for one in args[1:] if isinstance(one, Between)), None)
        return Annotated[Any, PlainValidator(bounds.read)] if bounds else _form(args[0])
    if origin in (Union, types.UnionType):
        options = [_form(option) for option in args if option is not type(None)]
        chosen = reduce(or_, options)
        if len(options) > 1:
            chosen = Annotated[chosen, Field(union_mode="left_to_right")]
        return chosen | None if type(None) in args else chosen
    if origin is tuple:
        item: Any = _form(args[0])
        return Annotated[tuple[item, ...], BeforeValidator(_several)]
    if origin is list or hint is list:
        return list[_form(args[0]) if args else Any]  # type: ignore[misc]
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        key, value = args or (Any, Any)
        return dict[Annotated[str, BeforeValidator(str)] if key is str else key, _form(value)]  # type: ignore[misc]
    if is_dataclass(hint):
        return _keys(hint)
    if hint is float:
        return Annotated[float, Field(strict=True), WrapValidator(_number)]
    if hint in (bool, int, str):
        return Annotated[hint, Field(strict=True)]
    return Annotated[hint, BeforeValidator(partial(_as_written, known=args))] if origin is Literal else Any


def _keys(kind: Any) -> Any:
    """Build the annotation of a dataclass, whose keys are read into an instance."""
    from pydantic import AfterValidator, BeforeValidator, create_model

    hints = get_type_hints(kind, include_extras=True)
    known = [one for one in fields(kind) if one.init and not one.metadata.get(INNER)]
    optional = {one.name for one in known if one.default is not MISSING or one.default_factory is not MISSING}
    listed = {one.name: (_form(hints[one.name]), None if one.name in optional else ...) for one in known}
    model: Any = create_model(kind.__name__, **listed)  # type: ignore[call-overload]

    def made(keys: Any) -> Any:
        return kind(**{name: getattr(keys, name) for name in keys.model_fields_set})

    return Annotated[model, AfterValidator(made), BeforeValidator(partial(_only_known, known=list(listed)))]


def _as_written(value: Any, known: Sequence[Any]) -> Any:
    """Return the word that YAML 1.1 has read as true or false, where one of the known words is such a word."""
    words = _SWITCHES[value] if isinstance(value, bool) else ()
    return next((word for word in words if word in known), value)


def _only_known(data: Any, known: list[str]) -> Any:
    from pydantic_core import PydanticCustomError

    for key in data if isinstance(data, Mapping) else ():
        if key not in known:
            raise PydanticCustomError("unknown_key", "unknown key", {"key": key, "known": known})
    return data


def _several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _number(value: Any, strictly: Callable[[Any], float]) -> Any:
    """Check a number without converting it, so that integers stay integers; quoted numbers are parsed."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    strictly(value)
    return value
