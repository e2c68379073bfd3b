"""The data card of a mix: card.md to read anywhere, and card.html with plots, one file that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.wording import count
from train_plugins.data.curation.mix.keys import UNKNOWN

PAGE = "card.html"
_COLOURS = ("#2a7f62", "#8a8f98", "#c0503f", "#d08a2e", "#7a5aa8", "#3f74b5", "#b04f86", "#5f7a1f")


def markdown(about: str | None, facts: Mapping[str, Any], warnings: Sequence[str]) -> str:
    """Return the card as Markdown."""
    return "\n".join(_lines(about, facts, warnings)) + "\n"


def _lines(about: str | None, facts: Mapping[str, Any], warnings: Sequence[str]) -> Iterator[str]:
    yield from ("# Data card", "")
    if about:
        yield from (about.strip(), "")
    held_out = f", of which {facts['held_out']:,} held out" if facts["held_out"] else ""
    yield f"{count(facts['rows'], 'row', separated=True)} of kind {facts['kind']}{held_out}."
    yield f"{facts['tokens']:,} tokens ({facts['tokens_by']})."
    yield f"Rows with thoughts: {_percent(facts['thoughts'])}; with tools: {_percent(facts['tools'])}."
    yield ""
    for warning in warnings:
        yield f"* Note: {warning}"
    yield from ("", "## Sources", "")
    heads = ("source", "from", "licence", "skill", "read", "in the mix", "repeated", "tokens", "turns", "thoughts")
    yield from _table(heads, [
        (s["source"], s["from"], s["licence"], s["skill"], s["read"], s["rows"], s["repeated"], s["tokens"],
         f"{s['mean_turns']:.1f}", _percent(s["thoughts"]))
        for s in facts["sources"]
    ])  # fmt: skip
    remarks = [f"* {s['source']}: {s['about']}" for s in facts["sources"] if s.get("about")]
    yield from (["", *remarks] if remarks else [])
    yield from ("", "## Left out", "")
    rejected = [(s["source"], reason, count) for s in facts["sources"] for reason, count in s["rejected"].items()]
    yield from _table(("source", "reason", "rows"), rejected) if rejected else ["No row."]
    for title, key in (("Skills", "skills"), ("Licences", "licences")):
        yield from ("", f"## {title}", "")
        rows = [(name, one["rows"], one["tokens"]) for name, one in facts[key].items()]
        yield from _table((key[:-1], "rows", "tokens"), rows)
    yield from ("", "## Lengths", "")
    spreads = [("tokens of a row", facts["row_tokens"]), ("turns of a row", facts["row_turns"])]
    names = list(facts["row_tokens"])
    yield from _table(("", *names), [(title, *(spread.get(name, "") for name in names)) for title, spread in spreads])
    if facts["duplicates_across"]:
        yield from ("", "## Duplicates", "")
        rows = [(one["source"], one["of"], one["rows"]) for one in facts["duplicates_across"]]
        yield from _table(("source", "repeats", "rows"), rows)
    yield from ("", "## Contamination", "", *_contamination(facts["decontamination"]))


def _contamination(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield "Not looked for: the recipe has no `decontam`."
        return
    yield f"Compared with {len(found['compared'])} tasks."
    if found["missing"]:
        yield f"Not compared, because their documents are not on this machine: {', '.join(found['missing'])}."
    by_task = [(name, task, count) for name, tasks in found["by_task"].items() for task, count in tasks.items()]
    if by_task:
        yield from ("", *_table(("source", "task", "matching rows"), by_task))
    if found["over_the_limit"]:
        yield from ("", "Over the paper's limit of 2 % of an evaluation's items:", "")
        yield from (f"* {line}" for line in found["over_the_limit"])


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    numeric = [all(isinstance(row[n], int | float) for row in rows) for n in range(len(heads))]
    marks = ["---:" if is_number else "---" for is_number in numeric]
    lines = [heads, marks, *([_cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def page(about: str | None, facts: Mapping[str, Any], warnings: Sequence[str]) -> str:
    """Return the card as one HTML page."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = _percent
    turns = [(f"{one['turns']}{'+' if one['turns'] == 20 else ''}", one["rows"]) for one in facts["turn_histogram"]]
    template = environment.from_string((Path(__file__).parent / "card.html").read_text(encoding="utf-8"))
    return template.render(
        about=about, facts=facts, warnings=warnings, unknown=UNKNOWN, fates=_fates(facts["sources"]),
        lengths=_bars([(f"≤ {_short(one['up_to'])}", one["rows"]) for one in facts["token_histogram"]]),
        turns=_bars(turns),
        skills=_bars([(skill, one["rows"]) for skill, one in facts["skills"].items()]),
        licences=_bars([(licence, one["rows"]) for licence, one in facts["licences"].items()]),
    )  # fmt: skip


def _bars(entries: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    largest, total = max((count for _, count in entries), default=0) or 1, sum(count for _, count in entries) or 1
    return [
        {"name": name, "count": count, "width": round(100 * count / largest, 2), "share": count / total}
        for name, count in entries
    ]


def _fates(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what became of the rows of each source, as stacked bars, and the legend of their colours."""
    reasons = list(dict.fromkeys(["in the mix", *(reason for one in sources for reason in sorted(one["rejected"]))]))
    colours = {reason: _COLOURS[number % len(_COLOURS)] for number, reason in enumerate(reasons)}
    bars = []
    for one in sources:
        counts = {"in the mix": one["rows"] - one["repeated"], **one["rejected"]}
        read = one["read"] or 1
        segments = [
            {"reason": reason, "count": counts[reason], "width": 100 * counts[reason] / read, "colour": colours[reason]}
            for reason in reasons
            if counts.get(reason)
        ]
        bars.append({"source": one["source"], "read": one["read"], "segments": segments})
    return {"bars": bars, "legend": colours}


def _short(number: int) -> str:
    return f"{number // 1024}k" if number >= 1024 else str(number)
