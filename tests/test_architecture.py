"""The tables of docs/architecture.md are the layout: imports run down them, and nothing is missing from them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
PACKAGES = ("olmes_suite", "train_plugins", "decontam", "leaderboard")
TASKS_MAY_IMPORT = ("scoring", "records", "constraints", "judges", "sandbox", "tasks", "errors", "stats")


def tables() -> dict[str, dict[str, int]]:
    """Level of each module or folder, by the package that a heading names."""
    found: dict[str, dict[str, int]] = {}
    section = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ (?:`(\w+)`)?", line):
            section = heading[1] or ""
        elif section and (row := re.match(r"\| (\d+) \| ([^|]+) \|", line)):
            found.setdefault(section, {}).update(dict.fromkeys(re.findall(r"`(\w+)`", row[2]), int(row[1])))
    return found


@lru_cache(maxsize=1)
def modules() -> dict[str, Path]:
    out = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            out[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return out


def imports(path: Path) -> Iterator[str]:
    """Our modules that a file imports, at the top or in a function, but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in modules():
                name = name.rpartition(".")[0]
            if name:
                yield name


def room(module: str, package: str) -> str | None:
    """The row of a package's table that a module belongs to; None for the package itself."""
    first, _, rest = module.partition(".")
    return (rest.split(".")[0] or None) if first == package else first


@pytest.mark.parametrize("package", ["olmes_suite", "train_plugins", "decontam"])
def test_imports_run_down(package: str) -> None:
    levels = tables()[package]
    wrong = []
    for module, path in modules().items():
        here = room(module, package)
        if here is None or (package != "olmes_suite" and not module.startswith(f"{package}.")):
            continue
        assert here in levels, f"{here} is in no table of docs/architecture.md"
        for name in imports(path):
            there = room(name, package)
            outside = package != "olmes_suite" and not name.startswith(f"{package}.")
            if there is None or outside or there == here:
                continue
            assert there in levels, f"{there} is in no table of docs/architecture.md"
            if levels[there] >= levels[here]:
                wrong.append(f"{module} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("package", ["olmes_suite", "train_plugins", "decontam"])
def test_the_tables_name_nothing_that_is_gone(package: str) -> None:
    inside = {room(module, package) for module in modules() if module.startswith(f"{package}.")}
    planned = {"api"}
    assert set(tables()[package]) - inside - set(PACKAGES) - planned == set()


def test_tasks_import_only_what_is_offered_to_them() -> None:
    files = sorted((ROOT / "tasks").rglob("*.py"))
    assert len(files) > 10
    for path in files:
        for name in imports(path):
            assert name.split(".")[0] == "olmes_suite", path
            assert room(name, "olmes_suite") in TASKS_MAY_IMPORT, f"{path}: {name}"


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    """Paths below a package, and test files by name, wherever they lie under tests/."""
    text = page.read_text(encoding="utf-8")
    paths = re.findall(
        r"`((?:olmes_suite|train_plugins|decontam|leaderboard|tasks|tests|docs|benchmarks)/[\w./-]+)`", text
    )
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"`(test_\w+\.py)`", text)) - tests == set()


def test_entry_points_and_hooks_are_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sources = "\n".join(path.read_text(encoding="utf-8") for path in modules().values())
    groups = set(re.findall(r"[\"'](olmes\.(?:commands|backends|judges|verifiers|stages))[\"']", sources))
    assert groups == set(re.findall(r"^\| `(olmes\.\w+)` \|", text, re.MULTILINE))
    from olmes_suite.hooks import Specification

    hooks = {name for name in vars(Specification) if name.startswith("olmes_")}
    assert hooks == set(re.findall(r"^\| `(olmes_\w+)\(", text, re.MULTILINE))
