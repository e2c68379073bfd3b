"""What scorers read beside a response: NLTK's data, small packages, a spaCy model. Found, never fetched in a run.

`olmes data pull` fetches NLTK's data into a mirror's folder `nltk`; `$NLTK_DATA` and the mirrors' `nltk` folders are
where it is looked for. A task's YAML names what its documents need with `resources` (a function of a document), so that
what is missing is one line before any model is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from olmes_suite import extras
from olmes_suite.errors import MissingData, first_line

NLTK_DATA = {
    "punkt_tab": "tokenizers/punkt_tab/english",
    "stopwords": "corpora/stopwords/english",
    "averaged_perceptron_tagger_eng": "taggers/averaged_perceptron_tagger_eng",
}
"""Package of NLTK's data to the path that must be there."""

PACKAGES = {
    "emoji": "emoji",
    "syllapy": "syllapy",
    "french_words": "spellchecker",
}
"""Resource to the module that holds it; they are in the extra `ood`."""

SPACY_MODEL = "OLMES_SPACY_MODEL"
"""Environment variable that names a spaCy pipeline with named entities: an installed package or a folder."""


def missing(name: str) -> str | None:
    """One line that says what is missing and what to do, or None. Raises KeyError for an unknown name."""
    if name == "spacy_model":
        return _missing_spacy()
    if name in PACKAGES:
        return None if extras.installed(PACKAGES[name]) else _not_installed(PACKAGES[name])
    if not extras.installed("nltk"):
        return _not_installed("nltk")
    return None if nltk_has(name) else _missing_nltk([name])


def _not_installed(module: str) -> str:
    return f"the package {module} is not installed: {extras.install(extras.of_module(module) or 'all')}"


def _missing_nltk(names: Sequence[str]) -> str:
    return (
        f"NLTK's {', '.join(names)} {'is' if len(names) == 1 else 'are'} not on this machine: "
        "olmes data pull --task TASK --out DATA_DIR fetches it into DATA_DIR/nltk; or set NLTK_DATA to a folder with "
        f"{', '.join(NLTK_DATA[name] for name in names)}"
    )


def require(names: Iterable[str]) -> None:
    """Raises MissingData, in one line, unless everything is here."""
    wanted = sorted(set(names))
    without = [name for name in wanted if name in NLTK_DATA and not nltk_has(name)]
    lines = [_missing_nltk(without)] if without else []
    lines += [line for name in wanted if name not in NLTK_DATA and (line := missing(name)) is not None]
    if lines:
        raise MissingData("; ".join(lines))


def nltk_has(name: str) -> bool:
    """NLTK finds that package of its data."""
    return nltk_folder(name) is not None


def nltk_folder(name: str) -> Path | None:
    """Where NLTK finds that package of its data: a file or a folder, None where it is nowhere."""
    import nltk.data

    try:
        return Path(str(nltk.data.find(NLTK_DATA[name], [*nltk.data.path, *_nltk_folders()])))
    except LookupError:
        return None


def extend_nltk_path() -> None:
    """Let NLTK look into `$NLTK_DATA` and the mirrors' folders; what calls NLTK's own functions calls this before."""
    import nltk.data

    nltk.data.path.extend(folder for folder in _nltk_folders() if folder not in nltk.data.path)


def _nltk_folders() -> Iterator[str]:
    """`$NLTK_DATA` as it stands now, which NLTK itself reads only when it is imported, then the mirrors' folders."""
    yield from (part for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part)
    for part in os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep):
        if part:
            yield os.path.join(part, "nltk")


def fetch_nltk(name: str, out: Path) -> str:
    """Put one package of NLTK's data into `out`: "kept" where it is there, else copied or downloaded ("pulled").

    Raises MissingData where it is nowhere on this machine and NLTK's server cannot be reached.
    """
    target = out / NLTK_DATA[name]
    if target.exists():
        return "kept"
    found = nltk_folder(name)
    if found is not None and found.exists():  # not inside a zip file
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if found.is_dir() else shutil.copy2)(found, target)
        return "pulled"
    import nltk

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as said:
        nltk.download(name, download_dir=str(out), quiet=True, print_error_to=io.StringIO())
    if not target.exists():
        refused = next((str(one.message) for one in said if "authorize" in str(one.message)), "")
        raise MissingData(refused or f"NLTK's server does not give {name} (or cannot be reached)")
    return "pulled"


def _missing_spacy() -> str | None:
    name = os.environ.get(SPACY_MODEL, "")
    if not name:
        return (
            f"count:countries finds places with a spaCy model that you name: set {SPACY_MODEL} to an installed one "
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
    """The spaCy pipeline of that name. Raises MissingData where spaCy cannot load it."""
    import spacy

    try:
        return spacy.load(name)
    except (OSError, ValueError, ImportError) as error:
        raise MissingData(f"{SPACY_MODEL}: spaCy cannot load {name}: {first_line(error)}") from None
