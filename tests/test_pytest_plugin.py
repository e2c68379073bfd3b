"""The gate as tests of pytest."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gate_runs import table, write_scores

from olmes_suite.comparison import gate as gating
from olmes_suite.comparison.gate_health import Finding
from olmes_suite.runs.imports import import_scores

pytest_plugins = ["pytester"]
import_module("olmes_suite.comparison.results")  # pytester forgets what a session imports, and numpy is imported once

ROOT = Path(__file__).parents[1]
Run = Callable[..., pytest.RunResult]
Scores = dict[str, Iterable[float]]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest with the plugin alone, in this process, in a folder without tests."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def call(*args: str, process: bool = False) -> pytest.RunResult:
        given = ("-p", "olmes_suite.pytest_plugin", "-p", "no:cacheprovider", *args)
        return pytester.runpytest_subprocess(*given) if process else pytester.runpytest_inprocess(*given)

    return call


def recorded(folder: Path, name: str, tasks: Scores) -> None:
    """A run of imported scores in `folder`/runs."""
    import_scores(write_scores(folder / f"{name}.jsonl", tasks), name, folder / "runs", ["olmes"])


@pytest.fixture
def gated(pytester: pytest.Pytester) -> list[str]:
    """Runs a and b: one task passes, one fails, one is inconclusive; the options that gate b."""
    tasks = {"better": table(60, 0, 500), "worse": table(0, 90, 500), "few": table(1, 2, 20)}
    for number, name in enumerate("ab"):
        recorded(pytester.path, name, {task: scores[number] for task, scores in tasks.items()})
    return ["--olmes-baseline", "a", "--olmes-run", "b"]


def test_a_test_per_task_and_one_for_the_average(run: Run, gated: list[str]) -> None:
    result = run(*gated, "-rfx", "-v")
    result.assert_outcomes(passed=1, failed=1, xfailed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["olmes gate: b against a", "*collected 4 items"])
    result.stdout.fnmatch_lines(["olmes_gate::better PASSED*", "olmes_gate::worse FAILED*", "olmes_gate::few XFAIL*"])
    result.stdout.fnmatch_lines(["*fail: -18.00 points on 500 documents, lower bound *margin 1.00*"])
    assert "Traceback" not in result.stdout.str() and "pytest_plugin.py" not in result.stdout.str()


def test_inconclusive_may_fail(run: Run, gated: list[str]) -> None:
    run(*gated, "--olmes-inconclusive", "fail").assert_outcomes(passed=1, failed=3)


def test_the_rules_are_those_of_the_file(run: Run, gated: list[str], pytester: pytest.Pytester) -> None:
    (pytester.path / "gate.yaml").write_text("margin: 60\n")
    run(*gated, "--olmes-config", "gate.yaml").assert_outcomes(passed=4)


def test_names_choose_tests_beside_those_of_the_project(run: Run, gated: list[str], pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_own(): pass")
    run(*gated, "-k", "better").assert_outcomes(passed=1, deselected=4)
    run(*gated, "-m", "olmes_gate", "--strict-markers").assert_outcomes(passed=1, failed=1, xfailed=2, deselected=1)
    run(*gated, "-k", "average or own").assert_outcomes(passed=1, xfailed=1, deselected=3)
    assert run("-q").parseoutcomes() == {"passed": 1}


def test_junit_xml_has_the_tasks_and_their_numbers(run: Run, gated: list[str], pytester: pytest.Pytester) -> None:
    run(*gated, "--junit-xml", "gate.xml", "-o", "junit_family=xunit1")
    cases = {case.get("name"): case for case in ElementTree.parse(pytester.path / "gate.xml").iter("testcase")}
    assert list(cases) == ["better", "worse", "few", "suite average"]
    assert {case.get("classname") for case in cases.values()} == {"olmes_gate"}
    failure = cases["worse"].find("failure")
    assert failure is not None and "-18.00 points on 500 documents" in str(failure.text)
    assert cases["few"].find("skipped") is not None and cases["better"].find("failure") is None
    numbers = {one.get("name"): one.get("value") for one in cases["worse"].iter("property")}
    assert float(str(numbers["difference"])) == pytest.approx(-0.18) and float(str(numbers["margin"])) == 0.01


def test_runs_may_be_elsewhere(run: Run, gated: list[str], pytester: pytest.Pytester) -> None:
    (pytester.path / "runs").rename(pytester.path / "store")
    run(*gated, "--olmes-runs", "store").assert_outcomes(passed=1, failed=1, xfailed=2)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--olmes-baseline", "a"], "--olmes-baseline needs --olmes-run"),
        (["--olmes-run", "a"], "--olmes-run needs --olmes-baseline"),
        (["--olmes-config", "gate.yaml"], "--olmes-config needs --olmes-baseline and --olmes-run"),
        (["--olmes-baseline", "a", "--olmes-run", "nothing"], "olmes gate: *nothing*"),
        (["--olmes-baseline", "a", "--olmes-run", "other"], "olmes gate: not comparable: *share no task*"),
        (
            ["--olmes-baseline", "a", "--olmes-run", "part"],
            "olmes gate: infrastructure: *worse: the candidate has no *",
        ),
        (["--olmes-baseline", "a", "--olmes-run", "b", "--olmes-config", "no.yaml"], "olmes gate: *no.yaml*"),
        (
            ["--olmes-baseline", "a", "--olmes-run", "b", "--olmes-inconclusive", "skip"],
            "--olmes-inconclusive takes xfail or fail, not 'skip'",
        ),
    ],
)
def test_what_is_no_verdict_is_one_line(
    run: Run, gated: list[str], pytester: pytest.Pytester, args: list[str], said: str
) -> None:
    recorded(pytester.path, "other", {"another": [1.0] * 20})
    recorded(pytester.path, "part", {"better": table(60, 0, 500)[1]})
    result = run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.stderr.str().splitlines() if line.strip()]
    assert len(lines) == 1, lines
    result.stderr.fnmatch_lines([f"ERROR: {said}"])


def test_a_health_limit_fails_its_task(run: Run, gated: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gating, "findings", lambda *_: [Finding("length", "better", "fail", "30 % of answers were cut")]
    )
    result = run(*gated, "-k", "better")
    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines(["*pass: +12.00 points*", "fail: better: 30 % of answers were cut"])


def test_a_task_without_a_score_fails_beside_a_regression(
    run: Run, gated: list[str], pytester: pytest.Pytester
) -> None:
    recorded(pytester.path, "c", {"worse": table(0, 90, 500)[1], "few": table(1, 2, 20)[1]})
    result = run("--olmes-baseline", "a", "--olmes-run", "c", "-v")
    result.stdout.fnmatch_lines(["olmes_gate::worse FAILED*", "olmes_gate::better missing_task FAILED*"])
    result.stdout.fnmatch_lines(["error: better: the candidate has no score: not part of the run"])


@pytest.mark.long
def test_processes_share_the_tests(run: Run, gated: list[str]) -> None:
    result = run("-p", "xdist", *gated, "-n", "2", process=True)
    result.assert_outcomes(passed=1, failed=1, xfailed=2)


def test_a_start_without_the_options_imports_nothing() -> None:
    program = (
        "import sys, olmes_suite.pytest_plugin\n"
        "heavy = {'pandas', 'scipy', 'numpy', 'pyarrow', 'pydantic', 'yaml', 'typer', 'pluggy_'} & set(sys.modules)\n"
        "ours = sorted(name for name in sys.modules if name.startswith('olmes_suite'))\n"
        "print(sorted(heavy), ours)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[] ['olmes_suite', 'olmes_suite.pytest_plugin']"


def test_the_package_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"olmes": "olmes_suite.pytest_plugin"}
