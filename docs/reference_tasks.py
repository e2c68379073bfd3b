"""Reference pages of the tasks: a page for each folder under `tasks/`, and an index."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from olmes_suite.tasks import index, suites

INDEX_PAGE = "reference/tasks/index.md"
AGGREGATES = {
    "macro": "unweighted mean of the sub-tasks",
    "micro": "mean of the sub-tasks, weighted by their documents",
    "nested": "mean over the data sets of their sub-tasks' means",
}
HUB = "https://huggingface.co/datasets/"


def pages() -> dict[str, str]:
    """Make the pages: path below `docs/` to Markdown."""
    families: dict[str, list[index.TaskEntry]] = defaultdict(list)
    for entry in sorted(index.top_level(), key=lambda entry: entry.name):
        families[Path(entry.file).parts[0]].append(entry)
    out = {INDEX_PAGE: _index_page(families)}
    for family, entries in sorted(families.items()):
        parts = [f"# {family}\n", *(_task(entry) for entry in entries), _rejected(family)]
        out[f"reference/tasks/{family}.md"] = "\n".join(parts)
    return out


def _index_page(families: dict[str, list[index.TaskEntry]]) -> str:
    lines = [
        "# Tasks\n",
        "Every task and group that ships with the suite. The prefix `tulu3_` may be left out on the command line. "
        "`olmes tasks show TASK` prints the same facts, and `olmes prompts --task TASK` every request.\n",
        "| task | suites | metric | shots | documents | data set |\n|---|---|---|---|---|---|",
    ]
    for family, entries in sorted(families.items()):
        for entry in entries:
            leaf = index.index()[entry.leaves[0]]
            lines.append(
                f"| [{entry.name}]({family}.md#{entry.name}) | {', '.join(_suites(entry.name))} | `{entry.primary}` "
                f"| {leaf.shots} | {_documents(entry)} | {leaf.dataset} |"
            )
    return "\n".join(lines) + "\n"


def _task(entry: index.TaskEntry) -> str:
    leaf = index.index()[entry.leaves[0]]
    loaded = _loaded(leaf)
    facts = dict(_facts(entry, leaf))
    parts = [f"## {entry.name}\n", _comment(entry)]
    parts.append("| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in facts.items()) + "\n")
    if entry.members:
        names = ", ".join(f"`{name.removeprefix(entry.name + '_')}`" for name in entry.members)
        parts.append(f"Sub-tasks ({len(entry.members)}), each named `{entry.name}_…`: {names}\n")
    parts += [_quirks(entry), _published(entry.name), _prompt(leaf, loaded)]
    return "\n".join(part for part in parts if part)


def _facts(entry: index.TaskEntry, leaf: index.TaskEntry) -> Iterator[tuple[str, str]]:
    if found := _suites(entry.name):
        yield "suites", ", ".join(found)
    yield "metric", f"`{entry.primary}`" + (f", {AGGREGATES[entry.aggregate]}" if entry.members else "")
    datasets = dict.fromkeys(index.index()[name].dataset for name in entry.leaves)
    shown = [f"[{one}]({HUB}{one})" if one.count("/") == 1 else one for one in list(datasets)[:6]]
    more = f" and {len(datasets) - 6} more" if len(datasets) > 6 else ""
    config = f", configuration `{leaf.config}`" if leaf.config != "default" and not entry.members else ""
    yield "data", f"{', '.join(shown)}{more}{config}, split `{leaf.split}`, revision `{leaf.revision[:12]}`"
    if documents := _documents(entry):
        yield "documents", documents
    yield "answer", "generated text" if leaf.output == "generate_until" else "the most likely of several choices"
    yield "examples in the prompt", str(leaf.shots) if leaf.shots else "none"
    yield "settings", _settings(_loaded(leaf), leaf)
    if (floor := _floors().get(entry.name)) is not None:
        yield "floor", f"{100 * floor:.1f}: what a constant answer scores (`olmes eval --backend floor`)"
    yield "version", f"{entry.version:g}"
    yield "file", f"`tasks/{entry.file}`"


@cache
def _floors() -> dict[str, float]:
    """Read the floors measured on the full data: task to a fraction."""
    floors: dict[str, float] = json.loads((Path(__file__).parent / "floors.json").read_text(encoding="utf-8"))["floors"]
    return floors


def _settings(loaded: Any, leaf: index.TaskEntry) -> str:
    request = _request(loaded)
    if request is None:
        return "see the task's file"
    if request.kind != "generate":
        return "log-likelihood of each choice"
    given = {name: getattr(request, name, None) for name in ("temperature", "top_p", "top_k")}
    said = [f"{name} {value:g}" for name, value in given.items() if value is not None]
    stops = f", stops at {', '.join(f'`{json.dumps(stop)}`' for stop in request.stop)}" if request.stop else ""
    samples = f", {request.samples} samples" if request.samples > 1 else ""
    return f"{', '.join(said)}, at most {request.max_tokens} tokens{samples}{stops}".lstrip(", ").replace("|", "\\|")


def _suites(name: str) -> list[str]:
    return [suite for suite in suites.names() if any(entry.task == name for entry in suites.load(suite).tasks)]


def _documents(entry: index.TaskEntry) -> str:
    from olmes_suite.tasks.sizes import leaf_sizes

    known = leaf_sizes(entry.name)
    return f"{sum(known):,}" if known else ""


def _comment(entry: index.TaskEntry) -> str:
    """Return the comment at the top of the task's file: what it is, and its reference."""
    lines = []
    for line in index.task_file(entry).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).replace("<", "&lt;") + "\n" if lines else ""


def _quirks(entry: index.TaskEntry) -> str:
    lines = [f"* {entry.note}"] if entry.note else []
    if entry.differs:
        lines.append(f"* Repaired: {entry.differs}.")
    if entry.judge:
        lines.append(f"* The reference's judge is `{entry.judge}`; another judge makes it another variant.")
    return "Quirks:\n\n" + "\n".join(lines) + "\n" if lines else ""


def _rejected(family: str) -> str:
    """Say which gold answers the scorers reject, as the reference's do."""
    path = index.tasks_folder() / family / "rejected_golds.json"
    if not path.is_file():
        return ""
    recorded = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"* `{metric}` rejects {one['count']} of {one['of']:,}: {one['reason']}."
        for metric, one in recorded.items()
        if one.get("count")
    ]
    if not lines:
        return ""
    return "## Gold answers that are rejected\n\nBy the reference's scorer too:\n\n" + "\n".join(lines) + "\n"


def _published(name: str) -> str:
    from leaderboard import published

    rows = [(row.name, row.cells[name]) for row in published.rows() if name in row.cells]
    if not rows:
        return ""
    lines = [f"| {model} | {100 * (cell.value or 0):.1f} |" for model, cell in rows]
    source = rows[0][1].note.removeprefix("as published: ").split(",")[:2]
    return f"Published scores ({','.join(source)}):\n\n| model | score |\n|---|---|\n" + "\n".join(lines) + "\n"


@cache
def _loaded(leaf: index.TaskEntry) -> Any:
    """Return the task with its sample documents; None without the extra `eval`, or without sample documents."""
    from olmes_suite import extras
    from olmes_suite.errors import MissingData

    if extras.missing("eval"):
        return None
    from olmes_suite.tasks.documents import DataSource
    from olmes_suite.tasks.load import load_task

    try:
        return load_task(index.task_file(leaf), DataSource(sample=True))
    except MissingData:
        return None


def _request(loaded: Any) -> Any:
    return loaded.requests(loaded.task_docs[0], 0, chat=True)[0] if loaded is not None else None


def _prompt(leaf: index.TaskEntry, loaded: Any) -> str:
    request = _request(loaded)
    if request is None:
        return ""
    turns = [f"[{turn['role']}] {turn['content']}" for turn in request.chat or []] or [request.text or ""]
    if request.prefix or request.continuation:
        turns.append(f"[assistant starts] {request.prefix}{request.continuation or ''}")
    text = "\n".join(turns)
    fence = "`" * max(4, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"The prompt of a sample document of `{leaf.name}`:\n\n{fence}text\n{text}\n{fence}\n"
