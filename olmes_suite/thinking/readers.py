"""The readers by name, which are YAML files in `readers/`, and readers from a user's file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError, nearest
from olmes_suite.thinking.reader import AnswerMarks, Reader

SHIPPED = Path(__file__).parent / "readers"
AUTO, NONE = "auto", "none"
"""Found from tokenizer and chat template; no reader."""
Choice = str | Reader
"""auto, none, the name of a reader, or a reader."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a reader's file."""

    open: str
    close: tuple[str, ...]
    answer: AnswerMarks = field(default_factory=AnswerMarks)
    template_opens: bool | None = None
    anywhere: bool = False
    about: str = ""


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return the names of the shipped readers, `think` first."""
    return tuple(sorted((file.stem for file in SHIPPED.glob("*.yaml")), key=lambda name: (name != "think", name)))


@lru_cache(maxsize=32)
def built_in(name: str) -> Reader:
    """Return a shipped reader."""
    return _read(SHIPPED / f"{name}.yaml")


def reader_of(name_or_file: str, where: str = "--thinking") -> Reader:
    """Return the reader of this name, or of a YAML file.

    Raises UsageError for an unknown name or a wrong file; `where` is the option or key that the error names.
    """
    if name_or_file in names():
        return built_in(name_or_file)
    if name_or_file.endswith((".yaml", ".yml")) or "/" in name_or_file or Path(name_or_file).is_file():
        return _read(Path(name_or_file).expanduser())
    known = (AUTO, NONE, *names())
    raise UsageError(
        f"{where} {name_or_file}: unknown reader{nearest(name_or_file, list(known))}; use one of "
        f"{', '.join(known)}, or a YAML file"
    )


def choice_of(value: object, where: str = "--thinking") -> Choice:
    """Return the choice that `--thinking` names: auto (also for None), none, or a reader. Raises UsageError."""
    if value is None:
        return AUTO
    if isinstance(value, Reader):
        return value
    return str(value) if value in (AUTO, NONE) else reader_of(str(value), where)


def check_choice(value: object) -> Choice | None:
    """Return the value to pass on to a backend, which may run on another machine; None for None. Raises UsageError."""
    return None if value is None else choice_of(value)


def _read(path: Path) -> Reader:
    file = yaml_files.read(path, "reader")
    if file.data is None:
        raise UsageError(f"reader {path}: is empty; it needs the keys open and close")
    keys = yaml_files.typed(_Keys, file.data, file.place)
    reader = Reader(keys.open, keys.close, keys.answer, keys.template_opens, keys.anywhere, keys.about)
    _check(reader, path)
    return replace(reader, name=path.stem)


def _check(reader: Reader, path: Path) -> None:
    """Raise UsageError for marks that cannot be told apart."""
    named = [("open", reader.open), *(("close", mark) for mark in reader.close)]
    named += [("answer: open", reader.answer.open or "-"), ("answer: close", reader.answer.close or "-")]
    if not reader.close:
        raise UsageError(f"reader {path}: close: needs at least one mark")
    for key, mark in named:
        if not mark or mark.strip() != mark:
            raise UsageError(
                f"reader {path}: {key}: {mark!r} is empty or has white space at an end; write the bare mark"
            )
    if reader.open in reader.close:
        raise UsageError(f"reader {path}: open and close are both {reader.open!r}; a thought needs two marks")
