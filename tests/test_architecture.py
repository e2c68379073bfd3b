"""docs/architecture.md says what the contracts of import-linter hold, and names files, hooks and groups that exist."""

from __future__ import annotations

import ast
import re
import tomllib
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


def contracts() -> dict[str, dict[str, int]]:
    """The same from import-linter's contracts."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return {
        contract["containers"][0]: {
            name.strip(): level
            for level, layer in enumerate(reversed(contract["layers"]))
            for name in re.split(r"[|:]", layer)
        }
        for contract in settings["contracts"]
        if "containers" in contract
    }


def test_the_tables_are_the_contracts() -> None:
    planned = {"api"}
    drawn = {
        package: {name: level for name, level in levels.items() if name not in planned or name in contracts()[package]}
        for package, levels in tables().items()
    }
    assert drawn == contracts()


def test_the_figure_has_the_levels_of_the_table() -> None:
    figure = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[0]
    lines = re.sub(r" *(<──.*|│)$", "", figure.replace(",\n", ", "), flags=re.MULTILINE).splitlines()
    drawn = [set(line.split(", ")) for line in lines[lines.index("cli, pytest_plugin") :]]
    levels = {name: level for name, level in tables()["olmes_suite"].items() if name != "__main__"}
    assert drawn[::-1] == [{name for name in levels if levels[name] == level} for level in range(len(drawn))]


def test_tasks_import_only_what_is_offered_to_them() -> None:
    files = sorted((ROOT / "tasks").rglob("*.py"))
    assert len(files) > 10
    for path in files:
        for name in imports(path):
            assert name.split(".")[0] == "olmes_suite", path
            assert name.split(".")[1] in TASKS_MAY_IMPORT, f"{path}: {name}"


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_named_files_and_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tops = "|".join((*PACKAGES, "tasks", "tests", "docs", "benchmarks", "examples", r"\.github"))
    paths = re.findall(rf"`((?:{tops})/[\w./-]*)`", text)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert set(re.findall(r"`(test_\w+)`", text)) - set(re.findall(r"def (test_\w+)\(", sources)) == set()


def test_the_map_names_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/]+)/` \|", text, re.MULTILINE))
    folders = {"/".join(name.split(".")[:2]) for name, path in modules().items() if path.name == "__init__.py"}
    assert folders - named == set()


def test_entry_points_and_hooks_are_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sources = "\n".join(path.read_text(encoding="utf-8") for path in modules().values())
    groups = set(re.findall(r"[\"'](olmes\.(?:commands|backends|judges|verifiers|stages|trackers))[\"']", sources))
    assert groups == set(re.findall(r"^\| `(olmes\.\w+)` \|", text, re.MULTILINE))
    from olmes_suite.hooks import Specification

    hooks = {name for name in vars(Specification) if name.startswith("olmes_")}
    assert hooks == set(re.findall(r"^\| `(olmes_\w+)\(", text, re.MULTILINE))
