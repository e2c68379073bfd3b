"""The repository's own files: workflows, hooks, templates and metadata parse, and agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ISSUES = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
CHECK_WHEEL = ROOT / "tests/support/check_wheel.py"


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pinned(package: str) -> str:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.search(rf"^{package}==(\S+)$", text, re.MULTILINE)[1]  # type: ignore[index]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_limits_and_no_more_rights_than_they_need(path: Path) -> None:
    workflow = read(path)
    assert {"name", "permissions", "concurrency", "jobs"} <= workflow.keys()
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert True in workflow  # `on`, which YAML 1.1 reads as a truth value
    for name, job in workflow["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 60, name
        rights = job.get("permissions", {})
        assert "write" not in {value for right, value in rights.items() if right != "id-token"}, name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), name
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@(v\d+|release/v\d+)", step["uses"]), step["uses"]
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name
            assert "${{" not in step.get("run", ""), f"{name}: an expression inside a script can be injected into"


def test_publishing_alone_may_ask_for_an_identity() -> None:
    asking = {
        (path.name, name)
        for path in WORKFLOWS
        for name, job in read(path)["jobs"].items()
        if "id-token" in job.get("permissions", {})
    }
    assert asking == {("publish.yml", "pypi")}


def test_every_supported_python_is_tested() -> None:
    classifiers = pyproject()["project"]["classifiers"]
    supported = [c.rsplit(" ", 1)[1] for c in classifiers if re.search(r"Python :: 3\.\d+$", c)]
    assert read(GITHUB / "workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == supported
    assert pyproject()["project"]["requires-python"] == f">={supported[0]}"


def test_hooks_are_of_the_pinned_versions() -> None:
    config = read(ROOT / ".pre-commit-config.yaml")
    repositories = {repository["repo"]: repository for repository in config["repos"]}
    assert repositories["https://github.com/astral-sh/ruff-pre-commit"]["rev"] == f"v{pinned('ruff')}"
    hooks = [hook["id"] for repository in config["repos"] for hook in repository["hooks"]]
    assert len(hooks) == len(set(hooks))
    assert {"ruff-check", "ruff-format", "mypy", "trailing-whitespace", "end-of-file-fixer"} <= set(hooks)
    re.compile(config["exclude"])


def test_the_makefile_and_the_workflow_name_one_torch() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"torch==([\d.]+)", makefile + (GITHUB / "workflows/ci.yml").read_text(encoding="utf-8"))
    assert len(named) >= 2
    assert len(set(named)) == 1


@pytest.mark.parametrize("path", [path for path in ISSUES if path.name != "config.yml"], ids=lambda path: path.name)
def test_issue_forms(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "labels", "body"} <= form.keys()
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    for part in form["body"]:
        assert part["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"]["label"]


def test_addresses_name_one_repository() -> None:
    urls = pyproject()["project"]["urls"]
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= urls.keys()
    home = urls["Homepage"]
    assert all(url == home or url.startswith(f"{home}/") for url in urls.values())
    for path in re.findall(r"/(?:blob|tree)/main/(\S+)", " ".join(urls.values())):
        assert (ROOT / path).exists(), path
    assert read(GITHUB / "ISSUE_TEMPLATE/config.yml")["contact_links"][0]["url"].startswith(home)


# The check of the wheel ----------------------------------------------------------------------------------------------


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "olmes_suite", "train_plugins", "decontam", "leaderboard", "tasks"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("no git checkout")
    return [name for name in listed.stdout.split("\0") if name]


def wheel_of(folder: Path, names: list[str], points: str | None = None) -> Path:
    project = pyproject()["project"]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{k} = {v}" for k, v in entries.items()))
    ]
    path = folder / "olmes_suite-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(re.sub(r"^tasks/", "olmes_suite/_tasks/", name), "")
        text = "\n".join(lines) if points is None else points
        wheel.writestr("olmes_suite-0.dist-info/entry_points.txt", text)
    return path


def check(*arguments: str | Path) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, str(CHECK_WHEEL), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_a_whole_wheel_passes(tmp_path: Path) -> None:
    assert check(wheel_of(tmp_path, tracked())) == (0, [], "")


def test_what_is_wrong_with_a_wheel_is_named(tmp_path: Path) -> None:
    names = [name for name in tracked() if name != "tasks/index.json"]
    status, lines, _ = check(wheel_of(tmp_path, [*names, "tests/support/check_wheel.py"], points="[olmes]"))
    assert status == 1
    assert [line.split(": ", 1)[1] for line in lines] == [
        "missing: olmes_suite/_tasks/index.json",
        "does not belong: tests/support/check_wheel.py",
        "missing entry point: [console_scripts]",
        "missing entry point: [olmes.stages]",
        "missing entry point: olmes = olmes_suite.cli.main:main",
    ]


def test_a_wheel_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.whl").write_text("no wheel")
    for arguments in ((), (tmp_path / "no.whl",), (tmp_path / "absent.whl",)):
        status, lines, errors = check(*arguments)
        assert (status, lines, errors.count("\n")) == (2, [], 1)
        assert "Traceback" not in errors
