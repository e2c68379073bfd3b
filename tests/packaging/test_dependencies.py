"""Every import is declared and every declaration imported: in the core, or in the extra of the folder."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from olmes_suite import extras

pytestmark = pytest.mark.xdist_group("dependencies")  # the sources are parsed once

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = ("olmes_suite", "leaderboard", "decontam", "train_plugins")
CORE = "core"
PLACES: dict[str, tuple[str, ...]] = {
    "olmes_suite": (),
    "leaderboard": (),
    "tasks": ("eval",),
    **{
        f"olmes_suite/{folder}": ("eval",)
        for folder in ("endpoints", "evaluation", "judges", "models", "tasks", "workers")
    },
    "olmes_suite/constraints": ("eval", "ood"),
    "olmes_suite/devices.py": ("eval",),
    "olmes_suite/lm_eval_api.py": ("eval",),
    "olmes_suite/models/vllm": ("eval", "vllm"),
    "olmes_suite/sandbox": ("code",),
    "olmes_suite/scoring": ("eval", "ood"),
    "olmes_suite/scoring/tasksets.py": ("eval", "verifiers"),
    "olmes_suite/trackers/wandb.py": ("wandb",),
    "olmes_suite/trackers/mlflow.py": ("mlflow",),
    "olmes_suite/trackers/trackio.py": ("trackio",),
    "olmes_suite/trackers/tensorboard.py": ("tensorboard",),
    "olmes_suite/pytest_plugin.py": ("dev",),
    "olmes_suite/workers/ray_actors.py": ("eval", "ray"),
    "decontam": ("eval", "decontam"),
    "decontam/scan_on_ray.py": ("eval", "decontam", "ray"),
    "train_plugins": ("eval", "decontam", "train"),
    "train_plugins/data/curation": ("eval", "decontam", "train", "curate"),
    "train_plugins/checkpoints/live_engine.py": ("eval", "train", "vllm"),
    "train_plugins/rl/vllm_rollouts.py": ("eval", "train", "vllm"),
}
"""Folder or file to the extras whose modules it may import beside the core's; the longest path counts."""
MODULE_OF = {
    "pyyaml": "yaml",
    "pyspellchecker": "spellchecker",
    "antlr4-python3-runtime": "antlr4",
    "mlflow-skinny": "mlflow",
    "pytest-xdist": "xdist",
}
"""Packages whose module has another name."""
PART_OF = {"pydantic_core": "pydantic"}
"""Modules that belong to another package, which pins their release."""
ONLY_COMMANDS = {"ruff", "mypy", "import-linter", "build", "types-pyyaml", "pandas-stubs"}
"""Packages of `dev` that are run, or read by mypy, and not imported."""

ELSEWHERE = ("tests/support/regenerate_examples.py", "tests/support/compare_bfcl.py")
"""Run in the environment of the reference implementation, and with bfcl-eval on the path."""


def name_of(requirement: str) -> str:
    """The package that a requirement names."""
    return re.split(r"[\[<>=~! ;]", requirement)[0].lower()


def module_of(package: str) -> str:
    """The module that a package is imported as."""
    return MODULE_OF.get(package, package.replace("-", "_"))


def declared(extra: str) -> set[str]:
    """Modules that the core, or an extra by itself, declares."""
    listed = PROJECT["dependencies"] if extra == CORE else PROJECT["optional-dependencies"][extra]
    return {module_of(name_of(one)) for one in listed} - {"olmes_suite"}


def included(extra: str) -> set[str]:
    """Extras that an extra names."""
    listed = [one for one in PROJECT["optional-dependencies"][extra] if name_of(one) == "olmes-suite"]
    return {part.strip() for one in listed for part in one.partition("[")[2].rstrip("]").split(",")}


def _name(function: ast.expr) -> str:
    return getattr(function, "attr", None) or getattr(function, "id", "")


def imported(file: Path) -> Iterator[str]:
    """Other packages that a file imports, anywhere in it: by a statement, or by `import_module` with a plain name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        elif isinstance(node, ast.Call) and _name(node.func).endswith("import_module"):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in OURS:
                yield PART_OF.get(top, top)


@functools.cache
def sources() -> list[tuple[str, str]]:
    """(file, module that it imports) over the whole package."""
    files = [file for folder in (*OURS, "tasks") for file in sorted((ROOT / folder).rglob("*.py"))]
    return [(file.relative_to(ROOT).as_posix(), module) for file in files for module in imported(file)]


def allowed(file: str) -> tuple[str, ...]:
    """The extras of a file."""
    place = max((place for place in PLACES if file == place or file.startswith(place + "/")), key=len)
    return PLACES[place]


def test_every_import_is_declared() -> None:
    wrong = [
        f"{file}: {module}"
        for file, module in sources()
        if not any(module in declared(extra) for extra in (CORE, *allowed(file)))
    ]
    assert not wrong


@pytest.mark.parametrize("extra", [CORE, *extras.MODULES])
def test_every_declared_package_is_imported_where_it_belongs(extra: str) -> None:
    used = {module for file, module in sources() if extra == CORE or extra in allowed(file)}
    assert declared(extra) <= used


def test_the_extras_that_errors_name_are_those_of_the_package() -> None:
    own = set(PROJECT["optional-dependencies"]) - {"dev", "all", "judge", "docs"}
    assert own == set(extras.MODULES)
    assert {extra: set(modules) for extra, modules in extras.MODULES.items()} == {e: declared(e) for e in own}
    assert {extra: set(extras.INCLUDES.get(extra, ())) for extra in own} == {
        extra: included(extra) | {more for part in included(extra) for more in included(part)} for extra in own
    }
    # `verifiers` brings half a gigabyte and pins of its own; of the trackers people use one
    assert included("all") == {*own, "judge"} - {"verifiers", "wandb", "mlflow", "trackio", "tensorboard"} and included(
        "judge"
    ) == {"eval"}


@pytest.mark.long
def test_the_tests_import_what_dev_brings() -> None:
    parts = {"dev", *included("dev")} | {more for part in included("dev") for more in included(part)}
    have = {module for part in (CORE, *parts) for module in declared(part)} | {"_pytest"}
    helpers = {
        file.stem for folder in ("tests/support", "examples/demo", "docs") for file in (ROOT / folder).glob("*.py")
    }
    asked, skipped = set(), set()
    for file in sorted(set((ROOT / "tests").rglob("*.py")) - {ROOT / file for file in ELSEWHERE}):
        asked |= set(imported(file))
        skipped |= set(re.findall(r"importorskip\(\s*\"(\w+)", file.read_text(encoding="utf-8")))
    assert asked - skipped - helpers - have == set()
    commands = {module_of(name) for name in ONLY_COMMANDS}
    assert declared("dev") <= asked | skipped | commands


def test_every_dependency_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    lines = [line for line in section.splitlines() if line.strip()]
    for before, line in pairwise(lines):
        if re.match(r'    "(?!olmes-suite\[|types-|pandas-stubs|pytest|ruff|mypy)', line):
            assert before.startswith("    #") or "#" in line, line
        elif re.match(r"(judge|vllm|decontam|train|code|ood|ray|eval) = ", line):
            assert before.startswith("#"), line
