"""The gate as tests of pytest: `pytest --olmes-baseline NAME --olmes-run RUN` has a test for each task and the average.

pytest imports this module at each start, so nothing of the evaluator is imported before a run is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from olmes_suite.comparison.gate import GateReport, TaskVerdict
    from olmes_suite.comparison.gate_health import Finding

NAME = "olmes_gate"
"""Beginning of the tests' ids, their class in JUnit XML, and their marker (`-m olmes_gate`)."""
INCONCLUSIVE = ("xfail", "fail")
BROKEN = ("not comparable", "infrastructure")
"""Verdicts that say nothing about the candidate."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all of which begin with `--olmes-`."""
    group = parser.getgroup("olmes", "regression gate of olmes-suite")
    group.addoption("--olmes-baseline", metavar="NAME", help="Baseline: run folder, name, named baseline, or file.")
    group.addoption("--olmes-run", metavar="RUN", help="Candidate that is judged against the baseline.")
    group.addoption("--olmes-runs", metavar="DIR", help="Folder of the recorded runs [runs].")
    group.addoption("--olmes-config", metavar="FILE", help="A gate.yaml with margins, required tasks and limits.")
    group.addoption(
        "--olmes-inconclusive", metavar="|".join(INCONCLUSIVE), help="Outcome of an inconclusive test [xfail]."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Judge the candidate, so that a mistake is one line before any test runs. Raises pytest.UsageError."""
    config.addinivalue_line("markers", f"{NAME}: a verdict of olmes-suite's regression gate")
    names = {name: config.getoption(f"olmes_{name}") for name in ("baseline", "run", "runs", "config", "inconclusive")}
    given = [f"--olmes-{name}" for name, value in names.items() if value is not None]
    if not given or config.option.help or config.option.version:
        return
    if missing := [f"--olmes-{name}" for name in ("baseline", "run") if not names[name]]:
        raise pytest.UsageError(f"{given[0]} needs {' and '.join(missing)}")
    if names["inconclusive"] not in (None, *INCONCLUSIVE):
        raise pytest.UsageError(
            f"--olmes-inconclusive takes {' or '.join(INCONCLUSIVE)}, not {names['inconclusive']!r}"
        )
    folder = config.invocation_params.dir / (names["runs"] or "runs")
    report = _judged(names["baseline"], names["run"], folder, names["config"])
    config.pluginmanager.register(Gate(report, names["inconclusive"] or "xfail"), NAME)


def _judged(baseline: str, candidate: str, runs: Path, config: str | None) -> GateReport:
    """Return the report of the gate. Raises pytest.UsageError where it says nothing about the candidate."""
    from olmes_suite import api
    from olmes_suite.errors import OlmesError

    try:
        report = api.gate(baseline, candidate, runs=runs, config=config).report
    except OlmesError as error:
        raise pytest.UsageError(f"olmes gate: {error}") from None
    if report.verdict in BROKEN:
        raise pytest.UsageError(f"olmes gate: {report.verdict}: {_reason(report)}")
    return report


def _reason(report: GateReport) -> str:
    """Return the first reason for a verdict that says nothing about the candidate, and how many more there are."""
    stated = (finding for finding in report.health if finding.kind == "error" or finding.check == "fingerprint")
    reasons = [finding.line() for finding in stated] or [*report.notes] or [report.suite.sentence()]
    return reasons[0] + (f" (and {len(reasons) - 1} more, which `olmes gate` prints)" if len(reasons) > 1 else "")


class Gate:
    """The plugin of a session with a gate: it adds the tests."""

    def __init__(self, report: GateReport, inconclusive: str) -> None:
        """Add a test for each row of `report`; `inconclusive` is xfail or fail."""
        self.report = report
        self.inconclusive = inconclusive

    def pytest_report_header(self) -> str:
        """Say which runs are compared."""
        return f"olmes gate: {self.report.candidate} against {self.report.baseline}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the tests before `-k`, `-m` and `--lf` choose among all tests."""
        collector = Rows.from_parent(session, name=NAME, nodeid=NAME)
        collector.gate = self
        own = list(collector.collect())
        items.extend(own)
        collected = pytest.CollectReport(NAME, "passed", None, [*own])  # so that pytest counts them as collected
        session.config.hook.pytest_collectreport(report=collected)


class Rows(pytest.Collector):
    """The rows of a gate's report."""

    gate: Gate

    def collect(self) -> Iterator[Row]:
        """Yield a test for each task, then one for the average; one for findings that belong to no task."""
        report = self.gate.report
        findings = [finding for finding in report.health if finding.kind != "note"]
        for row in report.rows:
            own = [finding for finding in findings if finding.task == row.task]
            findings = [finding for finding in findings if finding.task != row.task]
            yield self._row(_short(row.task), row, own)
        for finding in findings:  # such as a task without a score
            yield self._row(f"{_short(finding.task)} {finding.check}".strip(), None, [finding])

    def _row(self, name: str, verdict: TaskVerdict | None, findings: list[Finding]) -> Row:
        row: Row = Row.from_parent(self, name=name)
        row.verdict, row.findings, row.inconclusive = verdict, findings, self.gate.inconclusive
        row.add_marker(NAME)
        return row


class Row(pytest.Item):
    """The verdict on a task or on the average, with the health findings of the task."""

    verdict: TaskVerdict | None
    findings: list[Finding]
    inconclusive: str

    def runtest(self) -> None:
        """Pass, fail or xfail with the gate's sentence."""
        lines = [finding.line() for finding in self.findings]
        if self.verdict is not None:
            lines.insert(0, self.verdict.sentence())
            self._record(self.verdict)
        verdict = "fail" if self.findings or self.verdict is None else self.verdict.verdict
        text = "\n".join(lines)
        if verdict == "pass":
            return
        if verdict == "inconclusive" and self.inconclusive == "xfail":
            pytest.xfail(text)
        pytest.fail(text, pytrace=False)

    def _record(self, verdict: TaskVerdict) -> None:
        """Add the numbers as properties of JUnit XML, in fractions."""
        d = verdict.difference
        numbers = {"baseline": verdict.baseline, "candidate": verdict.candidate, "margin": verdict.margin,
                   "difference": d.delta if d else None, "lower_bound": d.lower if d else None}  # fmt: skip
        self.user_properties += [(name, value) for name, value in numbers.items() if value is not None]

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the title of a failure."""
        return self.path, None, f"{NAME} {self.name}"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the gate's sentence alone."""
        return str(excinfo.value) if excinfo.errisinstance(pytest.fail.Exception) else super().repr_failure(excinfo)


def _short(task: str) -> str:
    from olmes_suite.tasks.index import PREFIX

    return task.removeprefix(PREFIX)
