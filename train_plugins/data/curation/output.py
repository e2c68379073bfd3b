"""The folder that a command of `olmes data` makes: complete or absent, and resumable until then.

While a command runs, its files are in `.NAME.unfinished` beside the output folder. `state/` in there holds what a
resumed command continues from. At the end the folder gets its name in one step, so that a killed command never leaves
a part of a data set under that name; then `state/` is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from olmes_suite import __version__
from olmes_suite.errors import DataError, OlmesError, RunLocked, StorageError, UsageError
from olmes_suite.files import RunLock, read_json, storage, write_json, write_text
from train_plugins.data.curation.recipe import Loaded

REJECTED, MANIFEST, CARD = "rejected.jsonl", "manifest.json", "card.md"
STATE, STARTED = "state", "started.json"
SPEED = frozenset({"concurrency", "tries", "batch_size", "workers", "price"})
"""Keys of a recipe that may change before a command is resumed: they decide how fast it is, not what it makes."""
ADDRESS = "base_url"
"""Key of a served model that may have another value then: a server that is started again may be elsewhere."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file, folder or data set that a command reads."""

    name: str
    """The path or id, as in the recipe."""
    sha256: str
    """Hash of the content."""
    rows: int | None = None
    """Number of rows, where it is known."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An input row, or a generated one, that is not part of the output."""

    source: str
    """Name of the source or generator of the row."""
    row: Any
    """The number of an input row, from 0 in its source, or the content of a generated row."""
    reason: str
    """One of a few words, such as near_duplicate; they are counted."""
    detail: str = ""
    """What is wrong with this row."""

    def line(self) -> str:
        """Return the row's line of rejected.jsonl."""
        about = {"source": self.source, "row": self.row, "reason": self.reason}
        return json.dumps(about | ({"detail": self.detail} if self.detail else {}), ensure_ascii=False)


@dataclass(slots=True)
class Output:
    """The output folder of one command; use it as a context manager.

    Raises UsageError on entering if the folder exists, if there is an unfinished one without `resume`, or if the
    unfinished one was made from another recipe or from other inputs.
    """

    recipe: Loaded[Any]
    inputs: tuple[Input, ...]
    resume: bool = False
    keep: bool = False
    """Set it once `state` holds what is worth keeping after an error, such as paid completions."""
    resumed: bool = field(default=False, init=False)
    """Whether an unfinished command is continued."""
    reasons: Counter[str] = field(default_factory=Counter, init=False)
    """Number of rejected rows by reason, counted by `rejected`."""
    _lock: RunLock = field(init=False)

    def __post_init__(self) -> None:
        """Make the lock."""
        self._lock = _lock(self.path)

    @property
    def path(self) -> Path:
        """The output folder, which exists once the command is finished. A link to it stays one."""
        return _absolute(self.recipe.output)

    @property
    def work(self) -> Path:
        """The folder of the unfinished files."""
        return unfinished(self.path)

    @property
    def state(self) -> Path:
        """A folder for what a resumed command continues from; it is removed at the end."""
        return self.work / STATE

    def __enter__(self) -> Output:
        check_writable(self.path)
        self._lock.__enter__()
        try:
            self._start()
        except BaseException as error:
            self._lock.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, OlmesError) and not self.keep and not self.resumed:
                shutil.rmtree(self.work, ignore_errors=True)
        finally:
            self._lock.__exit__(kind, error, trace)

    def _start(self) -> None:
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise UsageError(f"--out {self.path}: exists and is not empty; remove it or name another folder")
        started = {
            "command": self.recipe.command, "recipe": self.recipe.as_data(),
            "inputs": self._hashes(),
        }  # fmt: skip
        file = self.state / STARTED
        if self.work.exists() and file.is_file():
            if not self.resume:
                raise UsageError(
                    f"--out {self.path}: an unfinished run is there; add --resume to continue it, or remove {self.work}"
                )
            if changed := first_change(read_json(file), json.loads(json.dumps(started))):
                raise UsageError(
                    f"--resume: {changed} has changed since the unfinished run; change it back, or remove {self.work} "
                    "to start again"
                )
            self.resumed = True
            self._clear()
            return
        shutil.rmtree(self.work, ignore_errors=True)
        write_json(file, started)

    def _hashes(self) -> dict[str, str]:
        """Return the hashes of the inputs by name; two splits of a folder have one name."""
        found: dict[str, str] = {}
        for one in self.inputs:
            found[one.name] = f"{found[one.name]} {one.sha256}" if one.name in found else one.sha256
        return found

    def _clear(self) -> None:
        """Remove what the killed command had written besides the state: all of it is written again."""
        for path in self.work.iterdir():
            if path.is_dir() and path != self.state:
                shutil.rmtree(path)
            elif path != self.state:
                path.unlink()

    def _files(self) -> list[tuple[str, Path]]:
        """List the finished files by their path in the folder."""
        files = {str(path.relative_to(self.work)): path for path in self.work.rglob("*") if path.is_file()}
        return sorted((name, path) for name, path in files.items() if not path.is_relative_to(self.state))

    @contextmanager
    def rejected(self) -> Iterator[RejectedFile]:
        """Open rejected.jsonl for writing, from its start."""
        with storage(self.path), (self.work / REJECTED).open("w", encoding="utf-8", errors="backslashreplace") as file:
            self.reasons.clear()
            yield RejectedFile(file, self.reasons)

    def finish(self, counts: Mapping[str, Any], card: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write card and manifest, give the folder its name and return the manifest.

        `counts` are the numbers of rows: at least `read` and `written`; the rejected ones are added. Raises DataError
        if they do not add up. `more` are other keys of the manifest: seeds, models, tokens, cost.
        """
        numbers = {**counts, "rejected": dict(sorted(self.reasons.items()))}
        lost = counts["read"] + counts.get("added", 0) - counts["written"] - self.reasons.total()
        if lost:
            raise DataError(f"{self.path}: {lost} rows are neither written nor rejected; please report this")
        write_text(self.work / CARD, card)
        (self.work / REJECTED).touch()
        manifest = {
            "schema": 1, "olmes": __version__, "command": self.recipe.command, "recipe": self.recipe.as_data(),
            "inputs": [_named(one) for one in self.inputs], "counts": numbers, **(more or {}),
            "files": {name: file_hash(file) for name, file in self._files()},
        }  # fmt: skip
        write_json(self.work / MANIFEST, manifest)
        with storage(self.path):
            self.work.replace(self.path)
        _remove_state(self.path)
        return manifest


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """rejected.jsonl, open."""

    file: IO[str]
    reasons: Counter[str]

    def add(self, row: Rejected) -> None:
        """Write one row and count it."""
        self.file.write(row.line() + "\n")
        self.reasons[row.reason] += 1


def _absolute(output: Path) -> Path:
    return output.resolve() if output.is_symlink() else Path(os.path.abspath(output))


def _lock(output: Path) -> RunLock:
    return RunLock(output.parent / f".{output.name}.lock", f"data set {output}", "--out")


def _remove_rest(output: Path) -> None:
    """Remove what a command has left that was killed after its folder had got its name."""
    _remove_state(output)
    lock = _lock(_absolute(output))
    if lock.path.exists():
        with suppress(RunLocked, StorageError), lock:
            pass


def _remove_state(output: Path) -> None:
    """Remove the state of a finished folder. Until then a kill would have lost what the next command continues from."""
    shutil.rmtree(output / STATE, ignore_errors=True)


def unfinished(output: Path) -> Path:
    """Return the folder of a command's files until it is finished."""
    return output.parent / f".{output.name}.unfinished"


def finished(recipe: Loaded[Any], inputs: Iterable[Input]) -> dict[str, Any] | None:
    """Return the manifest in the output folder if it was made from this recipe and these inputs; otherwise None.

    What may change before a command is resumed may differ.
    """
    file = recipe.output / MANIFEST
    if not file.is_file():
        return None
    manifest: dict[str, Any] = read_json(file)
    same = not first_change(manifest.get("recipe"), json.loads(json.dumps(recipe.as_data())), "recipe")
    hashes = [(one.get("name"), one.get("sha256")) for one in manifest.get("inputs", ())]
    if not same or hashes != [(one.name, one.sha256) for one in inputs]:
        return None
    _remove_rest(recipe.output)
    return manifest


def check_writable(output: Path) -> None:
    """Check before the work that the folder can be made. Raises UsageError or StorageError."""
    if output.is_dir() and output.samefile(Path.cwd()):
        # it would be replaced at the end, and this process and the shell would be left in a folder without a name
        raise UsageError(f"--out {output}: is the folder that you are in; name one inside it, or go to another folder")
    if output.is_dir() and os.path.ismount(output):  # such as a container's volume; nothing can be renamed to it
        raise UsageError(f"--out {output}: is a mount point, which cannot be replaced; name a folder inside it")
    place = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    if not place.is_dir():
        raise UsageError(f"--out {output}: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"--out {output}: {place} cannot be written; name another place")


def first_change(then: Any, now: Any, name: str = "") -> str:
    """Return the path of the first value that differs, such as `recipe: seed`; an empty string if none does.

    Keys of `SPEED` are not compared, nor two addresses of a server.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            here = f"{name}: {key}" if name else str(key)
            moved = key == ADDRESS and then.get(key) is not None and now.get(key) is not None
            if key not in SPEED and not moved and (found := first_change(then.get(key), now.get(key), here)):
                return found
        return ""
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = enumerate(zip(then, now, strict=True))
        return next((found for n, pair in pairs if (found := first_change(*pair, f"{name}[{n}]"))), "")
    return "" if then == now else name


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _named(one: Input) -> dict[str, Any]:
    return {"name": one.name, "sha256": one.sha256} | ({} if one.rows is None else {"rows": one.rows})
