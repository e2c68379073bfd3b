"""The table of `olmes eval --dry-run`."""

from __future__ import annotations

from olmes_suite.cli.time_left import duration
from olmes_suite.evaluation.dry_run import Asked, DryRun
from olmes_suite.tasks.index import PREFIX


def print_dry_run(found: DryRun, runs: str) -> None:
    """Print what a run would ask, the estimated time, and what would fail."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("task", overflow="fold", max_width=20)
    for heading in ("documents", "of", "requests", "prompt tokens", "new at most", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, asked in found.tasks.items():
        table.add_row(name.removeprefix(PREFIX), *_cells(asked))
    if len(found.tasks) > 1:
        table.add_row("all", *_cells(found.total))
    console.print(table)
    for name, asked in found.tasks.items():
        if asked.error is not None:
            console.print(f"! {name.removeprefix(PREFIX)} would have no score: {asked.error}", soft_wrap=True)
    for line in (*found.notes, *([found.tokenizer] if found.tokenizer else [])):
        console.print(f"! {line}", soft_wrap=True)
    if not found.total.exact:
        console.print("! ~: extrapolated from 100 documents of each leaf task")
    console.print(_time(found, runs), soft_wrap=True)
    console.print("nothing was run; the same command without --dry-run runs it")


def _cells(asked: Asked) -> list[str]:
    if asked.error is not None:
        return ["–"] * 6
    about = "" if asked.exact else "~"
    texts = [f"{asked.documents:,}", f"{asked.of:,}", f"{asked.requests:,}"]
    tokens = "–" if asked.prompt_tokens is None else f"{about}{asked.prompt_tokens:,}"
    new = "context" if asked.max_new_tokens is None else f"{about if asked.answers else ''}{asked.max_new_tokens:,}"
    return [*texts, tokens, new, "–" if asked.seconds is None else duration(asked.seconds)]


def _time(found: DryRun, runs: str) -> str:
    counted = {name: asked for name, asked in found.tasks.items() if asked.error is None}
    known = [asked.seconds for asked in counted.values() if asked.seconds is not None]
    if not known:
        return f"time    not estimated: {runs} has no run of this model with these tasks and this backend"
    names = ", ".join(found.basis[:3]) + (", …" if len(found.basis) > 3 else "")
    without = [name.removeprefix(PREFIX) for name, asked in counted.items() if asked.seconds is None]
    rest = f", and {', '.join(without)}, which no earlier run has" if without else ""
    return f"time    about {duration(sum(known))}{rest}; as in {names}"
