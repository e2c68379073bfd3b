"""Language resources of scorers: NLTK's data, small packages and a spaCy model. A run never downloads them.

`python -m nltk.downloader` fetches NLTK's data, and `olmes data pull` copies it into a mirror's folder `nltk`; it is
searched where NLTK looks, in `$NLTK_DATA` and in the mirrors' `nltk` folders. A task file names the needs of its
documents with `resources` (a function of a document), so that a missing resource is reported in one line before a
model is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from olmes_suite import extras
from olmes_suite.errors import MissingData, first_line
from olmes_suite.files import remove_leftovers

NLTK_DATA = {
    "punkt_tab": "tokenizers/punkt_tab/english",
    "stopwords": "corpora/stopwords/english",
    "averaged_perceptron_tagger_eng": "taggers/averaged_perceptron_tagger_eng",
}
"""Package of NLTK's data to the path that must exist."""

PACKAGES = {
    "emoji": "emoji",
    "syllapy": "syllapy",
    "french_words": "spellchecker",
}
"""Resource to its module; the modules are in the extra `ood`."""

SPACY_MODEL = "OLMES_SPACY_MODEL"
"""Environment variable that names a spaCy pipeline with named entities: an installed package or a folder."""


def missing(name: str) -> str | None:
    """Return a line about a missing resource and its remedy, otherwise None. Raises KeyError for an unknown name."""
    if name == "spacy_model":
        return _missing_spacy()
    if name in PACKAGES:
        return None if extras.installed(PACKAGES[name]) else _not_installed(PACKAGES[name])
    if not extras.installed("nltk"):
        return _not_installed("nltk")
    return None if nltk_has(name) else str(MissingData(*_missing_nltk([name])))


def _not_installed(module: str) -> str:
    return f"the package {module} is not installed: {extras.install(extras.of_module(module) or 'all')}"


def nltk_command(names: Iterable[str]) -> str:
    """Return the command that downloads packages of NLTK's data to where NLTK finds them."""
    return f"python -m nltk.downloader {' '.join(names)}"


def _missing_nltk(names: Sequence[str]) -> tuple[str, str]:
    """Return the message's text before and after the name of the task."""
    return (
        f"NLTK's {', '.join(names)} {'is' if len(names) == 1 else 'are'} not on this machine: {nltk_command(names)} "
        "downloads it; without a network, olmes data pull --task ",
        " --out DATA_DIR elsewhere writes it to DATA_DIR/nltk; or set NLTK_DATA to a folder with "
        f"{', '.join(NLTK_DATA[name] for name in names)}",
    )


def require(names: Iterable[str]) -> None:
    """Raise MissingData, with one line, if any of the resources is missing."""
    needed = sorted(set(names))
    missing_nltk = [name for name in needed if name in NLTK_DATA and not nltk_has(name)]
    lines = [line for name in needed if name not in NLTK_DATA and (line := missing(name)) is not None]
    if missing_nltk:
        before, after = _missing_nltk(missing_nltk)
        raise MissingData(before, "; ".join([after, *lines]))
    if lines:
        raise MissingData("; ".join(lines))


def nltk_has(name: str) -> bool:
    """Tell whether NLTK finds a package of its data."""
    return nltk_folder(name) is not None


def nltk_folder(name: str) -> Path | None:
    """Return the file or folder of a package of NLTK's data; None if NLTK does not find it."""
    import nltk.data

    try:
        return Path(str(nltk.data.find(NLTK_DATA[name], [*nltk.data.path, *_nltk_folders()])))
    except LookupError:
        return None


def extend_nltk_path() -> None:
    """Add `$NLTK_DATA` and the mirrors' folders to NLTK's search path. Call it before NLTK's functions."""
    import nltk.data

    nltk.data.path.extend(folder for folder in _nltk_folders() if folder not in nltk.data.path)


def _nltk_folders() -> Iterator[str]:
    """Yield the folders of the current `$NLTK_DATA`, which NLTK reads only on import, then the mirrors' folders."""
    yield from (part for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part)
    for part in os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep):
        if part:
            yield os.path.join(part, "nltk")


def fetch_nltk(name: str, out: Path) -> str:
    """Store a package of NLTK's data in `out`; returns "kept" if it exists, "pulled" if it was copied or downloaded.

    Raises MissingData if it is not on this machine and NLTK's server cannot be reached.
    """
    target = out / NLTK_DATA[name]
    if target.exists():
        return "kept"
    local_copy = nltk_folder(name)
    if local_copy is not None and local_copy.exists():  # not inside a zip file
        return _copy(local_copy, target)
    import nltk

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        nltk.download(name, download_dir=str(out), quiet=True, print_error_to=io.StringIO())
    if not target.exists():
        messages = [
            str(warning.message) for warning in caught if warning.category is UserWarning
        ]  # for example a folder that other users can write to
        raise MissingData(messages[0] if messages else f"NLTK's server does not have {name} or cannot be reached")
    return "pulled"


def _copy(source: Path, target: Path) -> str:
    """Copy a file or folder, which appears in one step; "kept" if another command has placed it meanwhile."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent, f".{target.name}.*.part")
    try:
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, part)
        part.rename(target)
        return "pulled"
    except OSError:
        if not target.exists():
            raise
        return "kept"
    finally:
        shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):
            part.unlink()


def _missing_spacy() -> str | None:
    name = os.environ.get(SPACY_MODEL, "")
    if not name:
        return (
            f"count:countries needs a spaCy model: set {SPACY_MODEL} to an installed one "
            "(the reference uses en_core_web_sm) or to its folder"
        )
    if importlib.util.find_spec("spacy") is None:
        return _not_installed("spacy")
    if not Path(name).is_dir() and importlib.util.find_spec(name) is None:
        return f"{SPACY_MODEL} names {name}, which is neither a folder nor an installed package"
    try:
        spacy_model(name)
    except MissingData as error:
        return str(error)
    return None


@functools.lru_cache(maxsize=1)
def spacy_model(name: str) -> Any:
    """Load the spaCy pipeline of that name. Raises MissingData if spaCy cannot load it."""
    import spacy

    try:
        return spacy.load(name)
    except (OSError, ValueError, ImportError) as error:
        raise MissingData(f"{SPACY_MODEL}: spaCy cannot load {name}: {first_line(error)}") from None
