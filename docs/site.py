"""Hooks of the documentation site (mkdocs.yml): reference pages from the code, links to files beside `docs/`."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages
import reference_tasks
from mkdocs.structure.files import File

LINK = re.compile(r"(\]\()(\.\./[^)\s]+)(?=[)\s])")
"""A link upwards; one that leaves `docs/` names a file of the repository."""


def on_config(config: Any) -> Any:
    """Put the pages of the tasks where the navigation names their index."""
    tasks = next(inner for entry in config.nav for inner in _lists(entry) if reference_tasks.INDEX_PAGE in inner)
    tasks += sorted(set(reference_tasks.pages()) - set(tasks))
    return config


def _lists(entry: Any) -> Iterator[list[Any]]:
    """Yield the lists of a navigation's entry, at any depth."""
    if isinstance(entry, dict):
        for inner in entry.values():
            yield from _lists(inner)
    elif isinstance(entry, list):
        yield entry
        for inner in entry:
            yield from _lists(inner)


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the reference pages."""
    for name, text in reference_pages.pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Point links that leave `docs/` to the repository."""
    folder = posixpath.dirname(page.file.src_uri)

    def outside(found: re.Match[str]) -> str:
        path, _, anchor = found[2].partition("#")
        target = posixpath.normpath(posixpath.join("docs", folder, path))
        if target.startswith("docs/"):
            return found[0]
        kind = "tree" if (Path(config.docs_dir).parent / target).is_dir() else "blob"
        return f"{found[1]}{config.repo_url}/{kind}/main/{target}" + (f"#{anchor}" if anchor else "")

    return LINK.sub(outside, markdown)
