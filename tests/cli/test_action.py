"""The GitHub Action and the shell example, run step by step as a runner would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with an `olmes` command and, as baseline file, a run of the mock model on sample documents."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    shim = binaries / "olmes"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m olmes_suite.cli.main "$@"\n')
    shim.chmod(0o755)
    (binaries / "python").symlink_to(sys.executable)
    olmes(tmp_path, "eval", "--backend", "oracle", "--task", "gsm8k", "--data", "sample")
    run = next(path.name for path in (tmp_path / "runs").iterdir() if path.name.startswith("oracle"))
    olmes(tmp_path, "baseline", "save", run, "baseline.json")
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a runner gives a step."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "OLMES_DATA"))}
    own = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RUNNER_TEMP": str(folder),
    }
    return kept | own | more


def olmes(folder: Path, *args: str) -> None:
    """A command that must succeed."""
    command = [str(folder / "bin/olmes"), *args]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, capture_output=True)


def evaluated(text: str, values: dict[str, str]) -> str:
    """Workflow expressions: a context value, `a || b`, `a && b`, and `a != ''`."""

    def one(match: re.Match[str]) -> str:
        expression = match.group(1).strip()
        if expression.endswith("!= ''"):
            return "true" if values.get(expression.removesuffix("!= ''").strip()) else ""
        if "&&" in expression:
            parts = [values.get(part.strip(), "") for part in expression.split("&&")]
            return parts[-1] if all(parts) else ""
        return next((value for part in expression.split("||") if (value := values.get(part.strip(), ""))), "")

    return re.sub(r"\$\{\{(.*?)\}\}", one, text)


def run_action(folder: Path, **given: str) -> tuple[int, dict[str, str], str, str]:
    """Run the action's steps; returns exit status, outputs, step summary and log."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    named = {name.replace("_", "-"): value for name, value in given.items()}
    assert set(named) <= set(action["inputs"])
    inputs = {name: str(entry.get("default", "")) for name, entry in action["inputs"].items()} | {"install": ""} | named
    values = {f"inputs.{name}": value for name, value in inputs.items()}
    summary, log, status = folder / "summary.md", "", 0
    for step in action["runs"]["steps"]:
        if status or ("if" in step and not evaluated(step["if"], values)):
            continue
        output = folder / f"output-{step['name']}"
        output.touch()
        own = {key: evaluated(value, values) for key, value in step.get("env", {}).items()}
        env = environment(
            folder,
            GITHUB_ACTIONS="true",
            GITHUB_ACTION_PATH=str(ROOT),
            GITHUB_OUTPUT=str(output),
            GITHUB_STEP_SUMMARY=str(summary),
            **own,
        )
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        status, log = done.returncode, log + done.stdout + done.stderr
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{name}"] = value
    outputs = {name: evaluated(entry["value"], values) for name, entry in action["outputs"].items()}
    return status, outputs, summary.read_text() if summary.exists() else "", log


def test_the_action_evaluates_and_gates(workspace: Path) -> None:
    arguments = "--backend\nmock\n--task\ngsm8k\n--data\nsample\n"
    status, outputs, summary, log = run_action(workspace, model="any", eval_args=arguments, baseline="baseline.json")
    assert (status, outputs["verdict"]) == (1, "fail"), log
    assert summary.startswith("## olmes gate: fail")
    assert "::error title=olmes gate%3A extraction_failed gsm8k::" in log
    assert json.loads(Path(outputs["report"]).read_text())["exit"] == 1
    assert Path(outputs["junit"]).read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ("--suite\ndev\n\n--limit\n5\n", ["--suite", "dev", "--limit", "5"]),
        ("--suite dev --limit 5", ["--suite", "dev", "--limit", "5"]),
        ("--suite dev\n--system 'Be brief.'  \n", ["--suite", "dev", "--system", "Be brief."]),
        ("--system\nDon't guess.\n--suite=my suite.yaml", ["--system", "Don't guess.", "--suite=my suite.yaml"]),
        ("", []),
    ],
)
def test_the_forms_of_eval_args(tmp_path: Path, given: str, arguments: list[str]) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "python").symlink_to(sys.executable)
    (binaries / "olmes").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > given.txt\nexit 2\n')
    (binaries / "olmes").chmod(0o755)
    assert run_action(tmp_path, model="any", eval_args=given, baseline="b.json")[0] != 0
    expected = ["eval", "--model", "any", "--runs", "runs", *arguments, "--json"]
    assert (tmp_path / "given.txt").read_text().splitlines() == expected


def test_an_open_quote_in_eval_args_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    status, _, _, log = run_action(tmp_path, model="any", eval_args="--system 'Be", baseline="b.json")
    assert status != 0 and log.strip().splitlines() == ["eval-args: --system 'Be: No closing quotation"]


def test_the_action_gates_a_run_that_is_there(workspace: Path) -> None:
    run = next(path.name for path in (workspace / "runs").iterdir() if path.name.startswith("oracle"))
    status, outputs, _, log = run_action(workspace, candidate=run, baseline="baseline.json", inconclusive="pass")
    assert (status, outputs["verdict"]) == (0, "inconclusive"), log


@pytest.mark.parametrize(
    ("given", "installed"),
    [
        ({"candidate": "RUN"}, f"{ROOT}"),
        ({"candidate": "RUN", "extras": "eval,vllm"}, f"{ROOT}"),
        ({"model": "any"}, f"{ROOT}[eval]"),
        ({"model": "any", "extras": "eval,ood"}, f"{ROOT}[eval,ood]"),
    ],
)
def test_the_action_installs_the_core_and_extras_only_to_evaluate(
    workspace: Path, given: dict[str, str], installed: str
) -> None:
    run = next(path.name for path in (workspace / "runs").iterdir() if path.name.startswith("oracle"))
    named = {name: run if value == "RUN" else value for name, value in given.items()}
    python = workspace / "bin/python"
    python.unlink()
    python.write_text(
        f'#!/bin/sh\nif [ "$2" = pip ]; then echo "$@" > pip.txt; else exec "{sys.executable}" "$@"; fi\n'
    )
    python.chmod(0o755)
    arguments = "--backend\noracle\n--task\ngsm8k\n--data\nsample\n"
    status, outputs, _, log = run_action(
        workspace, install="true", baseline="baseline.json", eval_args=arguments, inconclusive="pass", **named
    )
    assert (status, outputs["verdict"]) == (0, "inconclusive"), log
    assert (workspace / "pip.txt").read_text().split() == ["-m", "pip", "install", "--quiet", installed]


def test_the_action_fails_on_a_wrong_name(workspace: Path) -> None:
    status, outputs, _, log = run_action(workspace, candidate="$(touch hacked)", baseline="baseline.json")
    assert (status, outputs["verdict"]) == (2, "")
    assert "no run '$(touch hacked)'" in log
    assert not (workspace / "hacked").exists()


def test_the_shell_example(workspace: Path) -> None:
    script = ROOT / "examples/ci/gate.sh"
    command = ["sh", str(script), "any", "baseline.json", "--backend", "mock", "--task", "gsm8k", "--data", "sample"]
    done = subprocess.run(command, cwd=workspace, env=environment(workspace), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "gate: fail" in done.stdout
    assert {"gate.json", "gate.xml", "gate.md"} <= {path.name for path in workspace.iterdir()}


def test_the_example_rules_are_valid() -> None:
    from olmes_suite.comparison.gate_rules import read_rules

    rules = read_rules(ROOT / "examples/ci/gate.yaml")
    assert rules.task("tulu3_gsm8k").required
    assert rules.margin_of("tulu3_safety", "safety") == 0.02


@pytest.mark.parametrize("name", ["github-workflow.yml", "gitlab-ci.yml"])
def test_the_example_pipelines_name_what_exists(name: str) -> None:
    text = (ROOT / "examples/ci" / name).read_text()
    parsed = yaml.safe_load(text)
    if "jobs" in parsed:
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        step = next(step for step in parsed["jobs"]["gate"]["steps"] if "olmes-suite" in step.get("uses", ""))
        assert set(step["with"]) <= set(action["inputs"])
    else:
        assert "gate.sh" in text
