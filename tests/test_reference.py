"""The reference pages that the documentation site makes from the code."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_commands import ROOT, below, tree

from olmes_suite.tasks import index

DOCS = ROOT / "docs"
pytestmark = pytest.mark.xdist_group("reference")  # the pages take seconds to make


@pytest.fixture(scope="module")
def reference() -> Any:
    """The module that makes the pages; it stands beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        import reference_pages

        yield reference_pages
    for name in ("reference_pages", "reference_tasks"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def pages(reference: Any) -> dict[str, str]:
    return reference.pages()


@pytest.mark.long
def test_every_command_and_option_is_described(reference: Any, pages: dict[str, str]) -> None:
    text = pages[reference.COMMANDS_PAGE]
    sections = dict(re.findall(r"^#{2,4} olmes (.+)\n((?:(?!^#).*\n?)*)", text, re.MULTILINE))
    for name, command in tree().items():
        wanted = {name: command, **{f"{name} {sub}": one for sub, one in below(command).items()}}
        for words, one in wanted.items():
            options = [opt for parameter in one.params for opt in parameter.opts if opt.startswith("--")]
            missing = [opt for opt in options if opt != "--help" and f"`{opt}`" not in sections[words]]
            assert missing == [], words


@pytest.mark.long
def test_every_recipe_key_is_described(reference: Any, pages: dict[str, str]) -> None:
    from train_plugins.config.evaluation import Evaluation
    from train_plugins.config.recipe import Recipe
    from train_plugins.config.trainer_fields import TABLES
    from train_plugins.stages import registry

    text = pages[reference.RECIPES_PAGE]
    inner = {"kind", "own", "place"}
    classes = [Recipe, Evaluation, *(registry.find(name).own for name in registry.BUILT_IN)]
    keys = {one.name for kind in classes for one in fields(kind)} - inner | {
        name for t in TABLES.values() for name in t
    }
    assert [key for key in sorted(keys) if f"| `{key}` |" not in text] == []


@pytest.mark.long
def test_every_task_has_a_section(pages: dict[str, str]) -> None:
    tasks = {name: text for name, text in pages.items() if name.startswith("reference/tasks/")}
    listed = tasks["reference/tasks/index.md"]
    for entry in index.top_level():
        assert f"[{entry.name}](" in listed
        (page,) = (text for name, text in tasks.items() if f"\n## {entry.name}\n" in text)
        section = page.split(f"\n## {entry.name}\n")[1].split("\n## ")[0]
        for fact in (f"`{entry.primary}`", "| settings |", "| data |", f"`tasks/{entry.file}`", "The prompt of"):
            assert fact in section, (entry.name, fact)


@pytest.mark.long
def test_every_schema_and_flag_is_described(reference: Any, pages: dict[str, str]) -> None:
    from leaderboard.marks import TROUBLES
    from olmes_suite.runs.schema.json_schema import FILES

    assert all(f"\n## {name}\n" in pages[reference.FILES_PAGE] for name in FILES)
    assert all(f"`{flag}`" in pages[reference.FLAGS_PAGE] for flag in TROUBLES)


@pytest.mark.long
def test_tables_have_equal_rows(pages: dict[str, str]) -> None:
    """A stray `|` in a help text would break its table."""
    for name, text in pages.items():
        outside = re.sub(r"^(`{3,})[^\n]*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
        for table in re.findall(r"(?:^\|.*\n)+", outside, re.MULTILINE):
            columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
            assert len(columns) == 1, (name, table[:300])


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, which names a Python function."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def test_the_navigation_names_every_page(reference: Any) -> None:
    def named(entry: Any) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        return set().union(*(named(one) for one in (entry.values() if isinstance(entry, dict) else entry)))

    navigation = named(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    made = {reference.COMMANDS_PAGE, reference.RECIPES_PAGE, reference.FILES_PAGE, reference.FLAGS_PAGE}
    assert navigation == written | made | {"reference/tasks/index.md"}


@pytest.mark.long
def test_the_site_is_built_without_a_dead_link(tmp_path: Path) -> None:
    """`make docs` does the same; this looks for what a page would load from another server."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("material", reason="the extra docs is not installed")
    import subprocess

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|iframe)[^>]+src=\"?https?:", text) == [], page
        assert re.findall(r"<link[^>]+stylesheet[^>]+https?:", text) == [], page
