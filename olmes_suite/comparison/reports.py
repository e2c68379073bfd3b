"""Reports of verdicts as markdown, JUnit XML and workflow annotations. Pure functions that return text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from olmes_suite.comparison.compare import Comparison, TaskComparison, setup
from olmes_suite.comparison.gate import GateReport, TaskVerdict
from olmes_suite.tasks.index import PREFIX
from olmes_suite.wording import count, tokens

SUMMARY_BYTES = 1024 * 1024
"""GitHub drops a step summary above 1 MiB."""
ANNOTATIONS = 10
"""GitHub shows at most this number of annotations of a kind per step."""


def short(task: str) -> str:
    """Return a task's name without the suites' prefix."""
    return task.removeprefix(PREFIX)


def points(value: float | None, sign: bool = False, digits: int = 1) -> str:
    """Format a fraction in points, None as `–`."""
    if value is None:
        return "–"
    text = f"{100 * value:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "−")


def span(ends: tuple[float, float] | None) -> str:
    """Format an interval in points."""
    return f"{points(ends[0], True)} … {points(ends[1], True)}" if ends else "–"


def ratio(value: float) -> str:
    """Format a ratio with two significant digits, or as a whole number from 10 on."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.095 else f"{value:.2f}"


def score_for_tokens(task: TaskComparison) -> str | None:
    """Set the difference of a task against its tokens: `+1.2 points for 2.3 × the tokens (412 → 948 per answer)`.

    Returns None if either run does not count tokens, or has none.
    """
    if task.difference is None or task.tokens is None or task.token_ratio is None:
        return None
    before, after = map(tokens, task.tokens)
    delta = points(task.difference.delta, True)
    return f"{delta} points for {ratio(task.token_ratio)} × the tokens ({before} → {after} per answer)"


def projected_score(task: TaskComparison) -> str | None:
    """Say the candidate's projected score: `projected on all 1,319 documents from 120: 64.1 (62.0 – 66.2)`, or None."""
    found = task.projected
    if found is None:
        return None
    low, high = map(points, found.ci95)
    return f"projected on all {found.of:,} documents from {found.n:,}: {points(found.value)} ({low} – {high})"


def p_value(p: float | None) -> str:
    """Format a p-value with at most two significant digits."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _cell(text: str) -> str:
    """Escape text so that it cannot end a markdown cell or start an HTML tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a markdown table with the first column aligned left and the others right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)])


def compare_markdown(comparison: Comparison) -> str:
    """Format the output of `olmes compare --markdown`."""
    header = [
        "task",
        "n",
        "baseline",
        "candidate",
        "Δ",
        "95 % interval",
        "p",
        "p (Holm)",
        "wins / losses",
        "detectable",
    ]
    rows = [_compare_row(task) for task in comparison.tasks]
    title = f"**{_cell(comparison.candidate)}** against **{_cell(comparison.baseline)}**, in points\n\n"
    lines = [
        f"* {_cell(short(task.task))}: {text}\n"
        for task in comparison.tasks
        for text in (score_for_tokens(task), projected_score(task))
        if text
    ]
    told = setup(comparison)
    lines += [f"* {_cell(text)}\n" for text in (*([told] if told else []), *caveats(comparison))]
    return title + markdown_table(header, rows) + "\n" + ("\n" + "".join(lines) if lines else "")


def caveats(comparison: Comparison) -> list[str]:
    """List what a reader of a comparison must know beside its numbers."""
    notes = []
    if comparison.imported:
        notes.append("imported scores: nothing shows that both runs were made in the same way")
    notes += comparison.partial
    if any("stopped early" in text for text in comparison.partial):
        notes.append("looks chose the number of documents: p and intervals do not count them, `olmes gate` does")
    for task in comparison.tasks:
        notes += [f"{short(task.task)}: {text}" for text in _caveats_of(task)]
    for names, run in ((comparison.only_baseline, "second"), (comparison.only_candidate, "first")):
        if names:
            notes.append(f"the {run} run has no score of {', '.join(map(short, names))}")
    return notes


def _caveats_of(task: TaskComparison) -> Iterator[str]:
    if not task.comparable:
        yield f"{' and '.join(task.differs)} differ: the scores are not comparable"
    if task.reason:
        yield task.reason
    if task.difference is not None and (task.only_baseline or task.only_candidate):
        yield (
            f"{count(task.difference.n, 'document')} in common; {task.only_baseline} only in the first run, "
            f"{task.only_candidate} only in the second"
        )
    if task.flagged:
        without = f"; without them {points(task.clean.delta, True)} ({span(task.clean.ci95)})" if task.clean else ""
        are = "document is" if task.flagged == 1 else "documents are"
        yield f"{task.flagged} {are} in a checkpoint's training data{without}"
    if task.difference is not None and task.difference.method == "unpaired":
        yield "not a mean over documents; compared unpaired from the two standard errors"


def _compare_row(task: TaskComparison) -> list[str]:
    d, mark = task.difference, "" if task.comparable else f" ! {' and '.join(task.differs)} differ"
    name = short(task.task) + mark
    if d is None:
        reason = task.reason or "not comparable"
        return [name, "–", points(task.baseline), points(task.candidate), reason, "–", "–", "–", "–", "–"]
    counts = f"{d.wins} / {d.losses}" if d.method != "unpaired" else "–"
    scores = [points(task.baseline), points(task.candidate), points(d.delta, True)]
    return [name, str(d.n), *scores, span(d.ci95), p_value(d.p), p_value(task.p_holm), counts, points(d.detectable)]


_WORDS = {"pass": "pass", "fail": "**FAIL**", "inconclusive": "inconclusive"}


def gate_markdown(report: GateReport) -> str:
    """Format the step summary (verdict, suite average, tasks, findings), below 1 MiB for any number of tasks."""
    header = ["task", "n", "baseline", "candidate", "Δ", "lower bound", "margin", "p (Holm)", "verdict"]
    runs = f"`{_cell(report.candidate)}` against `{_cell(report.baseline)}`, in points."
    title = f"## olmes gate: {report.verdict}\n\n{runs}\n\n"
    lines = [_gate_row(task) for task in report.rows]
    notes = [f"* {_cell(line)}" for line in report.findings()]
    tail = "\n\n" + "\n".join(notes) + "\n" if notes else "\n"
    text = title + markdown_table(header, lines) + tail
    left = len(lines)
    while len(text.encode()) >= SUMMARY_BYTES and (left or notes):
        left, notes = left // 2, notes[: len(notes) // 2]
        rest = f"\n\n{len(lines) - left} more tasks are in the JSON report.\n"
        text = title + markdown_table(header, lines[:left]) + "\n\n" + "\n".join(notes) + rest
    return text


def _gate_row(task: TaskVerdict) -> list[str]:
    d = task.difference
    scores = [points(task.baseline), points(task.candidate), points(d.delta if d else None, True)]
    bound = points(d.lower if d else None, True)
    return [
        short(task.task), str(d.n) if d else "–", *scores, bound, points(-task.margin, True), p_value(task.p_adjusted),
        _WORDS.get(task.verdict, task.verdict),
    ]  # fmt: skip


def junit(report: GateReport) -> str:
    """Format JUnit XML: a test case for each task, for the suite average and for each health finding."""
    suite = ET.Element("testsuite", name="olmes gate")
    for task in report.rows:
        case = ET.SubElement(suite, "testcase", classname="olmes.gate", name=_xml(short(task.task)))
        message = _xml(task.sentence())
        if task.verdict == "fail":
            ET.SubElement(case, "failure", message=message).text = message
        elif task.verdict == "inconclusive":
            ET.SubElement(case, "skipped", message=message)
        ET.SubElement(case, "system-out").text = message
    for finding in report.health:
        case = ET.SubElement(
            suite,
            "testcase",
            classname="olmes.gate.health",
            name=_xml(f"{finding.check} {short(finding.task)}".strip()),
        )
        if finding.kind == "error":
            ET.SubElement(case, "error", message=_xml(finding.text))
        elif finding.kind == "fail":
            ET.SubElement(case, "failure", message=_xml(finding.text))
        else:
            ET.SubElement(case, "system-out").text = _xml(finding.text)
    counts = {kind: len(suite.findall(f"testcase/{kind}")) for kind in ("failure", "error", "skipped")}
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Replace the characters that XML 1.0 does not allow."""
    return "".join(
        c if c in "\t\n" or " " <= c < "\ud800" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else "?" for c in text
    )


def workflow_annotations(report: GateReport) -> list[str]:
    """Return GitHub workflow commands: an error per failure, a warning per doubt, at most ten of a kind."""
    errors, warnings = [], []
    for task in report.rows:
        line = f"title=olmes gate%3A {_property(short(task.task))}::{_data(task.sentence())}"
        if task.verdict == "fail":
            errors.append(line)
        elif task.verdict == "inconclusive" and task.required:
            warnings.append(line)
    for finding in report.health:
        title = _property(f"olmes gate: {finding.check} {short(finding.task)}".strip())
        (warnings if finding.kind == "note" else errors).append(f"title={title}::{_data(finding.text)}")
    commands = []
    for kind, lines in (("error", errors), ("warning", warnings)):
        shown = lines if len(lines) <= ANNOTATIONS else lines[: ANNOTATIONS - 1]
        commands += [f"::{kind} {line}" for line in shown]
        if len(lines) > len(shown):
            commands.append(f"::{kind} title=olmes gate::{len(lines) - len(shown)} more in the step summary")
    return commands


def _data(text: str) -> str:
    """Escape text as the message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape text as a property of a workflow command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
