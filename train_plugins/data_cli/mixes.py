"""olmes data mixes: the shipped recipes of mixes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from olmes_suite.cli.options import Json

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_NOT_KNOWN = "unknown"
Name = Annotated[str | None, typer.Argument(metavar="NAME", help="A shipped mix: print its sources.")]


@app.command()
def mixes(name: Name = None, as_json: Json = False) -> int:
    """List the shipped mixes, those of Tülu 3 and OLMo 3 among them; with a name, its data sets and their licences."""
    from train_plugins.data.curation.mix import published
    from train_plugins.data_cli.options import table

    if name is None:
        listed = [published.summary(one) for one in published.names()]
        if as_json:
            print(json.dumps(listed, ensure_ascii=False))
            return 0
        rows = [[one["name"], one["kind"], one["rows"], one["sets"], one["unknown"]] for one in listed]
        print("\n".join(table(["mix", "kind", "rows", "data sets", "licence unknown"], rows, width=34)))
        print("`olmes data mixes NAME` prints the data sets of a mix; `olmes data mix NAME` makes it.")
        return 0
    found = published.details(name)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    print(found["about"])
    for note in found["notes"]:
        print(note)
    heads = ["data set", "rows", "licence"]
    parts = [[one["name"], one["amount"] or _NOT_KNOWN, one["licence"]] for one in found["parts"]]
    print("\n".join(table(heads, parts, width=50)))
    return 0
